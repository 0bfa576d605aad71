"""Workers that say what they do: sd_notify and its watchdog, through deaths of the supervisor."""

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from fleet_agent.supervisor.protocol import Launch
from tests.integration.supervisor.fd_store import FdStore
from tests.integration.supervisor.running import RunningSupervisor, eventually, launch, python

PREAMBLE = """
import os, socket, time
notifier = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(*lines):
    notifier.sendto('\\n'.join(lines).encode(), os.environ['NOTIFY_SOCKET'])
def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.005)
"""


def notifier(source: str, cwd: Path, **changes: object) -> Launch:
    return python(PREAMBLE + source, cwd, **{"notify": True, "ready_by": "notify", **changes})


@pytest.fixture(params=["fd store", "copies in the workers"])
async def keeping(request: pytest.FixtureRequest, folders: RunningSupervisor, tmp_path: Path) -> RunningSupervisor:
    """A supervisor that runs, with a service manager or without one."""
    if request.param == "fd store":
        folders.store = FdStore(tmp_path / "manager.sock")
    await folders.start()
    return folders


async def test_ready_status_and_stopping_are_the_workers_own_word(host: RunningSupervisor, tmp_path: Path) -> None:
    source = """
say('STATUS=loading')
wait_for('loaded')
say('READY=1', 'STATUS=serving', 'MAINPID=1')
wait_for('leave')
say('STOPPING=1')
time.sleep(1000)
"""
    worker = await host.run(notifier(source, tmp_path))
    assert (await host.until(lambda worker: worker.status_text == "loading")).state == "starting"
    await host.client.note(worker.key, worker.pid, ready=True)  # a probe does not overtake the worker
    (tmp_path / "loaded").touch()
    running = await host.until(lambda worker: worker.state == "running")
    assert (running.status_text, running.pid) == ("serving", worker.pid)
    (tmp_path / "leave").touch()
    await host.until(lambda worker: worker.state == "unready")


