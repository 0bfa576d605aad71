"""fleetctl as a process: on a terminal of its own, in a pipe, interrupted."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import pytest

from fleet.v1 import control_pb2, types_pb2
from tests.integration.cli import fake_control as fake
from tests.integration.cli.fake_control import FakeControl, FakeController

_PATIENCE_SECONDS = 20.0
LINES = 24
"""Of a terminal."""
_FLEETCTL = [sys.executable, "-m", "fleetctl.main"]


class Terminal:
    """fleetctl on a pseudo-terminal; `seen` is all it wrote."""

    def __init__(self, arguments: tuple[str, ...], columns: int, environment: dict[str, str]) -> None:
        self._controller, worker_side = pty.openpty()
        self._modes = termios.tcgetattr(worker_side)
        fcntl.ioctl(worker_side, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        self.process = subprocess.Popen(
            [*_FLEETCTL, *arguments],
            stdin=worker_side,
            stdout=worker_side,
            stderr=worker_side,
            start_new_session=True,
            env=environment,
        )
        os.close(worker_side)
        self.seen = ""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} did not appear in {self.seen!r}"
            if not self.read_more(deadline):
                assert text in self.seen
                return

    def wait_until_stopped(self) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG) is None:
            assert time.monotonic() < deadline, "it runs on"
            time.sleep(0.01)

    def restored(self) -> bool:
        """Its modes are as they were before."""
        return termios.tcgetattr(self._controller) == self._modes

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._controller, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self._controller, text.encode())

    def end(self) -> int:
        """Its exit code, once it has ended by itself."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self.read_more(deadline):
            assert time.monotonic() < deadline, f"still running after {self.seen!r}"
        return self.process.wait(_PATIENCE_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._controller)

    def read_more(self, deadline: float) -> bool:
        """What comes next, or nothing until the deadline. False: it has ended."""
        if not select.select([self._controller], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return True
        try:
            chunk = os.read(self._controller, 65_536)
        except OSError:  # EIO: the other side was closed (man 4 pts)
            return False
        self.seen += chunk.decode(errors="replace")
        return bool(chunk)


OpenTerminal = Callable[..., Terminal]


@pytest.fixture
def open_terminal(controller: FakeController, point_at: Callable[..., None]) -> Iterator[OpenTerminal]:
    point_at(controller.address)
    opened: list[Terminal] = []

    def opener(*arguments: str, columns: int = 80, **environment: str) -> Terminal:
        kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
        opened.append(Terminal(arguments, columns, {**kept, "TERM": "xterm-256color", **environment}))
        return opened[-1]

    yield opener
    for terminal in opened:
        terminal.close()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_progress_is_live_and_gives_way_to_the_outcome(open_terminal: OpenTerminal, control: FakeControl) -> None:
    host = control_pb2.HostProgress(host="host1", steps=4, steps_done=1, doing="draining 2")

    def watch(_request: object, _context: object) -> Iterator[control_pb2.RolloutResponse]:
        yield fake.began("restart", steps_done=1, hosts=[host])
        assert control.released.wait(_PATIENCE_SECONDS)
        yield fake.ended("done")

    control.answers["WatchRollout"] = watch
    terminal = open_terminal("soft-restart", "my-app")
    terminal.wait_for("draining 2")
    assert "━" in terminal.seen
    assert "\x1b[" in terminal.seen
    control.released.set()
    assert terminal.end() == 0
    assert plain(terminal.seen).rstrip().endswith("my-app restarted: 4 workers replaced in 2.5s")


def test_ctrl_c_detaches_and_says_how_to_attach_again(open_terminal: OpenTerminal, control: FakeControl) -> None:
    host = control_pb2.HostProgress(host="host1", steps=4, doing="starting 1")
    control.answers["WatchRollout"] = control.hold(fake.began("restart", hosts=[host]))
    terminal = open_terminal("soft-restart", "my-app")
    terminal.wait_for("starting 1")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "detached; restart of my-app goes on" in plain(terminal.seen)
    assert "fleetctl rollout status my-app --watch" in plain(terminal.seen).replace("\r\n", "")
    assert "Traceback" not in terminal.seen


def test_waiting_for_a_person_shows_what_to_type(open_terminal: OpenTerminal, control: FakeControl) -> None:
    message = (
        "the canaries are ready: `fleetctl rollout promote my-app` goes on, `fleetctl rollout abort my-app` goes back"
    )
    waiting = fake.began("update", awaits_promotion=True, message=message)
    control.answers["WatchRollout"] = control.hold(waiting)
    terminal = open_terminal("env-set", "my-app", "A=1", columns=60)
    terminal.wait_for("goes back")
    assert "waits for promotion" in plain(terminal.seen)
    assert message in " ".join(plain(terminal.seen).split())
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130


def test_a_drain_asks_shows_how_far_it_is_and_can_be_left(open_terminal: OpenTerminal, control: FakeControl) -> None:
    control.answers["ListHosts"] = control_pb2.ListHostsResponse(hosts=[fake.host("host1")])
    pinned = fake.app("db", size_mode=control_pb2.SIZE_MODE_PINNED, placement={"host1": 1})
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[pinned])
    left = control_pb2.AppDrain(app="db", workers_left=1, doing="stopping 1")
    control.answers["WatchDrain"] = control.hold(
        control_pb2.WatchDrainResponse(host="host1", workers_left=1, apps=[left])
    )
    terminal = open_terminal("host", "drain", "host1")
    terminal.wait_for("[y/N]")
    assert "This stops 1 worker of db, pinned to host1" in plain(terminal.seen)
    terminal.type("y\n")
    terminal.wait_for("stopping 1")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    said = plain(terminal.seen).replace("\r\n", "")
    assert "detached; the drain of host1 goes on: `fleetctl host drain host1` follows it again" in said
    (request,) = control.of(control_pb2.DrainHostRequest)
    assert request.allow_stopping_pinned


