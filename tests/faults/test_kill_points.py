"""A supervisor that dies before a system call around a worker; `make faults-points` tries each of them."""

from pathlib import Path

import pytest

from tests.faults.kill_points import SINCE, Scene

NUMBERS = {"run": (40, 150), "start": (25, 120)}
"""Of some two hundred each: the release of a first process, the last moments; then adoption, and a crash."""


@pytest.mark.parametrize(("since", "number"), [(since, number) for since in SINCE for number in NUMBERS[since]])
async def test_whatever_system_call_a_supervisor_dies_before_nothing_runs_twice_or_is_left(
    tmp_path: Path, since: str, number: int
) -> None:
    """Guards invariants 3 and 8."""
    scene = Scene(tmp_path, number, since)
    assert await scene.run() == [], scene.point
    assert scene.point, "the scene has so many system calls"
