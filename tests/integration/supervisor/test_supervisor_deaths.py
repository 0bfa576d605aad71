"""Supervisors that die, and what the next one makes of it. Guards invariants 3 and 8."""

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_agent.supervisor import life as lives
from fleet_agent.supervisor.journal import Journal
from fleet_agent.supervisor.loop import now
from fleet_agent.supervisor.processes import UNKNOWN_EXIT, here, read_stat
from fleet_agent.supervisor.protocol import Key
from fleet_agent.supervisor_client import SupervisorUnavailable
from tests.integration.supervisor import dying_supervisor_points
from tests.integration.supervisor.running import KEY, MAIN, RunningSupervisor, alive, eventually, launch, python

SLEEP = launch("sleep", "1000")
COUNT = """
import os, time
print('pid', os.getpid(), flush=True)
n = 0
while True:
    for _ in range(10):
        n += 1
        print('line', n, 'x' * 80, flush=True)
    open('progress', 'w').write(str(n))
    time.sleep(0.01)
"""
RECORD_STARTS = "echo $$ >> starts; exec sleep 1000"


def kernel_keeps_exit_status() -> bool:
    """PIDFD_GET_INFO with PIDFD_INFO_EXIT: Linux 6.15."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 15)


async def test_workers_log_through_kills_of_their_supervisor_and_no_line_is_lost(
    folders: RunningSupervisor, tmp_path: Path
) -> None:
    """Guards invariant 3."""
    await folders.start()
    keys = [Key("shop", slot, 1) for slot in (1, 2)]
    pids = {}
    for key in keys:
        (tmp_path / str(key.slot)).mkdir()
        pids[key] = (await folders.run(python(COUNT, tmp_path / str(key.slot)), key)).pid

    def progress(key: Key) -> int:
        file = tmp_path / str(key.slot) / "progress"
        return int(file.read_text() or 0) if file.exists() else 0

    for _ in range(6):
        for key in keys:
            before = progress(key)
            await eventually(lambda: progress(key) > before + 30, "the worker goes on")  # noqa: B023
        await folders.kill()
        for key in keys:
            before = progress(key)
            await eventually(lambda: progress(key) > before + 300, "it does, with nobody reading")  # noqa: B023
        await folders.start()
        assert {key: worker.pid for key, worker in folders.workers.items()} == pids
    await folders.client.stop_all(5)
    for key in keys:
        await folders.client.forget(key)
        lines = folders.log(key).splitlines()
        assert lines[0] == f"pid {pids[key]}"
        assert [int(line.split()[1]) for line in lines[1:]] == list(range(1, len(lines)))
        assert len(lines) > progress(key)


async def test_sigterm_ends_the_supervisor_and_leaves_its_workers(host: RunningSupervisor) -> None:
    """Guards invariant 3."""
    worker = await host.run(SLEEP)
    await host.client.note(KEY, worker.pid, ready=True)
    assert await host.kill(signal.SIGTERM) == 0
    assert alive(worker.pid)
    await host.start()
    adopted = host.workers[KEY]
    assert (adopted.pid, adopted.state, adopted.ever_ready) == (worker.pid, "running", True)
    assert adopted.start_ticks == worker.start_ticks


async def test_an_adopted_worker_that_crashes_is_replaced_and_its_exit_status_known(host: RunningSupervisor) -> None:
    await host.run(launch("sh", "-c", "read line < go; exit 7", cwd=_with_fifo(host.folder)))
    await host.kill()
    await host.start()
    pid = host.workers[KEY].pid
    (host.folder / "go").write_text("now\n")
    new = await host.until(lambda seen: seen.pid not in {0, pid})
    assert new.restarts == 1
    allowed = {"exit code 7"} if kernel_keeps_exit_status() else {"exit code 7", UNKNOWN_EXIT}
    assert new.reason in allowed


def _with_fifo(folder: Path) -> Path:
    os.mkfifo(folder / "go")
    return folder


async def test_an_adopted_worker_is_stopped_as_a_whole_tree(host: RunningSupervisor, tmp_path: Path) -> None:
    script = 'trap "" TERM; (trap "" TERM; sleep 1000; sleep 1000) & echo $! > child; wait; wait'
    worker = await host.run(launch("sh", "-c", script, cwd=tmp_path))
    await eventually(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text() != "", "it is up")
    child = int((tmp_path / "child").read_text())
    await host.kill()
    await host.start()
    await host.client.stop(KEY, signal.SIGTERM, 0.2)
    await host.until(lambda seen: seen.state == "exited")
    assert not alive(worker.pid)
    assert not alive(child)


async def test_a_worker_that_died_meanwhile_is_replaced_and_what_it_left_is_killed(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    worker = await host.run(launch("sh", "-c", "sleep 1000 & echo $! >> children; wait", cwd=tmp_path))
    children = tmp_path / "children"
    await eventually(lambda: children.exists() and children.read_text().endswith("\n"), "the child is up")
    child = int(children.read_text())
    await host.kill()
    os.kill(worker.pid, signal.SIGKILL)
    await eventually(lambda: not alive(worker.pid), "the worker died")
    await host.start()
    new = await host.until(lambda seen: seen.pid > 0)
    assert (new.pid != worker.pid, new.restarts) == (True, 1)
    assert new.reason in {"killed by SIGKILL", UNKNOWN_EXIT}, "known as long as init has not reaped it"
    await eventually(lambda: not alive(child), "the old grandchild died")


async def test_a_stop_goes_on_where_the_last_supervisor_left_it(host: RunningSupervisor) -> None:
    worker = await host.run(launch("sh", "-c", 'trap "" TERM; echo up; while true; do sleep 1; done'))
    await eventually(lambda: "up" in host.log(), "it ignores SIGTERM")
    await host.client.stop(KEY, signal.SIGTERM, 600.0)
    await host.kill()
    assert alive(worker.pid)
    journal = Journal(host.runtime_dir / "journal", here())
    (record,) = journal.read()
    journal.write(record.life._replace(deadline=now()))  # its grace goes by while no supervisor lives
    await host.start()
    stopped = await host.until(lambda seen: seen.state == "exited")
    assert stopped.restarts == 0
    assert not alive(worker.pid)


@pytest.mark.parametrize("sent", [False, True], ids=["not sent", "sent"])
async def test_a_stop_signal_is_sent_by_the_next_supervisor_where_the_last_did_not_come_to_it(
    host: RunningSupervisor, sent: bool
) -> None:
    """A supervisor killed between journal and signal: the worker has its whole grace, and is asked before it is killed."""
    script = 'trap "echo asked" TERM; echo up; while true; do sleep 0.02; done'
    await host.run(launch("sh", "-c", script))
    await eventually(lambda: "up" in host.log(), "it has its trap")
    await host.kill()
    journal = Journal(host.runtime_dir / "journal", here())
    (record,) = journal.read()
    life, _ = lives.stop(record.life, signal.SIGTERM, 1.0, now())
    journal.write(lives.sent(life) if sent else life)
    await host.start()
    await host.until(lambda seen: seen.state == "exited")
    assert ("asked" in host.log()) == (not sent)


async def test_stopped_and_failed_workers_stay_so(host: RunningSupervisor) -> None:
    failing = Key("shop", 2, 1)
    await host.run(SLEEP)
    await host.client.stop(KEY, signal.SIGTERM, 5)
    await host.client.run(failing, launch("false", max_restarts=0))
    await host.until(lambda seen: seen.state == "exited")
    await host.until(lambda seen: seen.state == "failed", failing)
    await host.kill()
    await host.start()
    assert {key: worker.state for key, worker in host.workers.items()} == {KEY: "exited", failing: "failed"}


@pytest.mark.parametrize("wanted", ["run", "stop"])
async def test_a_pid_that_belongs_to_somebody_else_now_is_never_signalled(
    folders: RunningSupervisor, wanted: str
) -> None:
    """Guards invariant 8."""
    bystander = await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True)
    try:
        stat = read_stat(bystander.pid)
        assert stat is not None
        life = lives.started(lives.begin(KEY, SLEEP)[0], bystander.pid, stat.start_ticks - 1, 0.0)
        if wanted == "stop":
            life, _ = lives.stop(life, signal.SIGTERM, 0.0, 0.0)
        Journal(folders.runtime_dir / "journal", here()).write(life)
        await folders.start()
        settled = await folders.until(lambda seen: seen.pid > 0 if wanted == "run" else seen.state == "exited")
        assert settled.pid != bystander.pid
        await folders.client.stop_all(5)
        assert bystander.returncode is None
        assert alive(bystander.pid)
    finally:
        bystander.kill()
        await bystander.wait()


async def test_pids_of_another_pid_namespace_mean_nothing(folders: RunningSupervisor) -> None:
    """Guards invariant 8."""
    bystander = await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True)
    try:
        stat = read_stat(bystander.pid)
        assert stat is not None
        life = lives.started(lives.begin(KEY, SLEEP)[0], bystander.pid, stat.start_ticks, 0.0)
        place = replace(here(), pid_namespace=1)
        Journal(folders.runtime_dir / "journal", place).write(life)
        await folders.start()
        started = await folders.until(lambda seen: seen.pid > 0)
        assert started.pid != bystander.pid
        await folders.client.stop_all(5)
        assert alive(bystander.pid)
    finally:
        bystander.kill()
        await bystander.wait()


_MANY = 40
"""More than one litter has (`litter.MOST`)."""


@pytest.mark.parametrize("starts_before", [0, 1], ids=["first start", "restart"])
@pytest.mark.parametrize("point", dying_supervisor_points.POINTS)
async def test_a_supervisor_killed_while_it_starts_a_worker_leaves_no_unrecorded_process(
    folders: RunningSupervisor, tmp_path: Path, point: str, starts_before: int
) -> None:
    """Guards invariant 3: nothing is started twice, and nothing that runs is unknown."""
    script, made = str(Path(dying_supervisor_points.__file__).with_name("dying_supervisor.py")), tmp_path / "made"
    wanted = launch("sh", "-c", RECORD_STARTS, cwd=tmp_path)
    starts = tmp_path / "starts"
    await folders.start(sys.executable, script, point, str(made), str(starts_before))
    if starts_before:
        worker = await folders.run(wanted)
        await eventually(lambda: _lines(starts) == 1, "the first process runs")
        os.kill(worker.pid, signal.SIGKILL)
    else:
        with pytest.raises(SupervisorUnavailable):
            await folders.client.run(KEY, wanted)
    assert await folders.ended() == -signal.SIGKILL
    pid = int(made.read_text())
    if point == "after release":
        await eventually(lambda: _lines(starts) == starts_before + 1, "the process runs, unwatched")
    elif pid:
        await eventually(lambda: not alive(pid), "the process that was never released ended by itself")
        assert _lines(starts) == starts_before

    await folders.start()
    settled = await folders.run(wanted)
    await eventually(lambda: _lines(starts) == starts_before + 1, "the program runs")
    assert starts.read_text().split()[-1] == str(settled.pid)
    assert (settled.pid == pid) == (point == "after release")
    await folders.client.stop_all(5)
    assert _lines(starts) == starts_before + 1


@pytest.mark.parametrize("starts_before", [0, 3, 33], ids=["first", "fourth", "of a second litter"])
@pytest.mark.parametrize("point", dying_supervisor_points.POINTS)
async def test_a_supervisor_killed_while_it_starts_many_workers_leaves_no_unrecorded_process(
    folders: RunningSupervisor, tmp_path: Path, point: str, starts_before: int
) -> None:
    """Guards invariant 3: those that wait for their turn end, and none is started twice."""
    script, made = str(Path(dying_supervisor_points.__file__).with_name("dying_supervisor.py")), tmp_path / "made"
    wanted = launch("sh", "-c", RECORD_STARTS, cwd=tmp_path)
    starts = tmp_path / "starts"
    keys = [KEY._replace(slot=slot) for slot in range(1, _MANY + 1)]
    await folders.start(sys.executable, script, point, str(made), str(starts_before))
    asked = (folders.client.run(key, wanted) for key in keys)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert any(isinstance(answer, SupervisorUnavailable) for answer in answers)
    assert await folders.ended() == -signal.SIGKILL
    released = starts_before + (point == "after release")
    await eventually(lambda: _lines(starts) == released, "what was released runs")
    left = made.read_text()
    if point != "after release" and left != "0":
        await eventually(lambda: not alive(int(left)), "the process that was never released ended by itself")
    ran = set(starts.read_text().split()) if released else set()

    await folders.start()
    await asyncio.gather(*(folders.client.run(key, wanted) for key in keys))
    await eventually(lambda: _lines(starts) == _MANY, "every program runs")
    assert ran <= set(starts.read_text().split())
    hello = await folders.client.hello()
    assert {str(worker.pid) for worker in hello.workers} == set(starts.read_text().split())
    await folders.client.stop_all(5)
    assert _lines(starts) == _MANY


def _lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


async def test_a_second_supervisor_of_a_folder_is_refused_in_one_line(host: RunningSupervisor) -> None:
    second = await asyncio.create_subprocess_exec(
        *(*MAIN, "run", "--runtime-dir", str(host.runtime_dir), "--log-dir", str(host.log_dir)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(second.communicate(), 20)
    assert second.returncode == 1
    assert said.decode().splitlines() == [
        f"fleet-supervisor: another supervisor runs on {host.runtime_dir}; stop it, or choose another folder"
    ]
    await host.client.hello()


async def test_a_fault_of_one_journal_record_costs_only_that_record(
    host: RunningSupervisor, capfd: pytest.CaptureFixture[str]
) -> None:
    worker = await host.run(SLEEP)
    await host.kill()
    (host.runtime_dir / "journal" / "torn.1.1.json").write_text('{"version": 1, "life":')
    await host.start()
    assert {key: seen.pid for key, seen in host.workers.items()} == {KEY: worker.pid}
    assert "journal record set aside" in capfd.readouterr().err


async def test_a_full_disk_under_journal_logs_and_stderr_ends_no_supervisor(folders: RunningSupervisor) -> None:
    """Guards invariant 3."""
    await folders.start("sh", "-c", 'exec "$@" 2>/dev/full', "sh", *MAIN, "run")
    supervisor = folders.pid
    (folders.log_dir / "shop/1.out.log").mkdir(parents=True)
    worker = await folders.run(launch("sh", "-c", "echo lost; exec sleep 1000"))
    journal = folders.runtime_dir / "journal"
    journal.rename(journal.with_name("moved"))  # as good as full: no record can be written
    await folders.client.note(KEY, worker.pid, ready=True)
    await folders.until(lambda seen: seen.state == "running")
    journal.with_name("moved").rename(journal)
    os.kill(worker.pid, signal.SIGKILL)
    following = await folders.until(lambda seen: seen.restarts == 1 and seen.pid > 0)
    assert following.pid != worker.pid
    assert folders.pid == supervisor
    assert alive(supervisor)
