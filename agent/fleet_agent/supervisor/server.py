"""The unix socket that fleet-agent talks to: clients, their framing and their bounds. What a request means is the handler's."""

import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fleet_agent.supervisor.complaints import complain
from fleet_agent.supervisor.loop import READ, WRITE, Loop
from fleet_agent.supervisor.protocol import Decoder, ProtocolError, encode

_MAX_CLIENTS = 32
_MAX_WAITING_BYTES = 32 * 1024 * 1024
_READ_BYTES = 256 * 1024
_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7): pid, uid, gid

Handler = Callable[["Client", dict[str, Any]], None]


class Client:
    """One connection. A client that does not read what it is sent is dropped once 32 MiB wait for it."""

    def __init__(
        self, connection: socket.socket, loop: Loop, handler: Handler, gone: Callable[["Client"], None]
    ) -> None:
        self.subscribed = False
        self._connection = connection
        self._loop = loop
        self._handler = handler
        self._gone = gone
        self._decoder = Decoder()
        self._waiting = bytearray()
        self._writing = False
        self._flushing = False
        loop.watch(connection.fileno(), READ, self._on_ready)

    @property
    def open(self) -> bool:
        return self._connection.fileno() >= 0

    def close(self) -> None:
        """May be repeated."""
        if self.open:
            self._loop.unwatch(self._connection.fileno())
            self._connection.close()
            self._gone(self)

    def answer(self, request: Mapping[str, Any], **fields: Any) -> None:
        try:
            frame = encode({"id": request.get("id"), "ok": True, **fields})
        except ProtocolError as error:
            self.refuse(request, str(error))
        else:
            self.send(frame)

    def refuse(self, request: Mapping[str, Any], error: str) -> None:
        self.send(encode({"id": request.get("id"), "ok": False, "error": error}))

    def send(self, frame: bytes) -> None:
        """Queue a whole frame, to be sent at the end of the turn; nothing happens when the client is gone.

        An answer so follows what was asked for, also where that is done at the end of the turn.
        """
        if not self.open:
            return
        self._waiting += frame
        if not self._writing and not self._flushing:
            self._flushing = True
            self._loop.soon(self._flush_once)
        if len(self._waiting) > _MAX_WAITING_BYTES:
            complain("a client that does not read was dropped")
            self.close()

    def _on_ready(self, mask: int) -> None:
        if mask & WRITE:
            self._flush()
        if mask & ~WRITE and self.open:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._connection.recv(_READ_BYTES)
            messages = self._decoder.feed(data)
        except BlockingIOError:
            return
        except (OSError, ProtocolError):
            self.close()
            return
        for message in messages:
            if self.open:  # not dropped on an answer before
                self._handler(self, message)
        if not data:
            self.close()

    def _flush_once(self) -> None:
        self._flushing = False
        if self.open and not self._writing:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._waiting:
                sent = self._connection.send(memoryview(self._waiting)[:_READ_BYTES])
                del self._waiting[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._writing != bool(self._waiting):
            self._writing = bool(self._waiting)
            self._loop.change(self._connection.fileno(), READ | WRITE if self._writing else READ)


class Server:
    """Listens on `path` (mode 0600), for clients of the same user and of root."""

    def __init__(self, path: Path, loop: Loop, handler: Handler) -> None:
        """Takes the place of a socket left there: the caller is the only supervisor of this folder. Raises OSError."""
        self._path = path
        self._loop = loop
        self._handler = handler
        self._clients: set[Client] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            beside = path.with_name(f".{path.name}.new")
            beside.unlink(missing_ok=True)
            self._listener.bind(str(beside))
            beside.chmod(0o600)
            self._listener.listen(_MAX_CLIENTS)
            beside.rename(path)
        except OSError:
            self._listener.close()
            raise
        loop.watch(self._listener.fileno(), READ, self._on_connection)

    def close(self) -> None:
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for client in list(self._clients):
            client.close()

    def broadcast(self, message: Mapping[str, Any]) -> None:
        """To every client that said hello."""
        listening = [client for client in self._clients if client.subscribed]
        if listening:
            frame = encode(message)
            for client in listening:
                client.send(frame)

    def _on_connection(self, _mask: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(credentials)
        if uid not in {0, os.geteuid()} or len(self._clients) >= _MAX_CLIENTS:
            connection.close()
            return
        self._clients.add(Client(connection, self._loop, self._handler, self._clients.discard))
