"""Making a worker's process so that no unrecorded one can ever run.

```
 supervisor                               child (`stub`)
 posix_spawn ───────────────────────────► own session, nothing inherited, default signals
 record(pid, start ticks)                 waits on its channel
 writes the order, sends a byte ────────► `steps`: log FIFOs, limits, identity, cwd, execve
                                          end of file instead of the byte: exit
```

Should the supervisor die before the byte is sent, the child's channel ends and so does the child. What keeps it from its program
comes back in words through the channel, which closes at execve.

A child knows nothing of its worker until then, so one is made beforehand, for the next crash.
"""

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet_agent.supervisor.complaints import complain
from fleet_agent.supervisor.identity import Identity, IdentityError, identity_of, limits_of
from fleet_agent.supervisor.litter import MOST, Litter
from fleet_agent.supervisor.processes import kill_own, read_stat
from fleet_agent.supervisor.protocol import Launch
from fleet_agent.supervisor.steps import Order, steps_of
from fleet_agent.supervisor.stub import Stub, native_stub, python_stub, read_failure
from fleet_agent.supervisor.stub_program import CHANNEL, FIRST_INHERITED, MOST_INHERITED, ORDER

__all__ = ["FIRST_INHERITED", "NOTHING_HANDED", "Handed", "Nursery", "Output", "SpawnError", "Spawned", "read_report"]

_MAX_REPORT_BYTES = 64 * 1024
_ORDERS_KEPT = 64
"""Some KiB each: that many of those packed last, as a restart repeats the one before."""
_FEWEST = 4
"""So many starts together are worth a litter."""
_SIGNALS = signal.valid_signals()
_ORDINARY = os.sched_param(0)

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
    """A process that waits for its order."""

    pid: int
    start_ticks: int
    pidfd: int
    channel: socket.socket
    order: int

    def alive(self) -> bool:
        return os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def release(self, order: bytes, inherit: tuple[int, ...]) -> Spawned:
        """Raises OSError."""
        if os.pwrite(self.order, order, 0) != len(order):
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        socket.send_fds(self.channel, [b"\n"], inherit)
        os.close(self.order)
        return Spawned(self.pid, self.start_ticks, self.pidfd, self.channel.detach())

    def end(self) -> None:
        """Leave nothing of it."""
        kill_own(self.pid)
        self.channel.close()
        os.close(self.order)
        os.close(self.pidfd)


class _Wanted(NamedTuple):
    """Of what an order is made. A restart is mostly about the same launch, which then need not be looked through."""

    launch: Launch
    output: Output
    env: Mapping[str, str]
    """Set over the launch's."""
    limits: list[tuple[int, int, int]]
    identity: Identity
    cgroup: str
    inherited: int

    def order(self) -> Order:
        launch = self.launch
        return Order(
            argv=launch.argv,
            cwd=launch.cwd,
            env={**launch.env, **self.env},
            out=self.output.out,
            err=self.output.err,
            umask=launch.umask,
            nice=launch.nice,
            limits=self.limits,
            identity=self.identity,
            cgroup=self.cgroup,
            inherited=self.inherited,
        )


