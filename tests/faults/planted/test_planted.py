"""The planted bugs still fit the code, and one of them is caught; `make faults-planted` catches all."""

import shutil

import pytest

from tests.faults.planted.__main__ import planted, run
from tests.faults.planted.histories import HISTORIES, possible

pytestmark = pytest.mark.skipif(shutil.which("patch") is None, reason="needs patch on PATH")


@pytest.mark.parametrize("name", sorted(HISTORIES))
def test_the_bug_can_still_be_planted(name: str) -> None:
    with planted(name) as checkout:
        assert list(checkout.rglob("*.rej")) == []


@pytest.mark.skipif(bool(possible("adoption")), reason=possible("adoption") or "possible")
def test_a_worker_adopted_by_its_pid_alone_is_caught() -> None:
    """Guards invariant 8."""
    with planted("adoption") as checkout:
        assert any("invariant 8" in violation for violation in run("adoption", 1, checkout))