def test_following_logs_ends_quietly_at_ctrl_c(open_terminal: OpenTerminal, control: FakeControl) -> None:
    entries = [
        control_pb2.LogEntry(app="my-app", host="host1", slot=1, stream="stdout", text=b"hello"),
        control_pb2.LogEntry(app="my-app", host="host1", slot=1, stream="stderr", text=b"oh no"),
    ]
    control.answers["StreamLogs"] = control.hold(control_pb2.StreamLogsResponse(entries=entries))
    terminal = open_terminal("logs", "-f")
    terminal.wait_for("oh no")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert plain(terminal.seen).split() == ["my-app/host1/1", "|", "hello", "my-app/host1/1", "!", "oh", "no"]
    assert "\x1b[31m!" in terminal.seen


def test_workers_have_colours_of_their_own(open_terminal: OpenTerminal, control: FakeControl) -> None:
    entries = [
        control_pb2.LogEntry(app="my-app", host="host1", slot=slot, stream="stdout", text=b"hello")
        for slot in (*range(1, 13), 1)
    ]
    control.answers["StreamLogs"] = [control_pb2.StreamLogsResponse(entries=entries)]
    terminal = open_terminal("logs")
    assert terminal.end() == 0
    colours = re.findall(r"\x1b\[38;5;(\d+)m", terminal.seen)
    assert len(set(colours)) == 12
    assert colours[0] == colours[-1]


def test_what_a_worker_prints_cannot_break_the_terminal(open_terminal: OpenTerminal, control: FakeControl) -> None:
    text = b"\x1b[2J\x1b[?1049h\x1b]0;mine\x07\x1b[32mgreen\rdone"
    entry = control_pb2.LogEntry(app="my-app", host="host1", slot=1, stream="stdout", text=text)
    control.answers["StreamLogs"] = [control_pb2.StreamLogsResponse(entries=[entry])]
    terminal = open_terminal("logs")
    assert terminal.end() == 0
    assert terminal.seen.endswith("\x1b[0m \x1b[32mgreendone\x1b[0m\r\n")
    terminal = open_terminal("logs", "--no-color")
    assert terminal.end() == 0
    assert terminal.seen == "my-app/host1/1 | greendone\r\n"


