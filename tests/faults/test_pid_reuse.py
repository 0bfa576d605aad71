"""A pid that was a worker's and is somebody else's now: made for real, where this process may choose the next pid."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.integration.supervisor.running import KEY, RunningSupervisor, alive, eventually, launch

_LAST_PID = Path(
    "/proc/sys/kernel/ns_last_pid"
)  # proc(5): the next process of this pid namespace gets the number after it
_ATTEMPTS = 200
"""Others start processes too, and may take the number first."""


def _may_choose_pids() -> bool:
    try:
        _LAST_PID.write_text(_LAST_PID.read_text())
    except OSError:
        return False
    return True


async def _bystander(pid: int) -> asyncio.subprocess.Process:
    for _ in range(_ATTEMPTS):
        _LAST_PID.write_text(str(pid - 1))
        process = await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True)
        if process.pid == pid:
            return process
        process.kill()
        await process.wait()
    pytest.skip(f"pid {pid} went to somebody else")


@pytest.mark.skipif(not _may_choose_pids(), reason=f"needs to write {_LAST_PID}")
async def test_a_stranger_with_a_dead_workers_pid_is_neither_adopted_nor_signalled(tmp_path: Path) -> None:
    """Guards invariant 8."""
    supervisor = RunningSupervisor(tmp_path)
    try:
        await supervisor.start()
        worker = await supervisor.run(launch("sleep", "1000"))
        await supervisor.kill()
        os.kill(worker.pid, signal.SIGKILL)
        await eventually(lambda: not Path(f"/proc/{worker.pid}").exists(), "the worker is gone, with its pid")
        bystander = await _bystander(worker.pid)
        try:
            await supervisor.start()
            settled = await supervisor.until(lambda seen: seen.pid > 0, KEY)
            assert settled.pid != bystander.pid
            assert settled.restarts == 1
            await supervisor.client.stop_all(5)
            assert not alive(settled.pid)
            assert alive(bystander.pid)
            assert bystander.returncode is None
        finally:
            with contextlib.suppress(ProcessLookupError):
                bystander.kill()
            await bystander.wait()
    finally:
        await supervisor.clean_up()
