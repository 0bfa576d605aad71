"""Ports for what a test is about to start on 127.0.0.1.

All below the range that the kernel takes for outgoing connections and for port 0 (ip(7), ip_local_port_range: 32768 to 60999):
one of that range may be somebody else's before it is used, and while what used it is restarted. Nor are they workers' (20000 and
up), which agents give out without asking anybody.
"""

import itertools
import random
import socket
from collections.abc import Iterator

_PORTS = range(12_000, 20_000)


def _walk() -> Iterator[int]:
    """Each port once before any comes again; runs beside this one begin elsewhere."""
    begin = random.randrange(len(_PORTS))
    return itertools.cycle((*_PORTS[begin:], *_PORTS[:begin]))


_candidates = _walk()


def free_port() -> int:
    """One where nobody listens, and that nobody here was given before."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """`count` such. Raises OSError when there are none left."""
    free = (port for port in itertools.islice(_candidates, len(_PORTS)) if _is_free(port))
    ports = list(itertools.islice(free, count))
    if len(ports) < count:
        raise OSError(f"no {count} ports of {_PORTS} are free")
    return ports


def free_address() -> str:
    """ "127.0.0.1:PORT" of such a port."""
    return f"127.0.0.1:{free_port()}"


def _is_free(port: int) -> bool:
    try:
        # Of any address: a proxy under test may listen on all.
        with socket.create_server(("", port)):
            return True
    except OSError:
        return False
