"""The supervisor's rooms one by one: journal, log files, loop, process names."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_agent.supervisor import life as lives
from fleet_agent.supervisor.journal import Journal
from fleet_agent.supervisor.kept import Kept
from fleet_agent.supervisor.log_file import LogFile
from fleet_agent.supervisor.logs import Fifo, Logs, Pace
from fleet_agent.supervisor.loop import READ, Loop, now
from fleet_agent.supervisor.processes import Place, here, open_verified, read_stat
from fleet_agent.supervisor.protocol import Key, Launch
from fleet_agent.supervisor.spawn import Handed, Nursery, Output, SpawnError
from fleet_agent.supervisor.stub import Stub, native_stub, python_stub

needs_native = pytest.mark.skipif(os.uname().machine != "x86_64", reason="there is code for x86-64 only")
PLACE = Place("boot", 7)
LAUNCH = Launch(["server"], "/", {"FLEET_APP": "shop"}, port=4000, extra={"revision": 3})


@pytest.fixture
def loop() -> Iterator[Loop]:
    with closing(Loop()) as made:
        yield made


@pytest.fixture(params=[pytest.param(native_stub, marks=needs_native), python_stub], ids=["native", "python"])
def stub(request: pytest.FixtureRequest) -> Iterator[Stub]:
    made = request.param()
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    yield ends
    for end in ends:
        os.close(end)


def test_the_journal_gives_back_what_it_was_given(tmp_path: Path) -> None:
    life = lives.started(lives.begin(Key("shop", 1, 2), LAUNCH)[0], 100, 7, 1.5)
    crashed, _ = lives.ended(life, "exit code 1", 2.0, 0.0)
    stopping, _ = lives.stop(life._replace(key=Key("shop", 2, 2)), 15, 10, 2.0)
    journal = Journal(tmp_path / "journal", PLACE)
    for written in (life, crashed, stopping):
        journal.write(written)
    records = Journal(tmp_path / "journal", PLACE).read()
    assert [record.life for record in records] == [crashed, stopping]
    assert {record.place for record in records} == {PLACE}
    journal.remove(crashed.key)
    journal.remove(crashed.key)
    assert [record.life for record in journal.read()] == [stopping]


def test_a_record_half_written_when_the_supervisor_died_is_not_read(tmp_path: Path) -> None:
    """Guards invariant 3: the record before still stands, and the next one is read."""
    journal = Journal(tmp_path, PLACE)
    life, _ = lives.begin(Key("shop", 1, 2), LAUNCH)
    later = lives.started(life, 100, 7, 1.5)
    journal.write(life)
    path = tmp_path / "shop.1.2.json"
    written = len(path.read_bytes())
    journal.write(later)
    whole = path.read_bytes()
    for length in range(written + 1, len(whole)):
        path.write_bytes(whole[:length])
        assert [record.life for record in journal.read()] == [life]
    journal.write(later)
    assert [record.life for record in journal.read()] == [later]
    path.write_bytes(whole[:10])
    assert journal.read() == []


def test_a_journal_stays_short_however_many_records_are_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path, PLACE)
    life, _ = lives.begin(Key("shop", 1, 2), LAUNCH)
    for pid in range(1, 500):
        life = lives.started(life, pid, 7, 1.5)
        journal.write(life)
        assert [record.life for record in journal.read()] == [life]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20_000


def test_a_record_that_somebody_waits_for_is_added_and_the_next_one_shortens_the_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path, PLACE)
    life, _ = lives.begin(Key("shop", 1, 2), LAUNCH)
    journal.write(life)
    (path,) = tmp_path.iterdir()
    inode = path.stat().st_ino
    for pid in range(1, 101):
        life = lives.started(life, pid, 7, 1.5)
        journal.write(life, waited_for=True)
    assert path.stat().st_ino == inode
    assert path.stat().st_size > 16 * 1024
    journal.write(life)
    assert path.stat().st_size < 16 * 1024
    assert [record.life for record in journal.read()] == [life]
    for pid in range(1, 2001):
        journal.write(lives.started(life, pid, 7, 1.5), waited_for=True)
        assert path.stat().st_size < 300 * 1024


def test_a_record_of_a_supervisor_that_replaced_each_is_read(tmp_path: Path) -> None:
    """Guards invariant 3: an upgrade in place."""
    journal = Journal(tmp_path, PLACE)
    life, _ = lives.begin(Key("shop", 1, 2), LAUNCH)
    journal.write(life)
    path = tmp_path / "shop.1.2.json"
    path.write_bytes(path.read_bytes().strip())
    assert [record.life for record in journal.read()] == [life]
    journal.write(lives.started(life, 100, 7, 1.5))
    assert [record.life.pid for record in journal.read()] == [100]


def log_file(tmp_path: Path, max_bytes: int, files: int) -> LogFile:
    log = LogFile(tmp_path / "shop" / "1.out.log")
    log.max_bytes, log.files = max_bytes, files
    return log


def contents(tmp_path: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (tmp_path / "shop").iterdir()}


def test_a_log_is_rotated_at_line_ends_and_the_oldest_goes(tmp_path: Path) -> None:
    with closing(Fifo(tmp_path / "fifo")) as fifo, closing(log_file(tmp_path, 10, 2)) as log:
        for text in ("one one one\n", "two two", " two\n", "three three\n", "four four\n", "five\n"):
            os.write(fifo.descriptor, text.encode())
            log.take(fifo.descriptor)
    assert contents(tmp_path) == {
        "1.out.log": "five\n",
        "1.out.log.1": "four four\n",
        "1.out.log.2": "three three\n",
    }


def test_a_line_without_end_is_cut_at_twice_the_size(tmp_path: Path) -> None:
    with closing(Fifo(tmp_path / "fifo")) as fifo, closing(log_file(tmp_path, 10, 9)) as log:
        for _ in range(6):
            os.write(fifo.descriptor, b"endless")
            log.take(fifo.descriptor)
    assert contents(tmp_path) == {"1.out.log": "endless" * 3, "1.out.log.1": "endless" * 3}


def test_a_log_goes_on_at_its_end_after_a_restart(tmp_path: Path) -> None:
    with closing(Fifo(tmp_path / "fifo")) as fifo:
        for text in (b"before\n", b"after\n"):
            os.write(fifo.descriptor, text)
            with closing(log_file(tmp_path, 1000, 2)) as log:
                log.take(fifo.descriptor)
    assert contents(tmp_path) == {"1.out.log": "before\nafter\n"}


def test_a_log_that_cannot_be_written_blocks_no_worker_and_is_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shop" / "1.out.log").mkdir(parents=True)
    with closing(Fifo(tmp_path / "fifo")) as fifo, closing(log_file(tmp_path, 1000, 2)) as log:
        for _ in range(2):
            os.write(fifo.descriptor, b"lost\n")
            log.take(fifo.descriptor)
        with pytest.raises(BlockingIOError):
            os.read(fifo.descriptor, 1)
    assert capfd.readouterr().err.count("cannot be written, its lines are lost") == 1


def test_a_fifo_that_fills_all_the_time_is_emptied_in_larger_parts_and_to_its_end(loop: Loop, tmp_path: Path) -> None:
    taken: list[bytes] = []
    written = 0

    def write() -> None:
        nonlocal written
        os.write(fifo.descriptor, b"x")
        written += 1
        if written < 1000:
            loop.at(now(), write)

    def take() -> None:
        taken.append(os.read(fifo.descriptor, 1000))
        if sum(map(len, taken)) == 1000:
            loop.stop()

    loop.at(now(), write)
    loop.at(now() + 20, loop.stop)
    with closing(Fifo(tmp_path / "fifo")) as fifo, closing(Pace(loop, fifo, take)):
        loop.run()
    assert b"".join(taken) == b"x" * 1000
    assert len(taken) < 1000


def test_a_log_whose_program_writes_in_blocks_is_rotated_at_line_ends_all_the_same(loop: Loop, tmp_path: Path) -> None:
    """Each of its blocks ends in the midst of a line, so no batch ever ends with one."""
    printed = b"".join(b"%05d %s\n" % (number, b"x" * 60) for number in range(2000))
    with (
        closing(Kept({})) as kept,
        closing(Logs(loop, tmp_path / "fifos", tmp_path, kept).open("shop.1.1", "shop", 1)) as worker,
    ):
        worker.follow(replace(LAUNCH, log_max_bytes=10_000, log_files=100))
        for at in range(0, len(printed), 4000):
            Path(worker.paths[0]).write_bytes(printed[at : at + 4000])
            worker.take()
        worker.end()
    files = sorted((tmp_path / "shop").glob("1.out.log*"), key=lambda path: int(path.suffix.replace(".log", ".0")[1:]))
    contents = [path.read_bytes() for path in reversed(files)]
    assert b"".join(contents) == printed
    assert all(content.endswith(b"\n") for content in contents)
    assert max(map(len, contents)) < 20_000


def test_the_loop_calls_timers_in_their_order_and_not_the_cancelled_ones(loop: Loop) -> None:
    called: list[str] = []
    loop.at(now() + 0.002, lambda: called.append("second"))
    loop.at(now(), lambda: called.append("first"))
    loop.at(now() + 0.001, lambda: called.append("never")).cancel()
    loop.at(now() + 0.003, loop.stop)
    loop.run()
    assert called == ["first", "second"]


def test_what_is_urgent_is_called_before_what_comes_in_bulk(loop: Loop, pipe: tuple[int, int]) -> None:
    called: list[str] = []

    def on_bulk(_mask: int) -> None:
        called.append("bulk")
        loop.stop()

    os.write(pipe[1], b"x")
    copy = os.dup(pipe[0])
    loop.watch(pipe[0], READ, on_bulk, bulk=True)
    loop.watch(copy, READ, lambda _mask: called.append("urgent"))
    loop.run()
    os.close(copy)
    assert called == ["urgent", "bulk"]


def test_an_event_of_a_closed_descriptor_never_reaches_the_next_one_of_that_number(
    loop: Loop, pipe: tuple[int, int]
) -> None:
    """Both pipes are ready in one turn; the first callback replaces the second's descriptor by an idle one."""
    called: list[str] = []
    first, second = (os.dup(pipe[0]) for _ in range(2))
    idle = os.pipe2(os.O_CLOEXEC)

    def replace_other(this: int, other: int) -> None:
        called.append("first")
        loop.unwatch(this)
        loop.unwatch(other)
        os.dup2(idle[0], other, inheritable=False)
        loop.watch(other, READ, lambda _mask: called.append("stale"))

    os.write(pipe[1], b"x")
    loop.watch(first, READ, lambda _mask: replace_other(first, second))
    loop.watch(second, READ, lambda _mask: replace_other(second, first))
    loop.at(now() + 0.05, loop.stop)
    loop.run()
    for descriptor in (first, second, *idle):
        os.close(descriptor)
    assert called == ["first"]


