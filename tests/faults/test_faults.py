"""A host of real parts under half a minute of faults. `make faults` has as many minutes, and seeds, as one likes."""

import asyncio
import contextlib
import shutil
import signal
import sys
from pathlib import Path

import pytest

SECONDS, SEED, RATE = 30, 1, 250
"""About eight workers of 250 lines a second: a sane load for two cores that other tests share."""
_DEADLINE_SECONDS = 200.0
"""Every wait of the run has a shorter one."""
_CLEAN_UP_SECONDS = 30.0


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node on PATH")
@pytest.mark.timeout(_DEADLINE_SECONDS + 2 * _CLEAN_UP_SECONDS)
async def test_no_fault_of_agent_and_supervisor_ends_doubles_or_silences_a_worker() -> None:
    """Guards invariants 3, 6 and 8. A process of its own, because a service manager adopts orphans.

    When this fails, its output ends with the command that has the same faults again.
    """
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults"),
        *("--seconds", str(SECONDS), "--seed", str(SEED), "--rate", str(RATE)),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(run.communicate(), _DEADLINE_SECONDS)
    finally:
        if run.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                run.send_signal(signal.SIGINT)  # it then ends what it started
            await asyncio.wait_for(run.wait(), _CLEAN_UP_SECONDS)
    assert run.returncode == 0, output.decode()
