"""What a worker's process does between fork and execve: waits for its order, and carries it out.

All here runs in the child. It touches little: each page it, or the supervisor, writes to while both share it is copied.
"""

import array
import errno
import fcntl
import marshal
import os
import resource
import signal
import socket
import struct
from typing import NamedTuple, NoReturn

from fleet_agent.supervisor.identity import UNCHANGED, Identity

HEADER = struct.Struct("=I")
"""Length of the order that follows; 0: the child was born with it."""
MOST_INHERITED = 64
FIRST_INHERITED = 3
_NOT_STARTED = 127
_MAX_DESCRIPTOR = 1 << 30
_DEFAULT_PATH = "/bin:/usr/bin"


class Order(NamedTuple):
    """Everything a process must do to become a worker, in values that marshal knows."""

    argv: list[str]
    cwd: str
    env: dict[str, str]
    out: str
    err: str
    """FIFOs for stdout and stderr."""
    umask: int
    nice: int
    limits: list[tuple[int, int, int]]
    identity: Identity
    cgroup: str
    """A cgroup's folder, which it joins; empty: it stays."""

    def pack(self) -> bytes:
        return marshal.dumps((*self[:-2], tuple(self.identity), self.cgroup))


class _Refused(Exception):  # noqa: N818 - never leaves the child
    """The text is the reason why there is no program."""


def live(channel: socket.socket, order: bytes) -> NoReturn:
    """Wait on `channel`, then become the program. It must not return, and not touch what it shares with the supervisor."""
    try:
        os.setsid()
        descriptor = channel.fileno()
        os.closerange(3, descriptor)
        os.closerange(descriptor + 1, _MAX_DESCRIPTOR)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        received, inherited = _receive(channel)
        if received is not None:
            report = _inherit(inherited, descriptor)
            try:
                _execute(_unpack(received or order))
            except _Refused as error:
                os.write(report, str(error).encode(errors="replace"))
            except OSError as error:
                os.write(report, f"start: {error.strerror}: {error.filename}".encode(errors="replace"))
            except BaseException as error:
                os.write(report, f"start: {error!r}".encode(errors="replace"))
    finally:
        os._exit(_NOT_STARTED)


def _receive(channel: socket.socket) -> tuple[bytes | None, list[int]]:
    """The order and the descriptors that come with it. None, where the supervisor went away before all of it came."""
    inherited = array.array("i")
    data, ancillary, _, _ = channel.recvmsg(HEADER.size, socket.CMSG_SPACE(MOST_INHERITED * inherited.itemsize))
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            inherited.frombytes(content[: len(content) - len(content) % inherited.itemsize])
    if len(data) < HEADER.size:
        return None, []
    (length,) = HEADER.unpack(data)
    order = channel.recv(length, socket.MSG_WAITALL) if length else b""
    return (order if len(order) == length else None), list(inherited)


def _unpack(packed: bytes) -> Order:
    order = Order._make(marshal.loads(packed))  # noqa: S302 - from the supervisor alone
    return order._replace(identity=Identity._make(order.identity))


def _inherit(descriptors: list[int], report: int) -> int:
    """Number them from 3 on. All are copied out of the way first; returns the channel's new number."""
    if not descriptors:
        return report
    beyond = FIRST_INHERITED + len(descriptors)
    copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, beyond) for descriptor in (report, *descriptors)]
    for descriptor in (report, *descriptors):
        os.close(descriptor)
    for number, copy in enumerate(copies[1:], FIRST_INHERITED):
        os.dup2(copy, number)
    return copies[0]


def _execute(order: Order) -> NoReturn:
    if "LISTEN_FDS" in order.env:
        order.env["LISTEN_PID"] = str(os.getpid())  # sd_listen_fds(3)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    # Read-write: the FIFO then always has a reader, and no death of the supervisor can raise SIGPIPE in the worker.
    os.dup2(os.open(order.out, os.O_RDWR), 1)
    os.dup2(os.open(order.err, os.O_RDWR), 2)
    if order.cgroup:
        _join(order.cgroup)
    _limit(order)
    _change_identity(order.identity)
    os.umask(order.umask)
    os.chdir(order.cwd)
    _exec(order)


def _join(cgroup: str) -> None:
    try:
        descriptor = os.open(f"{cgroup}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        os.write(descriptor, b"0")
        os.close(descriptor)
    except OSError as error:
        raise _Refused(f"cgroup {cgroup} cannot be joined: {error.strerror}") from error


def _limit(order: Order) -> None:
    if order.nice:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, order.nice)
        except OSError as error:
            raise _Refused(f"nice {order.nice}: {error.strerror}") from error
    for number, soft, hard in order.limits:
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError) as error:
            raise _Refused(f"resource limit {soft}, {hard}: {error}") from error


def _change_identity(identity: Identity) -> None:
    """While it still may, it makes the log FIFOs the new user's: programs reopen /dev/stdout."""
    if identity.uid != UNCHANGED:
        os.fchown(1, identity.uid, -1)
        os.fchown(2, identity.uid, -1)
    try:
        if identity.groups is not None:
            os.setgroups(identity.groups)
        if identity.gid != UNCHANGED:
            os.setgid(identity.gid)
        if identity.uid != UNCHANGED:
            os.setuid(identity.uid)
    except OSError as error:
        raise _Refused(f"user {identity.uid}, group {identity.gid}: {error.strerror}") from error


def _exec(order: Order) -> NoReturn:
    """As execvpe(3), with the worker's own PATH; `os.execvpe` would import and search more than that."""
    program = order.argv[0]
    if "/" in program:
        candidates = [program]
    else:
        candidates = [f"{folder}/{program}" for folder in order.env.get("PATH", _DEFAULT_PATH).split(":") if folder]
    reason = os.strerror(errno.ENOENT)
    for candidate in candidates:
        try:
            os.execve(candidate, order.argv, order.env)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno != errno.EACCES:  # a file of that name further on may do
                break
    raise _Refused(f"exec {program}: {reason}")
