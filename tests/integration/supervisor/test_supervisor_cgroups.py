"""Leaves of cgroup v2, joined, killed and removed by the kernel where it has such a tree.

Limits themselves need the controllers memory, cpu and pids in that tree: here they are written into a folder that only looks
like one.
"""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleet_agent.supervisor.protocol import Key
from tests.integration.cgroup_mount import writable_mount
from tests.integration.supervisor.running import (
    DEADLINE_SECONDS,
    KEY,
    MAIN,
    RunningSupervisor,
    alive,
    eventually,
    launch,
)

NEEDS_CGROUP = (
    "limits need a delegated cgroup: start fleet-supervisor, or `fleetctl up`, with --cgroup DIR, "
    "or drop --memory-limit, --cpu-limit and --pids-limit"
)
# It leaves the session, the group and the environment its worker is known by.
WITH_DAEMON = ["sh", "-c", "env -i setsid sleep 1000 & echo $!; exec sleep 1000"]
_NUMBERS = itertools.count()


def _kill_and_remove(folder: Path) -> None:
    for leaf in [path for path in folder.iterdir() if path.is_dir()]:
        (leaf / "cgroup.kill").write_text("1")
        with contextlib.suppress(FileNotFoundError):
            leaf.rmdir()
    folder.rmdir()


@pytest.fixture
async def tree(folders: RunningSupervisor) -> AsyncIterator[Path]:
    """A folder of the kernel's own, for this test alone."""
    mount = writable_mount()
    if mount is None or os.geteuid() != 0:
        pytest.skip("needs root and a writable cgroup v2 mount")
    folder = mount / f"fleet-test-{os.getpid()}-{next(_NUMBERS)}"
    folder.mkdir()
    if not (folder / "cgroup.kill").exists():
        folder.rmdir()
        pytest.skip("needs cgroup.kill (Linux 5.14)")
    try:
        yield folder
    finally:
        await folders.clean_up()
        await eventually(lambda: _removed(folder), "all in it is gone")


def _removed(folder: Path) -> bool:
    try:
        if not folder.exists():
            return True
        _kill_and_remove(folder)
    except OSError:
        return False
    return True


