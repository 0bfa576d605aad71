"""Claims on blocks of ports, so that two `fleetctl up` on one machine never share one.

A worker's port is bound only while the worker runs, so looking for listeners does not show who owns a range. A claim is a
bound socket in the abstract namespace: like ports it belongs to one network namespace, and it ends with its process (man 7 unix).
"""

import errno
import socket
from types import TracebackType
from typing import Self

from fleetctl.up.ports import BLOCK_PORTS

_ADDRESS = "127.0.0.1"


class PortClaims:
    """The blocks this process claimed, until closed."""

    def __init__(self) -> None:
        self._claims: dict[int, socket.socket] = {}

    def claim(self, block: int) -> bool:
        """True when the block is this process's own, now or already. Raises OSError when sockets cannot be made at all."""
        if block in self._claims:
            return True
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            claim.bind(f"\0fleetctl-up-ports-{block}")
        except OSError as error:
            claim.close()
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        self._claims[block] = claim
        return True

    def claim_unused(self, block: int) -> bool:
        """Claim the block if also none of its ports is in use."""
        if block in self._claims or not self.claim(block):
            return False
        if all(port_is_free(port) for port in range(block, block + BLOCK_PORTS)):
            return True
        self._claims.pop(block).close()
        return False

    def close(self) -> None:
        for claim in self._claims.values():
            claim.close()
        self._claims.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def port_is_free(port: int) -> bool:
    """Whether a server could listen there now; closed connections that linger are no hindrance (SO_REUSEADDR, man 7 socket)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_ADDRESS, port))
            probe.listen(1)
        except OSError:
            return False
    return True
