"""Making a worker's process so that no unrecorded one can ever run.

```
 supervisor                               child (`child`)
 fork ──────────────────────────────────► own session, nothing inherited, signals reset
 record(pid, start ticks)                 waits on its channel
 sends the order, and descriptors ──────► log FIFOs, limits, identity, cwd, execve
                                          end of file instead of an order: _exit
```

Should the supervisor die before the order is sent, the child's channel ends and so does the child. What keeps it from its program
comes back in words through the channel, which closes at execve.

A child knows nothing of its worker until the order comes, so it can be made before it is needed: a fork, and the pages that are
copied when either side goes on, are most of what a start costs. One waits for the next crash; for many starts at once all are
made in a row, before the supervisor touches its memory again.
"""

import contextlib
import errno
import functools
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from fleet_agent.supervisor.child import FIRST_INHERITED, HEADER, MOST_INHERITED, Order, live
from fleet_agent.supervisor.identity import IdentityError, identity_of, limits_of
from fleet_agent.supervisor.processes import read_stat
from fleet_agent.supervisor.protocol import Launch

__all__ = ["FIRST_INHERITED", "NOTHING_HANDED", "Handed", "Nursery", "Output", "SpawnError", "Spawned", "read_report"]

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Those fleet-supervisor may have handlers for."""
_MAX_REPORT_BYTES = 4096
_MOST_SENT_BYTES = 64 * 1024
"""What a socket takes at once whatever its peer does; a child that needs a longer order is born with it."""
MOST_WAITING = 16

Record = Callable[[int, int], None]
"""Called with pid and start ticks; the child's program runs only after it returned."""


class SpawnError(Exception):
    """No process was left behind; the text is the reason."""


@dataclass(frozen=True)
class Output:
    """Paths of the FIFOs that become a worker's stdout and stderr."""

    out: str
    err: str


@dataclass(frozen=True)
class Handed:
    """What a process gets from the supervisor beside its launch."""

    inherit: tuple[int, ...] = ()
    """Descriptors, the supervisor's own, that become 3, 4, … in the process. No number may come twice."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Set over the launch's. Where LISTEN_FDS is among it, LISTEN_PID is added (sd_listen_fds(3))."""
    cgroup: str = ""
    """Folder of the cgroup it joins before anything else of its own runs; empty: the supervisor's."""


NOTHING_HANDED = Handed()


@dataclass(frozen=True)
class Spawned:
    """A released process. The descriptors are the caller's to close."""

    pid: int
    start_ticks: int
    pidfd: int
    report: int
    """Non-blocking: ends at execve, or brings the reason why there was none."""


@dataclass(frozen=True)
class _Child:
    """A child that waits for its order."""

    pid: int
    start_ticks: int
    pidfd: int
    channel: socket.socket

    def alive(self) -> bool:
        return os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def end(self) -> None:
        """Leave nothing of it."""
        _kill_own(self.pid)
        self.channel.close()
        os.close(self.pidfd)


class Nursery:
    """Children that wait to become workers. Owns them until they are."""

    def __init__(self) -> None:
        self._waiting: list[_Child] = []

    def close(self) -> None:
        for child in self._waiting:
            child.end()
        self._waiting.clear()

    def prepare(self, count: int) -> None:
        """Let so many children wait, MOST_WAITING at the most; where no more can be made, `spawn` will say why."""
        if len(self._waiting) >= count:
            return
        with contextlib.suppress(SpawnError), _default_signals():
            while len(self._waiting) < min(count, MOST_WAITING):
                self._waiting.append(_fork())

    def spawn(self, launch: Launch, output: Output, record: Record, handed: Handed = NOTHING_HANDED) -> Spawned:
        """Start `launch` in a session of its own. Raises SpawnError, and what `record` raises; either way nothing runs then."""
        order = _order(launch, output, handed)
        child = self._take(order)
        try:
            record(child.pid, child.start_ticks)
            _send(child.channel, order, handed.inherit)
            return Spawned(child.pid, child.start_ticks, child.pidfd, child.channel.detach())
        except BaseException as error:
            child.end()
            if isinstance(error, OSError):
                raise SpawnError(f"start: {error.strerror or error}") from error
            raise

    @staticmethod
    def rehearse(launch: Launch) -> None:
        """Do what `spawn` does, but for the process."""
        with contextlib.suppress(SpawnError):
            _order(launch, Output("", ""), NOTHING_HANDED)

    def _take(self, order: bytes) -> _Child:
        if len(order) > _MOST_SENT_BYTES:
            with _default_signals():
                return _fork(order)
        while self._waiting:
            child = self._waiting.pop(0)
            if child.alive():
                return child
            child.end()
        with _default_signals():
            return _fork()


