"""That the bench sees a process become a program, however it learns of it."""

import subprocess
import time
from contextlib import closing

import pytest

from tests.bench.host import new_processes
from tests.bench.host.new_processes import NewProcesses
from tests.bench.host.processes import sample_until

PROGRAM = ["sleep", "30.125"]


def not_told() -> None:
    raise PermissionError


@pytest.mark.parametrize("told", [True, False])
def test_a_process_is_seen_with_the_time_it_became_the_program(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not tell this user, both are by looking at /proc."""
    if not told:
        monkeypatch.setattr(new_processes, "_Told", not_told)
    with closing(NewProcesses(PROGRAM)) as watch:
        assert watch.look() == set()
        began = time.perf_counter()
        with subprocess.Popen(PROGRAM) as process:
            try:
                sample_until(watch.look, "the process", 10.0)
                ended = time.perf_counter()
            finally:
                process.kill()
    assert watch.found == {process.pid}
    (moment,) = watch.moments
    assert began <= moment <= ended