def test_a_name_with_spaces_and_parentheses_does_not_confuse_the_reading_of_stat() -> None:
    program = (
        "open('/proc/self/comm', 'w').write(') Z 1 (x'); print(open('/proc/self/stat').read(), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert ") Z 1 (x" in child.stdout.readline()
        stat = read_stat(child.pid)
        child.communicate("\n")
    assert stat is not None
    assert not stat.dead
    assert stat.session == os.getsid(0)


def test_only_the_very_process_is_opened() -> None:
    """Guards invariant 8."""
    with subprocess.Popen(["sleep", "1000"]) as child:
        stat = read_stat(child.pid)
        assert stat is not None
        assert open_verified(child.pid, stat.start_ticks + 1) is None
        pidfd = open_verified(child.pid, stat.start_ticks)
        assert pidfd is not None
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
        assert open_verified(child.pid, stat.start_ticks) is None, "a zombie is dead"
        os.close(pidfd)
    assert open_verified(child.pid, stat.start_ticks) is None


def test_here_names_this_boot_and_this_pid_namespace() -> None:
    assert here() == here()
    assert here().pid_namespace == os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116


def test_a_process_that_cannot_be_recorded_never_runs(stub: Stub, tmp_path: Path) -> None:
    """Guards invariant 3: no unrecorded worker."""
    pids: list[int] = []

    def record(pid: int, _start_ticks: int) -> None:
        pids.append(pid)
        raise OSError(28, "No space left on device")

    nursery = Nursery(stub)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    fifos = []
    for name in ("out", "err"):
        os.mkfifo(tmp_path / name)
        fifos.append(str(tmp_path / name))
    wanted = Launch(["touch", str(tmp_path / "ran")], "/", {"PATH": os.environ["PATH"]})
    with pytest.raises(SpawnError, match="No space left on device"):
        nursery.spawn(wanted, Output(*fifos), record)
    assert read_stat(pids[0]) is None
    assert not (tmp_path / "ran").exists()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_handed_descriptors_are_numbered_from_three_on_and_listen_pid_is_the_child(stub: Stub, tmp_path: Path) -> None:
    fifos = []
    for name in ("out", "err"):
        os.mkfifo(tmp_path / name)
        fifos.append(str(tmp_path / name))
    keep_open = [os.open(fifo, os.O_RDWR) for fifo in fifos]
    pipes = [os.pipe() for _ in range(3)]
    shell = "printf a >&3; printf b >&4; printf c >&5; printf %s,%s $LISTEN_PID $GIVEN > env; ls /proc/self/fd | wc -l > count"
    wanted = Launch(["sh", "-c", shell], str(tmp_path), {"PATH": os.environ["PATH"]})
    handed = Handed(tuple(write for _, write in reversed(pipes)), {"LISTEN_FDS": "1", "GIVEN": "1"})
    spawned = Nursery(stub).spawn(wanted, Output(*fifos), lambda _pid, _ticks: None, handed)
    os.waitid(os.P_PIDFD, spawned.pidfd, os.WEXITED)
    assert [os.read(read, 10) for read, _ in pipes] == [b"c", b"b", b"a"]
    assert (tmp_path / "env").read_text() == f"{spawned.pid},1"
    assert int((tmp_path / "count").read_text()) == 3 + 3 + 1  # standard, handed, and the folder itself
    for descriptor in (spawned.pidfd, spawned.report, *keep_open, *(end for pipe in pipes for end in pipe)):
        os.close(descriptor)


_MANY = 40
"""More than one litter has."""


def test_many_starts_that_were_expected_run_as_children_of_their_own_sessions(stub: Stub, tmp_path: Path) -> None:
    fifos, keep_open = _fifos(tmp_path)
    wanted = Launch(
        ["sh", "-c", "echo $$ $(ps -o sid= -p $$) $(ls /proc/self/fd | wc -l) >> ran"], str(tmp_path), _PATH
    )
    nursery, children = Nursery(stub), _children()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    recorded: list[int] = []
    nursery.expect(_MANY)
    spawned = [nursery.spawn(wanted, fifos, lambda pid, _ticks: recorded.append(pid)) for _ in range(_MANY)]
    nursery.expect(0)
    for one in spawned:
        ended = os.waitid(os.P_PIDFD, one.pidfd, os.WEXITED)
        assert ended is not None
        assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)
        os.close(one.pidfd)
        os.close(one.report)
    lines = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    assert sorted(int(pid) for pid, _, _ in lines) == sorted(recorded) == sorted(one.pid for one in spawned)
    assert all(pid == session for pid, session, _ in lines)
    assert {int(count) for _, _, count in lines} == {3 + 1}  # standard, and the folder itself
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert _children() == children
    for descriptor in keep_open:
        os.close(descriptor)


def test_of_many_expected_starts_those_that_do_not_come_leave_nothing(stub: Stub, tmp_path: Path) -> None:
    """Guards invariant 3: no unrecorded worker."""
    fifos, keep_open = _fifos(tmp_path)
    wanted = Launch(["touch", str(tmp_path / "ran")], "/", _PATH)
    nursery, children = Nursery(stub), _children()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def record(_pid: int, _start_ticks: int) -> None:
        raise OSError(28, "No space left on device")

    nursery.expect(_MANY)
    for _ in range(3):
        with pytest.raises(SpawnError, match="No space left on device"):
            nursery.spawn(wanted, fifos, record)
    nursery.close()
    assert _children() == children
    assert not (tmp_path / "ran").exists()
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
    for descriptor in keep_open:
        os.close(descriptor)


_PATH = {"PATH": os.environ["PATH"]}


def _fifos(folder: Path) -> tuple[Output, list[int]]:
    for name in ("out", "err"):
        os.mkfifo(folder / name)
    output = Output(str(folder / "out"), str(folder / "err"))
    return output, [os.open(path, os.O_RDWR) for path in (output.out, output.err)]


def _children() -> set[int]:
    """Of this thread, zombies too."""
    return set(map(int, Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()))
