"""Descriptors that outlive this process: notify sockets, channels, listening sockets, log FIFOs.

Each has two homes, and while the worker lives either is enough. The service manager's fd store (sd_pid_notify_with_fds(3)) hands
them to the next supervisor. And a worker inherits a copy of what the supervisor holds for it: while the worker lives nothing it
talks to can close, whoever else dies, and the next supervisor gets it back with pidfd_getfd(2), where ptrace(2) of the worker is
allowed; a FIFO, by its path. What a worker that dies meanwhile has left in its FIFOs, only the fd store keeps.
"""

import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable

from fleet_agent.supervisor.complaints import complain
from fleet_core import service_manager

_PIDFD_GETFD = 438
"""System call number, on every architecture."""
_SLOW_SECONDS = 0.5
_DEAF_SECONDS = 10.0
"""A service manager that does not read costs one wait in so long a time, not one for each worker."""


class Kept:
    """What the service manager passed in, until it is taken, and what it is to keep."""

    def __init__(self, stored: dict[str, list[int]]) -> None:
        """Owns the descriptors in `stored`."""
        self._stored = stored
        self._endpoint = service_manager.endpoint()
        self._to_drop: list[str] = []
        self._deaf_until = 0.0

    def close(self) -> None:
        """Closes what was not taken; it stays in the store."""
        self._close_stored()
        self._endpoint.close()

    def _close_stored(self) -> None:
        for descriptors in self._stored.values():
            for descriptor in descriptors:
                os.close(descriptor)
        self._stored.clear()

    def keep(self, name: str, *descriptors: int) -> None:
        """Where there is no service manager, the worker's copy is all there is."""
        self._drop_waiting()
        self._try(lambda: service_manager.store(name, *descriptors, through=self._endpoint))

    def take(self, name: str) -> int | None:
        """A descriptor, the caller's to close, that stays in the store as well."""
        descriptors = self.take_all(name)
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        return descriptors[0] if descriptors else None

    def take_all(self, name: str) -> list[int]:
        """As `take`, of a name that stands for several."""
        return self._stored.pop(name, [])

    def drop(self, name: str) -> None:
        """Out of the store, with the next change at the latest that the service manager takes."""
        self._to_drop.append(name)
        self._drop_waiting()

    def drop_unclaimed(self) -> None:
        """To be called when everything that lives was adopted: what nobody took belonged to the dead."""
        for name, descriptors in self._stored.items():
            for descriptor in descriptors:
                stop_listening(descriptor)
            self.drop(name)
        self._close_stored()

    def _drop_waiting(self) -> None:
        while self._to_drop and self._try(lambda: service_manager.forget(self._to_drop[0], through=self._endpoint)):
            del self._to_drop[0]

    def _try(self, tell: Callable[[], bool]) -> bool:
        """True where that is settled: told, or nobody listens."""
        began = time.monotonic()
        if began < self._deaf_until:
            return False
        if not tell() and time.monotonic() - began > _SLOW_SECONDS:
            self._deaf_until = time.monotonic() + _DEAF_SECONDS
            return False
        return True


def stop_listening(descriptor: int) -> None:
    """Where it is a listening socket: for all who have a copy, so that its address is free at once."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as listener:
        if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.shutdown(socket.SHUT_RDWR)


def copy_from(pidfd: int, number: int) -> int | None:
    """The descriptor `number` of another process; None where it has none, or may not be asked."""
    import ctypes  # costs memory, and only a supervisor without an fd store needs it

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.syscall(_PIDFD_GETFD, pidfd, number, 0))
    if descriptor >= 0:
        return descriptor
    complain(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    return None
