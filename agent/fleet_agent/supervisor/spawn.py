"""Making a worker's process so that no unrecorded one can ever run.

```
 supervisor                               child
 fork ──────────────────────────────────► own session, nothing inherited, signals reset
 record(pid, start ticks)                 waits on the release pipe
 writes a byte ─────────────────────────► log FIFOs, cwd, execve
                                          end of file instead of a byte: _exit
```

Should the supervisor die before the byte, the child's pipe ends and so does the child. What keeps it from its program comes back
in words through the report pipe, which closes at execve.
"""

import errno
import fcntl
import functools
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from fleet_agent.supervisor.processes import read_stat
from fleet_agent.supervisor.protocol import Launch

_UMASK = 0o022
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Those fleet-supervisor may have handlers for."""
_RELEASE = b"."
_NOT_STARTED = 127
_MAX_REPORT_BYTES = 4096
_MAX_DESCRIPTOR = 1 << 30
FIRST_INHERITED = 3

Record = Callable[[int, int], None]
"""Called with pid and start ticks; the child's program runs only after it returned."""


class SpawnError(Exception):
    """No process was left behind; the text is the reason."""


class _Refused(Exception):  # noqa: N818 - never leaves the child
    """The program cannot be executed."""


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


NOTHING_HANDED = Handed()


@dataclass(frozen=True)
class Spawned:
    """A released process. The descriptors are the caller's to close."""

    pid: int
    start_ticks: int
    pidfd: int
    report: int
    """Non-blocking: ends at execve, or brings the reason why there was none."""


def spawn(launch: Launch, output: Output, record: Record, handed: Handed = NOTHING_HANDED) -> Spawned:
    """Start `launch` in a session of its own. Raises SpawnError, and what `record` raises; either way nothing runs then."""
    try:
        release_read, release_write = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise SpawnError(f"pipe: {error.strerror}") from error
    try:
        report_read, report_write = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        _close(release_read, release_write)
        raise SpawnError(f"pipe: {error.strerror}") from error
    _inherited_ignored()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    pid = -1
    try:
        pid = os.fork()
    except OSError as error:
        _close(release_read, release_write, report_read, report_write)
        raise SpawnError(f"fork: {error.strerror}") from error
    finally:
        if pid != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if pid == 0:
        _become(launch, output, handed, release_read, report_write)
    _close(release_read, report_write)
    pidfd = -1
    try:
        pidfd = os.pidfd_open(pid)
        start_ticks = _start_ticks(pid)
        record(pid, start_ticks)
        os.write(release_write, _RELEASE)
        os.set_blocking(report_read, False)
        spawned = Spawned(pid, start_ticks, pidfd, report_read)
    except BaseException as error:
        os.kill(pid, signal.SIGKILL)  # our own child, not yet reaped
        os.waitpid(pid, 0)
        _close(report_read, *((pidfd,) if pidfd >= 0 else ()))
        if isinstance(error, OSError):
            raise SpawnError(f"start: {error.strerror or error}") from error
        raise
    finally:
        os.close(release_write)
    return spawned


def read_report(report: int) -> str | None:
    """Why execve did not happen, "" once it did, None while neither is known."""
    try:
        return os.read(report, _MAX_REPORT_BYTES).decode(errors="replace")
    except BlockingIOError:
        return None


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _start_ticks(pid: int) -> int:
    stat = read_stat(pid)
    if stat is None:
        raise ProcessLookupError(errno.ESRCH, "the process vanished before it was started")
    return stat.start_ticks


def _become(launch: Launch, output: Output, handed: Handed, release: int, report: int) -> NoReturn:
    """The child. It must not return, and not touch what it shares with the supervisor."""
    try:
        os.setsid()
        _close_all_but(release, report, *handed.inherit)
        _reset_signals()
        if os.read(release, 1) == _RELEASE:
            report = _inherit(handed.inherit, report)
            _execute(launch, output, _environment(launch, handed))
    except _Refused as error:
        os.write(report, str(error).encode())
    except OSError as error:
        os.write(report, f"start: {error.strerror}: {error.filename}".encode())
    except BaseException as error:
        os.write(report, f"start: {error!r}".encode())
    finally:
        os._exit(_NOT_STARTED)


def _close_all_but(*kept: int) -> None:
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, _MAX_DESCRIPTOR)


def _inherit(descriptors: tuple[int, ...], report: int) -> int:
    """Number them from 3 on. All are copied out of the way first; returns the report pipe's new number."""
    if not descriptors:
        return report
    beyond = FIRST_INHERITED + len(descriptors)
    copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, beyond) for descriptor in (report, *descriptors)]
    for number, copy in enumerate(copies[1:], FIRST_INHERITED):
        os.dup2(copy, number)
    return copies[0]


def _environment(launch: Launch, handed: Handed) -> Mapping[str, str]:
    if not handed.env:
        return launch.env
    environment = {**launch.env, **handed.env}
    if "LISTEN_FDS" in handed.env:
        environment["LISTEN_PID"] = str(os.getpid())
    return environment


@functools.cache
def _inherited_ignored() -> tuple[int, ...]:
    """Signals this process was started with, or Python starts with, ignored. Asked once: 64 questions for each start add up."""
    return tuple(number for number in range(1, signal.NSIG) if signal.getsignal(number) == signal.SIG_IGN)


def _reset_signals() -> None:
    """Ignored signals stay ignored through execve (signal(7)), and Python ignores SIGPIPE; the mask is inherited too.

    Handlers go as well. Until then their signals are blocked, from before the fork on: one that comes early waits, and is
    not swallowed by a handler of the supervisor's.
    """
    for number in (*_HANDLED, *_inherited_ignored()):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _execute(launch: Launch, output: Output, environment: Mapping[str, str]) -> NoReturn:
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    # Read-write: the FIFO then always has a reader, and no death of the supervisor can raise SIGPIPE in the worker.
    os.dup2(os.open(output.out, os.O_RDWR), 1)
    os.dup2(os.open(output.err, os.O_RDWR), 2)
    os.umask(_UMASK)
    os.chdir(launch.cwd)
    try:
        os.execvpe(launch.argv[0], launch.argv, environment)  # noqa: S606
    except OSError as error:
        raise _Refused(f"exec {launch.argv[0]}: {error.strerror}") from error
