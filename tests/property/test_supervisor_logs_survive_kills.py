"""A supervisor's way from pipe to log, killed before or after any system call that changes something.

Each of these calls is whole or not begun when a process is killed, but a write to the log, of which a part may be done: that is
tried too. So a supervisor that is killed is one that raises there and is heard of no more; the next one opens the same folders.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_agent.supervisor.journal import file_stem
from fleet_agent.supervisor.kept import Kept
from fleet_agent.supervisor.logs import Logs, WorkerLogs
from fleet_agent.supervisor.loop import Loop
from fleet_agent.supervisor.protocol import Key, Launch

_KEYS = (Key("shop", 1, 1), Key("shop", 1, 2))
"""Two generations of a slot: they share a log."""
_CHANGES = ("splice", "pwrite", "write", "ftruncate", "rename", "unlink")
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")


class Killed(BaseException):
    """Not to be caught by anything on its way."""


class Executioner:
    """Lets so many changes happen, and ends the process at the next: before it, after it, or in its midst."""

    def __init__(self, after: int, moment: str) -> None:
        self._left = after
        self._moment = moment

    @contextmanager
    def at_work(self) -> Iterator[None]:
        patches = [patch.object(os, name, self._watched(name, getattr(os, name))) for name in _CHANGES]
        for one in patches:
            one.start()
        try:
            yield
        finally:
            for one in patches:
                one.stop()

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left != 0:
                return call(*arguments, **options)
            if name == "write" and self._moment == "amid":
                call(arguments[0], arguments[1][: len(arguments[1]) // 2])
            elif self._moment == "after":
                call(*arguments, **options)
            raise Killed

        return wrapped


class Host:
    """The workers' ends of their FIFOs live through everything; supervisors come and go."""

    def __init__(self, folder: Path, launch: Launch) -> None:
        self.folder = folder
        self._launch = launch
        self._workers: dict[Key, int] = {}
        self._open: list[Loop | Kept | WorkerLogs] = []

    def printed(self, key: Key, data: bytes) -> None:
        if key not in self._workers:
            path = self.folder / "fifos" / f"{file_stem(key)}.out"
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                os.mkfifo(path)
            self._workers[key] = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        os.write(self._workers[key], data)

    def supervise(self, *, ending: bool = False) -> None:
        """One supervisor's life: adopts, and empties the pipes, for good where `ending`."""
        loop, kept = Loop(), Kept({})
        self._open += [loop, kept]
        logs = Logs(loop, self.folder / "fifos", self.folder / "log", kept)
        held = []
        for key in _KEYS:
            worker = logs.open(file_stem(key), key.app, key.slot)
            self._open.append(worker)
            held.append(worker)
            worker.follow(self._launch)
        for worker in held:
            if ending:
                worker.end()
            else:
                worker.take()

    def bury(self) -> None:
        """The kernel closes what a process had open."""
        while self._open:
            self._open.pop().close()

    def close(self) -> None:
        self.bury()
        for worker in self._workers.values():
            os.close(worker)

    def log(self) -> bytes:
        files = sorted((self.folder / "log" / "shop").glob("1.out.log*"), key=_age, reverse=True)
        return b"".join(path.read_bytes() for path in files)


def _age(path: Path) -> int:
    return int(path.suffix[1:]) if path.suffix[1:].isdecimal() else 0


_LAUNCHES = st.builds(
    lambda extra, size: Launch(argv=["x"], cwd="/", env={}, log_max_bytes=size, log_files=1000, **extra),
    st.sampled_from(({}, {"log_timestamps": True}, {"log_json": True})),
    st.sampled_from((0, 300, 2000)),
)
_ROUNDS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 1), st.integers(1, 60)), max_size=4),
        st.integers(1, 25),
        st.sampled_from(("before", "after", "amid")),
    ),
    min_size=1,
    max_size=6,
)
"""What each worker prints (how many lines), and at which change the supervisor that follows is killed."""


@given(_LAUNCHES, _ROUNDS, st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_line_is_lost_or_doubled_wherever_the_supervisor_is_killed(
    launch: Launch, rounds: list[tuple[list[tuple[int, int]], int, str]], halves: bool
) -> None:
    """Guards invariant 3. `halves`: lines come in two parts, a supervisor's life between them; where they are not JSON, of one
    worker alone, as two that share a log cannot both have half a line in it."""
    counts = [0, 0]
    with TemporaryDirectory() as name, closing(Host(Path(name), launch)) as host:
        rest = [b"", b""]
        for prints, after, moment in rounds:
            for chosen, count in prints:
                worker = chosen if launch.log_json or not halves else 0
                lines = b"".join(_line(worker, counts[worker] + number) for number in range(1, count + 1))
                counts[worker] += count
                part = rest[worker] + lines
                keep = 15 if halves else 0
                rest[worker] = part[len(part) - keep :]
                host.printed(_KEYS[worker], part[: len(part) - keep])
            try:
                with Executioner(after, moment).at_work():
                    host.supervise()
            except Killed:
                pass
            host.bury()
        for worker in (0, 1):
            if rest[worker]:
                host.printed(_KEYS[worker], rest[worker])
        host.supervise(ending=True)
        host.bury()
        lines = host.log().splitlines(keepends=True)
        left = [
            path.name for path in (host.folder / "fifos").iterdir() if path.suffix in (".json", ".stamps", ".plain")
        ]
    assert [text for text in map(_message, lines) if text.startswith(b"w0 ")] == [
        _line(0, number) for number in range(1, counts[0] + 1)
    ]
    assert [text for text in map(_message, lines) if text.startswith(b"w1 ")] == [
        _line(1, number) for number in range(1, counts[1] + 1)
    ]
    assert len(lines) == sum(counts)
    assert left == []
    if launch.log_timestamps:
        assert all(_STAMP.match(line) for line in lines)


def _line(worker: int, number: int) -> bytes:
    return b"w%d %d %s\n" % (worker, number, b"x" * (number % 50))


def _message(line: bytes) -> bytes:
    if line.startswith(b"{"):
        return json.loads(line)["message"].encode() + b"\n"
    return _STAMP.sub(b"", line, count=1)