def read_report(report: int) -> str | None:
    """Why execve did not happen, "" once it did, None while neither is known."""
    try:
        return os.read(report, _MAX_REPORT_BYTES).decode(errors="replace")
    except BlockingIOError:
        return None
    except ConnectionResetError:  # it was killed before it read its order
        return ""


def _order(launch: Launch, output: Output, handed: Handed) -> bytes:
    if len(handed.inherit) > MOST_INHERITED:
        raise SpawnError(f"more than {MOST_INHERITED} descriptors cannot be inherited")
    try:
        identity, limits = identity_of(launch), limits_of(launch)
    except IdentityError as error:
        raise SpawnError(str(error)) from error
    return Order(
        argv=launch.argv,
        cwd=launch.cwd,
        env={**launch.env, **handed.env},
        out=output.out,
        err=output.err,
        umask=launch.umask,
        nice=launch.nice,
        limits=limits,
        identity=identity,
        cgroup=handed.cgroup,
    ).pack()


def _send(channel: socket.socket, order: bytes, inherit: tuple[int, ...]) -> None:
    message = HEADER.pack(0) if len(order) > _MOST_SENT_BYTES else HEADER.pack(len(order)) + order
    sent = socket.send_fds(channel, [message], inherit) if inherit else channel.send(message)
    if sent != len(message):
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


def _fork(order: bytes = b"") -> _Child:
    """To be called with default signals. Raises SpawnError."""
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise SpawnError(f"socket: {error.strerror}") from error
    pid = -1
    try:
        pid = os.fork()
    except OSError as error:
        ours.close()
        raise SpawnError(f"fork: {error.strerror}") from error
    finally:
        if pid == 0:
            live(theirs, order)
        theirs.close()
    ours.setblocking(False)
    pidfd = -1
    try:
        pidfd = os.pidfd_open(pid)
        return _Child(pid, _start_ticks(pid), pidfd, ours)
    except OSError as error:
        _kill_own(pid)
        ours.close()
        if pidfd >= 0:
            os.close(pidfd)
        raise SpawnError(f"start: {error.strerror}") from error


@contextlib.contextmanager
def _default_signals() -> Iterator[None]:
    """What is forked within has no handlers and ignores nothing.

    Ignored signals stay ignored through execve (signal(7)), and Python ignores SIGPIPE. Signals that have handlers are blocked
    until a child has none: one that comes early waits for the child to unblock it, and is not swallowed. All this is done here
    because in the child it would copy a hundred pages.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    before = [(number, signal.signal(number, signal.SIG_DFL)) for number in (*_HANDLED, *_inherited_ignored())]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _kill_own(pid: int) -> None:
    """A child of ours that was not reaped yet: its pid is nobody else's."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _start_ticks(pid: int) -> int:
    stat = read_stat(pid)
    if stat is None:
        raise ProcessLookupError(errno.ESRCH, "the process vanished before it was started")
    return stat.start_ticks


@functools.cache
def _inherited_ignored() -> tuple[int, ...]:
    """Signals this process was started with, or Python starts with, ignored. Asked once: 64 questions for each start add up."""
    return tuple(number for number in range(1, signal.NSIG) if signal.getsignal(number) == signal.SIG_IGN)