def test_remove_asks_on_a_terminal_and_takes_no_for_an_answer(
    open_terminal: OpenTerminal, control: FakeControl
) -> None:
    terminal = open_terminal("remove", "my-app")
    terminal.wait_for("[y/N]")
    terminal.type("n\n")
    assert terminal.end() == 5
    assert "nothing was changed" in terminal.seen
    assert control.requests == []
    terminal = open_terminal("remove", "my-app")
    terminal.wait_for("[y/N]")
    terminal.type("y\n")
    assert terminal.end() == 0
    assert len(control.of(control_pb2.RemoveAppRequest)) == 1


def test_shrinking_others_asks_with_the_plan_in_sight(open_terminal: OpenTerminal, control: FakeControl) -> None:
    control.answers["SetSize"] = lambda request, _context: fake.set_size(request, shrinking=("host2",))
    terminal = open_terminal("set-size", "my-app", "4")
    terminal.wait_for("[y/N]")
    assert "BEFORE" in terminal.seen
    terminal.type("y\n")
    assert terminal.end() == 0
    assert control.of(control_pb2.SetSizeRequest)[-1].allow_shrinking_others


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_narrow_terminal_leaves_columns_out_and_breaks_no_line(
    open_terminal: OpenTerminal, control: FakeControl, columns: int
) -> None:
    workers = [fake.worker(f"production{n}", n, restarts=n) for n in range(1, 4)]
    control.answers["ListWorkers"] = control_pb2.ListWorkersResponse(workers=workers)
    terminal = open_terminal("ps", columns=columns)
    assert terminal.end() == 0
    lines = plain(terminal.seen).splitlines()
    assert len(lines) == 4
    assert all(len(line) <= columns for line in lines)
    assert lines[1].split()[:2] == ["my-app/production1/1", "ready"]


def test_colour_can_be_turned_off(open_terminal: OpenTerminal, control: FakeControl) -> None:
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[fake.app()])
    coloured = open_terminal("ls")
    assert coloured.end() == 0
    assert "\x1b[32mrunning" in coloured.seen
    for terminal in (open_terminal("ls", "--no-color"), open_terminal("ls", NO_COLOR="1")):
        assert terminal.end() == 0
        assert "\x1b" not in terminal.seen
        assert "running" in terminal.seen