def leaves(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


async def start(folders: RunningSupervisor, tree: Path) -> None:
    await folders.start(*MAIN, "run", "--cgroup", str(tree))


async def daemon_of(folders: RunningSupervisor, count: int = 1) -> int:
    await eventually(lambda: folders.log().count("\n") >= count, "the daemon was started")
    return int(folders.log().split()[count - 1])


async def test_a_worker_lives_in_its_leaf_which_goes_with_it(folders: RunningSupervisor, tree: Path) -> None:
    await start(folders, tree)
    worker = await folders.run(launch("sleep", "1000"))
    leaf = tree / "shop.1.1"
    await eventually(lambda: (leaf / "cgroup.procs").read_text().split() == [str(worker.pid)], "it has joined")
    assert str(worker.pid) not in (tree / "cgroup.procs").read_text()
    await folders.client.stop(KEY, signal.SIGTERM, 5.0)
    await folders.until(lambda seen: seen.state == "exited")
    await eventually(lambda: leaves(tree) == [], "its leaf is removed")


async def test_a_crash_leaves_nothing_behind_whatever_it_calls_itself(folders: RunningSupervisor, tree: Path) -> None:
    """Guards invariant 8."""
    await start(folders, tree)
    worker = await folders.run(launch(*WITH_DAEMON))
    daemon = await daemon_of(folders)
    os.kill(worker.pid, signal.SIGKILL)
    following = await folders.until(lambda seen: seen.restarts == 1 and seen.pid > 0)
    await eventually(lambda: not alive(daemon), "what the crashed process started is dead")
    second = await daemon_of(folders, 2)
    assert all(alive(pid) for pid in (following.pid, second)), "the next process has the leaf to itself"
    assert set((tree / "shop.1.1/cgroup.procs").read_text().split()) == {str(following.pid), str(second)}


async def test_the_last_rung_reaches_what_has_left_the_session(folders: RunningSupervisor, tree: Path) -> None:
    await start(folders, tree)
    await folders.run(launch("sh", "-c", "trap '' TERM; env -i setsid sleep 1000 & echo $!; while :; do sleep 1; done"))
    daemon = await daemon_of(folders)
    await folders.client.stop(KEY, signal.SIGTERM, 0.2)
    await folders.until(lambda seen: seen.state == "exited")
    await eventually(lambda: not alive(daemon) and leaves(tree) == [], "all of it is dead, and the leaf removed")


async def test_a_leaf_goes_with_the_cgroups_its_worker_made_in_it(folders: RunningSupervisor, tree: Path) -> None:
    await start(folders, tree)
    inner = tree / "shop.1.1/inner/most"
    program = f"mkdir -p {inner}; sleep 1000 & echo $! > {inner}/cgroup.procs; echo $!; exec sleep 1000"
    await folders.run(launch("sh", "-c", program))
    below = await daemon_of(folders)
    await folders.client.stop(KEY, signal.SIGTERM, 5.0)
    await folders.until(lambda seen: seen.state == "exited")
    await eventually(lambda: not alive(below) and leaves(tree) == [], "it is removed from the innermost on")


async def test_the_next_supervisor_adopts_leaves_and_removes_those_of_nobody(
    folders: RunningSupervisor, tree: Path
) -> None:
    """Guards invariant 3."""
    await start(folders, tree)
    worker = await folders.run(launch(*WITH_DAEMON))
    daemon = await daemon_of(folders)
    await folders.kill()
    ghost = tree / "ghost.9.9"
    ghost.mkdir()
    stranger = await asyncio.create_subprocess_exec("sleep", "1000")
    (ghost / "cgroup.procs").write_text(str(stranger.pid))
    await start(folders, tree)
    assert await asyncio.wait_for(stranger.wait(), DEADLINE_SECONDS) == -signal.SIGKILL
    await eventually(lambda: leaves(tree) == ["shop.1.1"], "the leaf of nobody is removed")
    assert folders.workers[KEY].pid == worker.pid
    assert all(alive(pid) for pid in (worker.pid, daemon))
    await folders.client.stop(KEY, signal.SIGTERM, 5.0)
    await folders.until(lambda seen: seen.state == "exited")
    await eventually(lambda: not alive(daemon) and leaves(tree) == [], "an adopted leaf ends like any other")


async def test_a_limit_whose_controller_is_not_there_is_refused(folders: RunningSupervisor, tree: Path) -> None:
    if "pids" in (tree / "cgroup.controllers").read_text().split():
        pytest.skip("the controller is there")
    await start(folders, tree)
    await folders.client.run(KEY, launch("sleep", "1000", pids_max=10, max_restarts=0))
    failed = await folders.until(lambda seen: seen.state == "failed")
    assert failed.reason.startswith(f"{tree}/shop.1.1/pids.max is not there: enable the controller pids in ")
    await eventually(lambda: leaves(tree) == [], "nothing is left of the attempt")


@pytest.mark.parametrize("limit", [{"memory_max_bytes": 1 << 30}, {"cpu_max_cores": 0.5}, {"pids_max": 10}])
async def test_without_a_cgroup_limits_are_refused_and_not_ignored(
    host: RunningSupervisor, limit: dict[str, float]
) -> None:
    await host.client.run(KEY, launch("sleep", "1000", max_restarts=0, **limit))
    failed = await host.until(lambda seen: seen.state == "failed")
    assert failed.reason.startswith(NEEDS_CGROUP)
    assert (await host.run(launch("sleep", "1000"), Key("shop", 2, 1))).pid > 0


async def test_limits_stand_before_a_worker_joins_and_an_end_by_them_is_told(
    folders: RunningSupervisor, tmp_path: Path
) -> None:
    fake = tmp_path / "fake"
    leaf = fake / "shop.1.1"
    leaf.mkdir(parents=True)
    (fake / "cgroup.controllers").write_text("cpu memory pids\n")
    for name in ("memory.max", "cpu.max", "pids.max", "cgroup.procs", "cgroup.kill", "memory.events"):
        (leaf / name).touch()
    await start(folders, fake)
    limits = {"memory_max_bytes": 300 * 2**20, "cpu_max_cores": 1.5, "pids_max": 20}
    # What it prints is what it finds once it has joined.
    program = f"cat {leaf}/memory.max {leaf}/cpu.max {leaf}/pids.max {leaf}/cgroup.procs; echo; exec sleep 1000"
    worker = await folders.run(launch("sh", "-c", program, restart_mode="never", **limits))
    await eventually(lambda: folders.log().endswith("\n"), "it runs")
    assert folders.log() == "314572800150000 100000200\n"
    (leaf / "memory.events").write_text("oom_kill 1\n")
    os.kill(worker.pid, signal.SIGKILL)
    ended = await folders.until(lambda seen: seen.state == "failed")
    assert ended.reason == "killed by the kernel: out of memory (limit 300 MiB)"
    assert (leaf / "cgroup.kill").read_text() == "1"


async def test_a_folder_that_is_no_cgroup_ends_the_supervisor_with_one_line(tmp_path: Path) -> None:
    folders = ["--runtime-dir", str(tmp_path / "run"), "--log-dir", str(tmp_path / "log")]
    process = await asyncio.create_subprocess_exec(
        *MAIN, "run", *folders, "--cgroup", str(tmp_path), stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert process.returncode == 1
    assert said.decode().splitlines() == [
        f"fleet-supervisor: [Errno 22] is no cgroup v2 folder (it has no cgroup.controllers): '{tmp_path}'"
    ]