class Nursery:
    """Makes workers' processes. Owns the program they wait in, and one that waits for the next start."""

    def __init__(self, stub: Stub | None = None) -> None:
        """`stub`: the caller's, who closes it."""
        self._owned = contextlib.ExitStack()
        self._stub = stub or self._best()
        self._spare: _Child | None = None
        self._litter: Litter | None = None
        self._expected = 0
        self._packed: dict[str, tuple[_Wanted, bytes]] = {}
        """By the path of its stdout, which is one worker's; the one used last is last."""

    def close(self) -> None:
        if self._spare is not None:
            self._spare.end()
            self._spare = None
        self.expect(0)
        self._owned.close()

    def expect(self, count: int) -> None:
        """So many starts follow at once. 0: no more; what was made for them in vain ends."""
        self._expected = count if self._stub.breeds else 0
        if not count and self._litter is not None:
            self._litter.close()
            self._litter = None

    def prepare(self) -> None:
        """Let one wait; where none can be made, `spawn` will say why."""
        if self._spare is None:
            with contextlib.suppress(SpawnError):
                self._spare = self._make(patient=False)

    def spawn(self, launch: Launch, output: Output, record: Record, handed: Handed = NOTHING_HANDED) -> Spawned:
        """Start `launch` in a session of its own. Raises SpawnError, and what `record` raises; either way nothing runs then."""
        if len(handed.inherit) > MOST_INHERITED:
            raise SpawnError(f"more than {MOST_INHERITED} descriptors cannot be inherited")
        try:
            identity, limits = identity_of(launch), limits_of(launch)
        except IdentityError as error:
            raise SpawnError(str(error)) from error
        child = self._take()
        try:
            record(child.pid, child.start_ticks)
            given = handed.env
            if "LISTEN_FDS" in given:
                given = {**given, "LISTEN_PID": str(child.pid)}  # sd_listen_fds(3)
            wanted = _Wanted(launch, output, given, limits, identity, handed.cgroup, len(handed.inherit))
            return child.release(self._pack(wanted), handed.inherit)
        except BaseException as error:
            child.end()
            if isinstance(error, OSError | ValueError):
                raise SpawnError(f"start: {getattr(error, 'strerror', None) or error}") from error
            raise

    def _pack(self, wanted: _Wanted) -> bytes:
        """Raises ValueError."""
        path = wanted.output.out
        known = self._packed.pop(path, None)
        packed = known[1] if known is not None and known[0] == wanted else self._stub.pack(steps_of(wanted.order()))
        self._packed[path] = wanted, packed
        if len(self._packed) > _ORDERS_KEPT:
            del self._packed[next(iter(self._packed))]
        return packed

    def _best(self) -> Stub:
        try:
            stub = native_stub()
        except OSError as error:
            complain(f"starts take a Python each, as the program they begin with cannot be used: {error.strerror}")
            return python_stub()
        self._owned.callback(stub.close)
        return stub

    def _take(self) -> _Child:
        spare, self._spare = self._spare, None
        if spare is not None:
            if spare.alive():
                return spare
            spare.end()
        return self._of_litter() or self._make(patient=self._stub.patient)

    def _of_litter(self) -> _Child | None:
        """Where many are expected; None where there is none, or none can be made in this way."""
        try:
            if not self._litter:
                if self._expected < _FEWEST:
                    return None
                before, self._litter = self._litter, Litter(min(self._expected, MOST), self._start_stub)
                if before is not None:
                    before.close()
            self._expected -= 1
            pid, channel, order = self._litter.take()
        except OSError:
            self.expect(0)
            return None
        pidfd = -1
        try:
            pidfd = os.pidfd_open(pid)
            return _Child(pid, _start_ticks(pid), pidfd, channel, order)
        except OSError:
            kill_own(pid)
            channel.close()
            os.close(order)
            if pidfd >= 0:
                os.close(pidfd)
            return None

    def _make(self, *, patient: bool) -> _Child:
        """`patient`: one of many, perhaps, that are started together (`Stub.patient`). Raises SpawnError."""
        descriptors: list[int] = []
        pid = 0
        near = None
        try:
            near, far = socket.socketpair()
            near.setblocking(False)
            with far:
                order = os.memfd_create("fleet-order", os.MFD_CLOEXEC)
                descriptors.append(order)
                pid = self._start_stub(far.fileno(), order)
            if patient:
                os.sched_setscheduler(pid, os.SCHED_BATCH, _ORDINARY)
            pidfd = os.pidfd_open(pid)
            descriptors.append(pidfd)
            return _Child(pid, _start_ticks(pid), pidfd, near, order)
        except BaseException as error:
            if pid:
                kill_own(pid)
            for descriptor in descriptors:
                os.close(descriptor)
            if near is not None:
                near.close()
            if isinstance(error, OSError):
                raise SpawnError(f"start: {error.strerror}") from error
            raise

    def _start_stub(self, channel: int, order: int) -> int:
        """The numbers are changed by way of copies beyond both, so that neither takes the other's place."""
        beyond = max(channel, order, ORDER, self._stub.descriptor) + 1
        actions: list[tuple[int, int] | tuple[int, int, int]] = [
            (os.POSIX_SPAWN_DUP2, channel, beyond),
            (os.POSIX_SPAWN_DUP2, order, ORDER),
            (os.POSIX_SPAWN_DUP2, beyond, CHANNEL),
            (os.POSIX_SPAWN_CLOSE, beyond),
        ]
        return os.posix_spawn(
            self._stub.path,
            self._stub.argv,
            {},
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_SIGNALS,
        )


def read_report(report: int) -> str | None:
    """Why execve did not happen, "" once it did, None while neither is known."""
    try:
        said = os.read(report, _MAX_REPORT_BYTES)
    except BlockingIOError:
        return None
    except ConnectionResetError:  # it was killed before it read its order
        return ""
    return read_failure(said) if said else ""


def _start_ticks(pid: int) -> int:
    stat = read_stat(pid)
    if stat is None:
        raise ProcessLookupError(errno.ESRCH, "the process vanished before it was started")
    return stat.start_ticks
