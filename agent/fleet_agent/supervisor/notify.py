"""What a worker says to NOTIFY_SOCKET (sd_notify(3)), the receiving side.

Heard are READY=1, STATUS=, STOPPING=1 and WATCHDOG=1. RELOADING=1 changes nothing, MAINPID= is not believed: a worker is the
process that was started. Descriptors are closed unseen, which is also the answer that BARRIER=1 waits for.
"""

import array
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fleet_agent.supervisor.loop import Loop
from fleet_agent.supervisor.pace import Paced
from fleet_agent.supervisor.processes import read_stat

_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7): pid, uid, gid
_MAX_MESSAGE_BYTES = 4096
_MAX_STATUS_CHARACTERS = 500
_MAX_DESCRIPTORS = 253  # SCM_MAX_FD
_ANCILLARY_BYTES = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4)
_MESSAGES_AT_ONCE = 64
_MESSAGES_PER_SECOND = 200.0


@dataclass(frozen=True)
class Said:
    """What several messages that were read together come to."""

    ready: bool | None = None
    """READY=1 or STOPPING=1, whichever was last."""
    status: str | None = None
    alive: bool = False
    """WATCHDOG=1."""


def understand(said: Said, message: bytes) -> Said:
    """`said`, and `message` after it."""
    ready, status, alive = said.ready, said.status, said.alive
    for line in message.decode(errors="replace").split("\n"):
        if line == "READY=1":
            ready = True
        elif line == "STOPPING=1":
            ready = False
        elif line == "WATCHDOG=1":
            alive = True
        elif line.startswith("STATUS="):
            text = line.removeprefix("STATUS=")[:_MAX_STATUS_CHARACTERS]
            status = "".join(character if character.isprintable() else " " for character in text)
    return Said(ready, status, alive)


class NotifySocket:
    """A bound datagram socket for one process and its tree. `close` leaves its path."""

    def __init__(self, endpoint: socket.socket, path: Path) -> None:
        self._endpoint = endpoint
        self.path = path
        self._paced: Paced | None = None

    @classmethod
    def bind(cls, path: Path) -> "NotifySocket":
        """Takes the place of what is there. Raises OSError."""
        endpoint = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            path.unlink(missing_ok=True)
            endpoint.bind(os.fspath(path))
            path.chmod(0o600)
        except BaseException:
            endpoint.close()
            raise
        return cls(endpoint, path)

    @classmethod
    def adopt(cls, descriptor: int, path: Path) -> "NotifySocket | None":
        """Takes `descriptor` over; None, and it is closed, where it is not the socket of that path."""
        with contextlib.suppress(OSError):
            endpoint = socket.socket(fileno=descriptor)
            if endpoint.family == socket.AF_UNIX and endpoint.getsockname() == os.fspath(path):
                return cls(endpoint, path)
            endpoint.detach()
        os.close(descriptor)
        return None

    @property
    def descriptor(self) -> int:
        return self._endpoint.fileno()

    def watch(self, loop: Loop, belongs: Callable[[int], bool], hear: Callable[[Said], None]) -> None:
        """Tell `hear` what processes say of which `belongs(pid)` is true.

        READY=1 leaves the socket only when it was heard: a supervisor that is killed in between does not lose it.
        """

        def read(_mask: int) -> float:
            said = Said()
            for count in range(_MESSAGES_AT_ONCE):
                message = self._look(belongs)
                if message is None:
                    break
                said = understand(said, message)
                if said.ready is not None:
                    hear(said)
                    said = Said()
                if self.descriptor < 0:
                    return count
                self._endpoint.recv(1)
            if said != Said():
                hear(said)
            return count

        self._paced = Paced(loop, self.descriptor, read, _MESSAGES_PER_SECOND)

    def close(self) -> None:
        """May be repeated."""
        if self._paced is not None:
            self._paced.close()
            self._paced = None
        self._endpoint.close()

    def _look(self, belongs: Callable[[int], bool]) -> bytes | None:
        """The next message, which stays there, or nothing of it where a stranger sent it; None: there is none."""
        peek = socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC
        try:
            message, ancillary, flags, _ = self._endpoint.recvmsg(_MAX_MESSAGE_BYTES, _ANCILLARY_BYTES, peek)
        except OSError:
            return None
        pid = _sender(ancillary)
        return message if pid > 0 and not flags & socket.MSG_TRUNC and (belongs(pid) or _gone(pid)) else b""


def _gone(pid: int) -> bool:
    """A helper such as systemd-notify(1) may have ended before it is heard. The socket's mode vouches for it: nobody but root
    and the worker's own user can write to it."""
    return read_stat(pid) is None


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The pid the kernel attached; descriptors that came along are closed."""
    pid = 0
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid, _, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
        elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors = array.array("i")
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
            for descriptor in descriptors:
                os.close(descriptor)
    return pid
