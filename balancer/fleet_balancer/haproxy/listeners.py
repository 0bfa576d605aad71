"""The listening sockets of all routes: bound here, inherited by every HAProxy, so that they outlive each of them."""

import ctypes
import errno
import logging
import os
import socket
from collections.abc import Iterable, Mapping

from fleet_balancer.driver import DriverError, Target
from fleet_balancer.haproxy.layout import BACKLOG
from fleet_core import service_manager

_log = logging.getLogger(__name__)
_PIDFD_GETFD = 438  # pidfd_getfd(2): the same number on every architecture since Linux 5.6
_libc = ctypes.CDLL(None, use_errno=True)


def stored_name(address: Target) -> str:
    """The listener's name in the service manager's fd store, which allows no colon."""
    return (
        f"listen-{address}".replace(":", ".") if ":" in address.address else f"listen-{address.address}-{address.port}"
    )


class Listeners:
    """Owns one listening socket per route address, and keeps the service manager's copies in step."""

    def __init__(self) -> None:
        self._sockets: dict[Target, socket.socket] = {}

    def __contains__(self, address: Target) -> bool:
        return address in self._sockets

    def descriptor(self, address: Target) -> int:
        return self._sockets[address].fileno()

    def addresses(self) -> frozenset[Target]:
        return frozenset(self._sockets)

    def bind(self, address: Target) -> None:
        """Listen on `address` unless it is held. Raises DriverError in one line when that cannot be."""
        if address not in self._sockets:
            self._sockets[address] = _listen(address)
            service_manager.store(stored_name(address), self.descriptor(address))

    def take_stored(self, stored: Mapping[str, Iterable[int]]) -> None:
        """Hold the listeners among what the service manager passed in; close everything else."""
        for descriptors in stored.values():
            for descriptor in descriptors:
                found = _as_listener(descriptor)
                if found is not None and found[0] not in self._sockets:
                    self._sockets[found[0]] = found[1]
                elif found is not None:
                    found[1].close()

    def take_from(self, pidfd: int, inherited: Mapping[Target, int]) -> None:
        """Hold what a running HAProxy inherited, by its descriptor numbers, where it is not held yet."""
        for address, number in inherited.items():
            if address in self._sockets:
                continue
            descriptor = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
            if descriptor < 0:
                reason = os.strerror(ctypes.get_errno())
                _log.warning("cannot share the listener %s of the running HAProxy: %s", address, reason)
                continue
            found = _as_listener(descriptor)
            if found is not None and found[0] == address:
                self._sockets[address] = found[1]
                service_manager.store(stored_name(address), descriptor)
            elif found is not None:
                found[1].close()

    def keep_only(self, addresses: Iterable[Target]) -> None:
        """Close every listener whose address is not named."""
        for address in self._sockets.keys() - set(addresses):
            service_manager.forget(stored_name(address))
            self._sockets.pop(address).close()

    def close(self) -> None:
        """Let go of all; the service manager's and HAProxy's copies stay open."""
        for listener in self._sockets.values():
            listener.close()
        self._sockets.clear()


def probe(address: Target) -> None:
    """Raise DriverError if `address` cannot be listened on."""
    _listen(address).close()


def _listen(address: Target) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.address, address.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise DriverError(f"{address} is in use by another program") from error
        raise DriverError(f"cannot listen on {address}: {os.strerror(error.errno or 0)}") from error
    return listener


def _as_listener(descriptor: int) -> tuple[Target, socket.socket] | None:
    """The listening TCP socket behind `descriptor`, which is closed when it is something else."""
    try:
        candidate = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return None
    try:
        is_listening = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        name = candidate.getsockname()
    except OSError:
        is_listening, name = False, ""
    if not is_listening or candidate.family not in (socket.AF_INET, socket.AF_INET6):
        candidate.close()
        return None
    return Target(name[0], name[1]), candidate
