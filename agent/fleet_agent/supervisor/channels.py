"""Messages between a Node program and its supervisor, as child_process.fork() has them: one JSON value a line.

Two ways lead there. The program's first process inherits a socket pair as NODE_CHANNEL_FD. Below `npm start` that channel is
npm's, so there is also a socket with a path, which the preload of a process without a channel connects to, and again after a
supervisor's death. Of what comes, only "ready" and the preload's "listening" have a meaning; the rest is read and dropped, in
bounded memory. Nothing here waits for a program that does not read.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from fleet_agent.supervisor.loop import HANG_UP, READ, Loop
from fleet_agent.supervisor.pace import Paced

_READ_BYTES = 64 * 1024
_BYTES_PER_SECOND = 1024 * 1024.0
_MAX_CONNECTIONS = 8
_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7): pid, uid, gid
_WORDS = {b'"ready"': "message", b'"listening"': "listening"}
"""What a line says, in the terms of `Launch.ready_by`."""
_LONGEST_WORD = max(map(len, _WORDS))
SHUTDOWN = b'"shutdown"\n'


class Lines:
    """Finds the lines that have a meaning, and remembers no more of an unfinished one than the longest of them has."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The words that `data` completed."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: _LONGEST_WORD + 1]  # longer than a word is none
        return [_WORDS[line] for line in lines if line in _WORDS]


class Peer:
    """One connected stream to a program."""

    def __init__(self, endpoint: socket.socket) -> None:
        endpoint.setblocking(False)
        self._endpoint = endpoint
        self._lines = Lines()
        self._paced: Paced | None = None

    @property
    def descriptor(self) -> int:
        return self._endpoint.fileno()

    @property
    def inode(self) -> int:
        """Names the socket among all of this machine's."""
        return os.fstat(self.descriptor).st_ino

    @property
    def open(self) -> bool:
        return self.descriptor >= 0

    def watch(self, loop: Loop, hear: Callable[[str], None], gone: Callable[["Peer"], None]) -> None:
        """Tell of words and, once closed, of the program's having closed it.

        What is read leaves the socket only when it was heard: a supervisor that is killed in between loses none.
        """

        def read(_mask: int) -> float:
            try:
                data = self._endpoint.recv(_READ_BYTES, socket.MSG_PEEK)
            except BlockingIOError:
                return 0.0
            except OSError:
                data = b""
            for word in self._lines.feed(data):
                hear(word)
            if not data:
                self.close()
                gone(self)
            elif self.open:
                self._endpoint.recv(len(data))
            return float(len(data))

        self._paced = Paced(loop, self.descriptor, read, _BYTES_PER_SECOND)

    def send(self, frame: bytes) -> bool:
        """False where it cannot be taken now."""
        try:
            return self.open and self._endpoint.send(frame, socket.MSG_NOSIGNAL) == len(frame)
        except OSError:
            return False

    def close(self) -> None:
        """May be repeated."""
        if self._paced is not None:
            self._paced.close()
            self._paced = None
        self._endpoint.close()


def pair() -> tuple[Peer, socket.socket]:
    """The supervisor's end, and the program's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    return Peer(ours), theirs


def peer_of(descriptor: int, inode: int) -> Peer | None:
    """Takes `descriptor` over; None, and it is closed, where it is not that socket."""
    with contextlib.suppress(OSError):
        if os.fstat(descriptor).st_ino == inode:
            return Peer(socket.socket(fileno=descriptor))
    os.close(descriptor)
    return None


class Meeting:
    """The socket with a path, and those connected to it. `close` leaves the path."""

    def __init__(self, path: Path) -> None:
        """Takes the place of what is there. Raises OSError."""
        self.path = path
        self._loop: Loop | None = None
        self._peers: set[Peer] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            path.unlink(missing_ok=True)
            self._listener.bind(os.fspath(path))
            path.chmod(0o600)
            self._listener.listen(_MAX_CONNECTIONS)
        except BaseException:
            self._listener.close()
            raise

    def watch(self, loop: Loop, belongs: Callable[[int], bool], hear: Callable[[str], None]) -> None:
        """Tell of words of processes of which `belongs(pid)` is true."""
        self._loop = loop

        def on_connection(mask: int) -> None:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, _, _ = _CREDENTIALS.unpack(credentials)
            if mask & HANG_UP or len(self._peers) >= _MAX_CONNECTIONS or not belongs(pid):
                connection.close()
                return
            peer = Peer(connection)
            self._peers.add(peer)
            peer.watch(loop, hear, self._peers.discard)

        loop.watch(self._listener.fileno(), READ, on_connection, bulk=True)

    def send(self, frame: bytes) -> bool:
        """To all; False where nobody took it."""
        taken = [peer.send(frame) for peer in self._peers]
        return any(taken)

    def close(self) -> None:
        """May be repeated."""
        for peer in self._peers:
            peer.close()
        self._peers.clear()
        if self._loop is not None:
            self._loop.unwatch(self._listener.fileno())
            self._loop = None
        self._listener.close()
