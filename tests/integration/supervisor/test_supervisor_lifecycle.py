"""Real processes: started clean, restarted at once, stopped as whole trees."""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_agent.supervisor.processes import read_stat
from fleet_agent.supervisor.protocol import Key
from fleet_agent.supervisor_client import SupervisorRefusedError
from tests.integration.supervisor.running import KEY, RunningSupervisor, alive, eventually, launch, python

SLEEP = launch("sleep", "1000")
IGNORES_SIGTERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(1000)"
)
DESCRIBE_SELF = """
import json, os, signal
mask = lambda name: int(next(l for l in open('/proc/self/status') if l.startswith(name)).split()[1], 16)
umask = os.umask(0)
print(json.dumps({'env': dict(os.environ), 'cwd': os.getcwd(), 'umask': umask, 'blocked': mask('SigBlk'),
    'leads': os.getsid(0) == os.getpgrp() == os.getpid(), 'stdin': os.readlink('/proc/self/fd/0'),
    'fds': sorted(int(n) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n))}), flush=True)
import time; time.sleep(1000)
"""


async def test_a_worker_starts_with_a_clean_environment_and_nothing_inherited(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    wanted = python(DESCRIBE_SELF, tmp_path)
    await host.run(wanted)
    await eventually(lambda: host.log().endswith("\n"), "it described itself")
    seen = json.loads(host.log())
    assert {name: seen["env"].get(name) for name in wanted.env} == wanted.env
    added = {"LC_CTYPE", "FLEET_SUPERVISOR"}
    assert set(seen["env"]) - set(wanted.env) <= added, "Python itself may add LC_CTYPE (PEP 538)"
    assert (seen["cwd"], seen["umask"], seen["blocked"]) == (str(tmp_path), 0o022, 0)
    assert seen["leads"]
    assert seen["stdin"] == "/dev/null"
    assert [fd for fd in seen["fds"] if fd > 2] == []


async def test_no_signal_is_ignored_in_a_worker(host: RunningSupervisor) -> None:
    worker = await host.run(SLEEP)
    await eventually(lambda: _status(worker.pid, "Name") == "sleep", "it is executed")
    # 32 and 33 are the thread library's own (signal(7)): it lets no program set them, so they stay as they were inherited.
    threading = 1 << 31 | 1 << 32
    assert int(_status(worker.pid, "SigIgn"), 16) & ~threading == 0


def _status(pid: int, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{field}:"))


async def test_a_crashed_worker_is_reported_and_replaced_at_once(host: RunningSupervisor) -> None:
    worker = await host.run(SLEEP)
    await host.client.note(KEY, worker.pid, ready=True)
    await host.until(lambda seen: seen.state == "running")
    host.history.clear()
    os.kill(worker.pid, signal.SIGKILL)
    new = await host.until(lambda seen: seen.pid not in {0, worker.pid})
    assert (new.state, new.restarts, new.ever_ready) == ("starting", 1, False)
    assert [(seen.state, seen.pid) for seen in host.history] == [("starting", 0), ("starting", new.pid)]
    assert host.history[0].reason == "killed by SIGKILL"


async def test_a_crash_loop_ends_in_failed_with_the_reason(host: RunningSupervisor) -> None:
    await host.client.run(KEY, launch("sh", "-c", "exit 3", max_restarts=3, backoff_initial_seconds=0.01))
    failed = await host.until(lambda seen: seen.state == "failed")
    assert (failed.restarts, failed.pid) == (3, 0)
    assert failed.reason.startswith("exit code 3; given up after 3 restarts")
    assert any(seen.state == "backoff" for seen in host.history)


@pytest.mark.parametrize(
    ("argv", "cwd", "reason"),
    [
        ("nonesuch", "/", "exec nonesuch: No such file or directory"),
        ("/etc/passwd", "/", "exec /etc/passwd: Permission denied"),
        ("sleep", "/nonesuch", "start: No such file or directory: /nonesuch"),
    ],
)
async def test_what_keeps_a_program_from_starting_is_told_in_words(
    host: RunningSupervisor, argv: str, cwd: str, reason: str
) -> None:
    await host.client.run(KEY, launch(argv, cwd=cwd, max_restarts=0))
    failed = await host.until(lambda seen: seen.state == "failed")
    assert failed.reason.startswith(reason)


async def test_run_may_be_repeated_and_starts_nothing_twice(host: RunningSupervisor) -> None:
    worker = await host.run(SLEEP)
    await host.client.run(KEY, SLEEP)
    await host.client.run(KEY, replace(SLEEP, extra={"revision": 2}))
    hello = await host.client.hello()
    assert [seen.pid for seen in hello.workers] == [worker.pid]


async def test_stop_ends_a_worker_and_keeps_it_down(host: RunningSupervisor) -> None:
    worker = await host.run(SLEEP)
    await host.client.stop(KEY, signal.SIGTERM, 5)
    stopped = await host.until(lambda seen: seen.state == "exited")
    assert (stopped.pid, stopped.restarts, stopped.reason) == (0, 0, "killed by SIGTERM")
    assert [seen.state for seen in host.history][-2:] == ["stopping", "exited"]
    assert not alive(worker.pid)


async def test_a_stop_that_follows_the_start_at_once_is_obeyed(host: RunningSupervisor) -> None:
    for slot in range(1, 21):
        key = Key("shop", slot, 1)
        await host.client.run(key, SLEEP)
        await host.client.stop(key, signal.SIGTERM, 60)
        await host.until(lambda seen: seen.state == "exited", key)


async def test_a_whole_tree_that_ignores_sigterm_is_killed_after_the_grace(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    """The child of the shell has a process group of its own, too."""
    child = f'"$0" -S -c "{IGNORES_SIGTERM}" & echo $! > child'
    script = f'trap "" TERM; {child}; set -m; sleep 999 & echo $! > other; wait'
    worker = await host.run(launch("sh", "-c", script, sys.executable, cwd=tmp_path))
    await eventually(lambda: "up" in host.log() and (tmp_path / "other").exists(), "the tree is up")
    await eventually(lambda: (tmp_path / "other").read_text().endswith("\n"), "its pids are written")
    pids = [worker.pid, *(int((tmp_path / name).read_text()) for name in ("child", "other"))]
    asked = time.monotonic()
    await host.client.stop(KEY, signal.SIGTERM, 0.3)
    stopped = await host.until(lambda seen: seen.state == "exited")
    assert time.monotonic() - asked >= 0.3
    assert stopped.reason == "killed by SIGKILL"
    assert not any(alive(pid) for pid in pids)


async def test_children_may_finish_within_the_grace_when_their_shell_is_gone(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    source = (
        "import pathlib, signal, sys, time; "
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), pathlib.Path('done').touch(), sys.exit(0))); "
        "print('up', flush=True); time.sleep(1000)"
    )
    await host.run(launch("sh", "-c", f'"$0" -c "{source}"; true', sys.executable, cwd=tmp_path))
    await eventually(lambda: "up" in host.log(), "the child is up")
    await host.client.stop(KEY, signal.SIGTERM, 20)
    stopped = await host.until(lambda seen: seen.state == "exited")
    assert (tmp_path / "done").exists()
    assert stopped.reason == "killed by SIGTERM"


async def test_grandchildren_of_a_crashed_worker_are_killed_before_the_next_starts(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    worker = await host.run(launch("sh", "-c", "sleep 1000 & echo $! >> children; wait", cwd=tmp_path))
    children = tmp_path / "children"
    await eventually(lambda: children.exists() and children.read_text().endswith("\n"), "the child is up")
    child = int(children.read_text())
    os.kill(worker.pid, signal.SIGKILL)
    await host.until(lambda seen: seen.pid not in {0, worker.pid})
    await eventually(lambda: not alive(child), "the old grandchild died")


async def test_a_process_given_up_by_the_agent_is_replaced_with_its_reason(host: RunningSupervisor) -> None:
    worker = await host.run(SLEEP)
    await host.client.fail(KEY, worker.pid + 1, "meant for another process")
    await host.client.fail(KEY, worker.pid, "no answer on /health")
    new = await host.until(lambda seen: seen.pid not in {0, worker.pid})
    assert (new.reason, new.restarts) == ("no answer on /health", 1)
    assert not alive(worker.pid)


async def test_only_a_worker_that_is_down_can_be_forgotten(host: RunningSupervisor) -> None:
    await host.run(SLEEP)
    with pytest.raises(SupervisorRefusedError, match="is starting; stop it first"):
        await host.client.forget(KEY)
    await host.client.stop(KEY, signal.SIGTERM, 5)
    await host.until(lambda seen: seen.state == "exited")
    await host.client.forget(KEY)
    await host.client.forget(KEY)
    await eventually(lambda: KEY not in host.workers, "the removal is told")
    assert (await host.client.hello()).workers == []
    assert [path for name in ("journal", "fifos") for path in (host.runtime_dir / name).iterdir()] == []


async def test_stop_all_is_answered_when_all_are_down(host: RunningSupervisor) -> None:
    workers = [await host.run(SLEEP, Key("shop", slot, 1)) for slot in range(1, 6)]
    await host.client.stop_all(5)
    assert not any(alive(worker.pid) for worker in workers)
    assert {worker.state for worker in (await host.client.hello()).workers} == {"exited"}


async def test_pids_and_start_times_name_the_process(host: RunningSupervisor) -> None:
    worker = await host.run(SLEEP)
    stat = read_stat(worker.pid)
    assert stat is not None
    assert stat.start_ticks == worker.start_ticks
    assert abs(time.clock_gettime(time.CLOCK_BOOTTIME) - worker.started_monotonic) < 20