async def test_a_grandchild_may_speak_and_a_stranger_may_not(host: RunningSupervisor, tmp_path: Path) -> None:
    source = PREAMBLE + "say('STATUS=of the tree')\nwait_for('go')\nsay('READY=1')\ntime.sleep(1000)"
    (tmp_path / "child.py").write_text(source)
    worker = await host.run(
        launch("sh", "-c", "python3 -S child.py; true", cwd=tmp_path, notify=True, ready_by="notify")
    )
    await host.until(lambda worker: worker.status_text == "of the tree")
    path = next((host.runtime_dir / "contact").glob("*.notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"READY=1\nSTATUS=of a stranger", str(path))
        stranger.sendto(b"READY=1", str(path))
    (tmp_path / "go").touch()
    await host.until(lambda worker: worker.state == "running")
    told = [(report.state, report.status_text) for report in host.history]
    assert ("running", "of a stranger") not in told
    assert [state for state, _ in told].count("running") == 1
    assert worker.pid


async def test_the_barrier_of_systemd_notify_is_answered(host: RunningSupervisor, tmp_path: Path) -> None:
    """sd_notify_barrier(3): the sender waits until the descriptor it sent along is closed."""
    source = """
import array, select
ours, theirs = os.pipe()
notifier.connect(os.environ['NOTIFY_SOCKET'])
notifier.sendmsg([b'BARRIER=1'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [theirs]))])
os.close(theirs)
poll = select.poll()
poll.register(ours, 0)
assert poll.poll(10000)
notifier.send(b'READY=1')
time.sleep(1000)
"""
    await host.run(notifier(source, tmp_path))
    await host.until(lambda worker: worker.state == "running")


async def test_a_hung_worker_is_restarted_by_its_watchdog(host: RunningSupervisor, tmp_path: Path) -> None:
    source = """
assert os.environ['WATCHDOG_USEC'] == '1000000'
say('READY=1')
end = time.monotonic() + 1.5
while time.monotonic() < end:
    say('WATCHDOG=1')
    time.sleep(0.05)
open('hung', 'a').write('x')
time.sleep(1000)
"""
    first = await host.run(notifier(source, tmp_path, watchdog_seconds=1.0))
    second = await host.until(lambda worker: worker.pid not in (0, first.pid) and worker.state == "running")
    assert second.restarts == 1
    assert second.reason == "watchdog: nothing heard for 1 s"
    assert (tmp_path / "hung").read_text() == "x"
    assert [worker.state for worker in host.history].count("stopping") == 1


async def test_no_watchdog_bites_before_the_worker_is_ready(host: RunningSupervisor, tmp_path: Path) -> None:
    source = "time.sleep(1)\nsay('STATUS=lives')\ntime.sleep(1000)"
    worker = await host.run(notifier(source, tmp_path, watchdog_seconds=0.3))
    lives = await host.until(lambda worker: worker.status_text == "lives")
    assert (lives.pid, lives.restarts) == (worker.pid, 0)


async def test_a_supervisor_that_was_frozen_hears_what_was_said_before_it_judges(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    """Guards invariant 3."""
    source = """
say('READY=1')
said = open('said', 'a', 1)
while True:
    say('WATCHDOG=1')
    print('x', file=said)
    time.sleep(0.05)
"""
    worker = await host.run(notifier(source, tmp_path, watchdog_seconds=1.0))
    await host.until(lambda worker: worker.state == "running")
    os.kill(host.pid, signal.SIGSTOP)
    await asyncio.sleep(1.5)  # longer than the watchdog waits
    before = (tmp_path / "said").stat().st_size
    os.kill(host.pid, signal.SIGCONT)
    await eventually(lambda: (tmp_path / "said").stat().st_size > before + 40, "the worker goes on")
    assert host.workers[worker.key].pid == worker.pid
    assert host.workers[worker.key].restarts == 0


async def test_what_is_said_while_no_supervisor_lives_counts_afterwards(
    keeping: RunningSupervisor, tmp_path: Path
) -> None:
    """Guards invariant 3."""
    source = """
say('STATUS=up')
wait_for('now')
say('READY=1', 'STATUS=said into the void')
open('said', 'w')
wait_for('then')
say('STATUS=afterwards')
time.sleep(1000)
"""
    worker = await keeping.run(notifier(source, tmp_path))
    await keeping.until(lambda worker: worker.status_text == "up")
    await keeping.kill()
    (tmp_path / "now").touch()
    await eventually((tmp_path / "said").exists, "a send neither fails nor blocks")
    await keeping.start()
    heard = await keeping.until(lambda worker: worker.state == "running")
    assert (heard.pid, heard.status_text) == (worker.pid, "said into the void")
    await keeping.kill()
    await keeping.start()
    (tmp_path / "then").touch()
    await keeping.until(lambda worker: worker.status_text == "afterwards")


async def test_a_helper_that_has_ended_before_it_is_heard_counts_too(
    keeping: RunningSupervisor, tmp_path: Path
) -> None:
    """As `systemd-notify --ready` in a script does. Guards invariant 3."""
    (tmp_path / "helper.py").write_text(PREAMBLE + "say('READY=1', 'STATUS=said by a helper')")
    script = f"touch up; while [ ! -e now ]; do sleep 0.01; done; {sys.executable} -S helper.py; touch said; sleep 1000"
    worker = await keeping.run(launch("sh", "-c", script, cwd=tmp_path, notify=True, ready_by="notify"))
    await eventually((tmp_path / "up").exists, "it runs")
    await keeping.kill()
    (tmp_path / "now").touch()
    await eventually((tmp_path / "said").exists, "the helper has ended")
    await keeping.start()
    heard = await keeping.until(lambda worker: worker.state == "running")
    assert (heard.pid, heard.status_text) == (worker.pid, "said by a helper")


async def test_an_adopted_worker_is_still_watched(keeping: RunningSupervisor, tmp_path: Path) -> None:
    source = """
say('READY=1')
while not os.path.exists('hang'):
    say('WATCHDOG=1')
    time.sleep(0.05)
time.sleep(1000)
"""
    worker = await keeping.run(notifier(source, tmp_path, watchdog_seconds=1.0))
    await keeping.until(lambda worker: worker.state == "running")
    await keeping.kill()
    await keeping.start()
    assert keeping.workers[worker.key].pid == worker.pid
    (tmp_path / "hang").touch()
    second = await keeping.until(lambda again: again.pid not in (0, worker.pid))
    assert second.reason == "watchdog: nothing heard for 1 s"


async def test_nothing_stays_in_the_store_of_a_worker_that_is_gone(folders: RunningSupervisor, tmp_path: Path) -> None:
    folders.store = FdStore(tmp_path / "manager.sock")
    await folders.start()
    worker = await folders.run(notifier("say('READY=1')\ntime.sleep(1000)", tmp_path))
    assert folders.store.names == [f"notify.shop.1.1.{worker.pid}.{worker.start_ticks}"]
    await folders.kill()
    os.kill(worker.pid, signal.SIGKILL)
    await folders.start()
    second = await folders.until(lambda again: again.pid not in (0, worker.pid))
    assert folders.store.names == [f"notify.shop.1.1.{second.pid}.{second.start_ticks}"]
    await folders.client.stop(worker.key, signal.SIGTERM, 5)
    await folders.until(lambda worker: worker.state == "exited")
    assert folders.store.names == []
    assert list((folders.runtime_dir / "contact").iterdir()) == []


async def test_a_worker_that_talks_without_end_keeps_the_supervisor_from_nothing(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    await host.run(notifier("n = 0\nwhile True:\n    n += 1\n    say(f'STATUS={n}')", tmp_path))
    await host.until(lambda worker: worker.status_text != "")
    usage, began = _cpu_ticks(host.pid), time.monotonic()
    await asyncio.sleep(1)
    seconds = time.monotonic() - began
    assert _cpu_ticks(host.pid) - usage < os.sysconf("SC_CLK_TCK") / 2 * seconds, "half of a processor"


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
