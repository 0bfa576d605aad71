"""The service-manager protocol, the manager's side: what daemons send to $NOTIFY_SOCKET (sd_notify(3)).

`fleet_core.service_manager` is the other side. A sender is known by the pid the kernel attaches (SCM_CREDENTIALS, man 7 unix),
not by anything it says.
"""

import array
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
_MAX_MESSAGE_BYTES = 4096
_MAX_DESCRIPTORS = 253  # SCM_MAX_FD
_ANCILLARY_BYTES = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4)


@dataclass(frozen=True, slots=True)
class Notification:
    """One message. `descriptors` are the receiver's to close."""

    pid: int
    fields: dict[str, str]
    descriptors: tuple[int, ...] = ()


def parse_fields(message: bytes) -> dict[str, str]:
    """`NAME=value` lines; the last of equal names counts, what is no assignment is dropped."""
    fields = {}
    for line in message.decode(errors="replace").split("\n"):
        name, equals, value = line.partition("=")
        if equals:
            fields[name] = value
    return fields


class NotifySocket:
    """A bound datagram socket; its path stays the same, so that daemons of an earlier `up` reach this one."""

    def __init__(self, path: Path) -> None:
        """Raises OSError. The caller must be the only one to use `path`."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            path.unlink(missing_ok=True)
            self._socket.bind(os.fspath(path))
            path.chmod(0o600)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> Notification | None:
        """The next message of a process of this user; None when there is none now."""
        while True:
            try:
                message, ancillary, flags, _ = self._socket.recvmsg(
                    _MAX_MESSAGE_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return None
            pid, user, descriptors = _read_ancillary(ancillary)
            if pid > 0 and user in (os.getuid(), 0) and not flags & socket.MSG_TRUNC:
                return Notification(pid, parse_fields(message), descriptors)
            for descriptor in descriptors:
                os.close(descriptor)

    def close(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)


def _read_ancillary(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int, tuple[int, ...]]:
    pid, user = 0, -1
    descriptors: array.array[int] = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid, user, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
        elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return pid, user, tuple(descriptors)
