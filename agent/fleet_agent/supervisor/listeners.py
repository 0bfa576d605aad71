"""Listening sockets that all workers of an app share, over generations (listen mode `socket`).

Bound once and inherited, so a connection that comes while every worker restarts waits in the backlog. Without SO_REUSEPORT, which
resets what waits whenever one of its sockets closes; non-blocking, because of several that accept only one gets the connection.
"""

import os
import socket
from collections.abc import Collection
from typing import NamedTuple

from fleet_agent.supervisor.complaints import complain
from fleet_agent.supervisor.kept import Kept, copy_from, stop_listening
from fleet_agent.supervisor.protocol import Key, Launch

_BACKLOG = 65535
"""The kernel takes net.core.somaxconn where that is less."""


class Shared(NamedTuple):
    """Names one listening socket of this host."""

    app: str
    address: str
    port: int

    @property
    def stored_name(self) -> str:
        """In the fd store; colons are not allowed there."""
        return f"listen.{self.app}.{self.address.replace(':', '_')}.{self.port}"


def shared_by(key: Key, launch: Launch) -> Shared | None:
    """The socket this launch wants."""
    return Shared(key.app, launch.listen_address, launch.listen_port) if launch.listen_port else None


class Listeners:
    """Owns the sockets; `close` leaves them in the fd store and with the workers."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._sockets: dict[Shared, socket.socket] = {}

    def close(self) -> None:
        for listener in self._sockets.values():
            listener.close()
        self._sockets.clear()

    def open(self, shared: Shared) -> int:
        """Its descriptor, which stays this object's; bound at the first call. Raises OSError."""
        listener = self._sockets.get(shared)
        if listener is None:
            listener = self._sockets[shared] = _bind(shared)
            self._kept.keep(shared.stored_name, listener.fileno())
        return listener.fileno()

    def adopt(self, shared: Shared, pidfd: int | None, number: int) -> None:
        """Get it back from the fd store, or from a worker that has it as `number`."""
        if shared in self._sockets:
            return
        stored = self._kept.take(shared.stored_name)
        if stored is not None and self._accept(shared, stored):
            return
        copied = None if pidfd is None else copy_from(pidfd, number)
        if copied is not None and self._accept(shared, copied):
            self._kept.keep(shared.stored_name, copied)

    def keep_only(self, wanted: Collection[Shared | None]) -> None:
        for shared in [shared for shared in self._sockets if shared not in wanted]:
            listener = self._sockets.pop(shared)
            # Copies may live on for a moment, or with a process that left its tree.
            stop_listening(listener.fileno())
            listener.close()
            self._kept.drop(shared.stored_name)

    def _accept(self, shared: Shared, descriptor: int) -> bool:
        """Take `descriptor` over when it is that socket, else close it."""
        if _listens_at(shared, descriptor):
            self._sockets[shared] = socket.socket(fileno=descriptor)
            return True
        os.close(descriptor)
        return False


def _bind(shared: Shared) -> socket.socket:
    family = socket.AF_INET6 if ":" in shared.address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((shared.address, shared.port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _listens_at(shared: Shared, descriptor: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as listener:
            address = listener.getsockname()
            return (
                bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
                and listener.family in (socket.AF_INET, socket.AF_INET6)
                and socket.inet_pton(listener.family, address[0]) == socket.inet_pton(listener.family, shared.address)
                and address[1] == shared.port
            )
    except OSError as error:
        complain(f"socket of {shared.app}: {error.strerror or error}")
        return False