@contextmanager
def piped(*arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([*_FLEETCTL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("command", [("ps",), ("ps", "-o", "json"), ("logs", "-f")])
def test_a_reader_that_had_enough_ends_it_without_a_word(
    controller: FakeController, control: FakeControl, point_at: Callable[..., None], command: tuple[str, ...]
) -> None:
    point_at(controller.address)
    control.answers["ListWorkers"] = control_pb2.ListWorkersResponse(
        workers=[fake.worker(slot=n + 1, state=types_pb2.WORKER_STATE_READY) for n in range(3000)]
    )
    entry = control_pb2.LogEntry(app="my-app", host="host1", slot=1, stream="stdout", text=b"x" * 100)
    control.answers["StreamLogs"] = control.hold(*[control_pb2.StreamLogsResponse(entries=[entry] * 1000)] * 20)
    with piped(*command) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(_PATIENCE_SECONDS) in (0, 1)
        assert process.stderr.read() == b""
        process.stdout = None


def test_help_imports_neither_grpc_nor_any_command() -> None:
    code = (
        "import sys; from fleetctl.main import run; run(['--help']);"
        "bad = {'grpc', 'google.protobuf', 'pydantic', 'asyncio', 'rich', 'yaml'} & sys.modules.keys();"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def busy_fleet(control: FakeControl) -> FakeControl:
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[fake.app()])
    control.answers["ListHosts"] = control_pb2.ListHostsResponse(hosts=[fake.host("host1"), fake.host("host2")])
    control.answers["ListWorkers"] = control_pb2.ListWorkersResponse(
        workers=[fake.worker(slot=1, cpu_percent=1, rss_bytes=9 << 20), fake.worker(slot=2, cpu_percent=97.5)]
    )
    return control


def frame(terminal: Terminal, text: str) -> str:
    """The newest complete screen, once `text` is on it: its lines come one by one, and the next may have begun."""
    terminal.wait_for(text)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        whole = [plain(one) for one in terminal.seen.split("\x1b[H") if one.count("\n") >= LINES - 1]
        if whole and text in whole[-1]:
            return whole[-1]
        assert time.monotonic() < deadline, f"{text!r} is not on the screen {whole[-1:]}"
        terminal.read_more(deadline)


def test_top_sorts_by_the_key_that_was_pressed_and_leaves_the_terminal_as_it_was(
    open_terminal: OpenTerminal, busy_fleet: FakeControl
) -> None:
    terminal = open_terminal("top", "--interval", "200ms")
    terminal.wait_for("quit")
    shown = frame(terminal, "CPU▾")
    assert shown.index("my-app/host1/2") < shown.index("my-app/host1/1")
    busy_fleet.answers["ListWorkers"].workers.append(fake.worker("host2", 1))
    terminal.wait_for("my-app/host2/1")
    terminal.type("n")
    shown = frame(terminal, "WORKER▾")
    assert shown.index("my-app/host1/1") < shown.index("my-app/host1/2")
    terminal.type("q")
    assert terminal.end() == 0
    assert terminal.seen.count("\x1b[?1049h") == terminal.seen.count("\x1b[?1049l") == 1
    assert terminal.seen.rindex("\x1b[?25h") > terminal.seen.rindex("\x1b[?25l")
    assert terminal.restored()


def test_top_goes_on_without_its_controller_and_says_so(open_terminal: OpenTerminal, busy_fleet: FakeControl) -> None:
    terminal = open_terminal("top", "--interval", "100ms")
    terminal.wait_for("my-app/host1/2")
    busy_fleet.fail("ListWorkers", grpc.StatusCode.FAILED_PRECONDITION, "etcd does not answer")
    terminal.wait_for("no news for")
    assert "my-app/host1/2" in frame(terminal, "etcd does not answer")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.seen
    assert terminal.restored()


def test_top_leaves_the_terminal_as_it_was_also_when_it_is_terminated(
    open_terminal: OpenTerminal, busy_fleet: FakeControl
) -> None:
    terminal = open_terminal("top", "--interval", "1h")
    terminal.wait_for("CPU▾")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 0
    assert "\x1b[?1049l" in terminal.seen
    assert terminal.restored()


def test_top_follows_the_size_of_its_terminal(open_terminal: OpenTerminal, busy_fleet: FakeControl) -> None:
    terminal = open_terminal("top", "--interval", "1h")
    terminal.wait_for("UPTIME")
    assert "THREADS" not in terminal.seen
    terminal.resize(120)
    terminal.wait_for("THREADS")
    terminal.type("q")
    assert terminal.end() == 0


def test_top_lets_itself_be_suspended(open_terminal: OpenTerminal, busy_fleet: FakeControl) -> None:
    terminal = open_terminal("top", "--interval", "1h")
    terminal.wait_for("CPU▾")
    terminal.process.send_signal(signal.SIGTSTP)
    terminal.wait_for("\x1b[?1049l")
    terminal.wait_until_stopped()
    assert terminal.restored()
    terminal.seen = ""
    terminal.process.send_signal(signal.SIGCONT)
    terminal.wait_for("CPU▾")
    terminal.type("n")
    terminal.wait_for("WORKER▾")
    terminal.type("q")
    assert terminal.end() == 0
