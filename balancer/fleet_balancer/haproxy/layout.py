"""What one HAProxy process is configured from, and the names of things in its configuration. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet_balancer.driver import Entrance, Route, Target
from fleet_balancer.haproxy.slots import Slot
from fleet_core.route import Protocol, TimeoutPolicy

BACKLOG = 4096
"""Connections that wait while no HAProxy accepts; Linux caps it at net.core.somaxconn."""
RESERVE_IDS = 100_000
"""A reserve's server id is its slot's number and this."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")
UNSAFE = f"!{{ method {' '.join(SAFE_METHODS)} }}"
USUAL_TIMEOUTS = TimeoutPolicy()
"""What every section has that says nothing else."""


@dataclass(frozen=True, slots=True)
class PoolLayout:
    """One pool in the configuration: how clients reach it, and its slots."""

    name: str
    route: Route
    slots: tuple[Slot, ...]
    health_path: str = ""
    cookie_key: str = ""
    """Makes the cookies of sticky sessions: the same at every balancer, and not for clients to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Everything in the configuration that differs from one process to the next."""

    socket: Path
    map: str
    """The file name of the map from hosts and paths to pools, beside the configuration."""
    certificates: str
    """The file name of the list of certificates, as `map`."""
    threads: int
    max_connections: int
    listeners: Mapping[Target, int]
    """The inherited descriptor of each address."""
    pools: tuple[PoolLayout, ...]
    access_log: int = 0
    """The inherited descriptor that raw lines of the access log are written to."""


def entrances(pools: Iterable[PoolLayout]) -> dict[Entrance, list[PoolLayout]]:
    """Which pools are reached through each entrance, both in a fixed order."""
    found: dict[Entrance, list[PoolLayout]] = {}
    for pool in sorted(pools, key=lambda pool: pool.name):
        for entrance in pool.route.entrances:
            found.setdefault(entrance, []).append(pool)
    return dict(sorted(found.items()))


def frontend(entrance: Entrance) -> str:
    """The name of an entrance's frontend; no app's name holds a colon, so it is never that of a backend."""
    return f"{entrance.protocol}-{entrance.address.address}:{entrance.address.port}"


def backends(pool: str) -> tuple[str, str]:
    """The names of a pool's two backends, the one whose servers' state is set first."""
    return f"{pool}.replay", f"{pool}.once"


def reserve_backend(pool: str) -> str:
    """The backend that checks the reserves of a pool with a health path."""
    return f"{pool}.tcp"


def server_name(number: int, *, reserve: bool = False) -> str:
    return f"r{number}" if reserve else f"s{number}"


def server_id(number: int, *, reserve: bool = False) -> int:
    return RESERVE_IDS + number if reserve else number


def plain_tcp(route: Route) -> bool:
    """It is reached by TCP, and so by nothing else."""
    return any(one.protocol is Protocol.TCP for one in route.entrances)


def rate_table(pool: str) -> str:
    """The name of the backend that only counts the requests of each client."""
    return f"{pool}.rate"


def limited(pool: PoolLayout) -> bool:
    """Its workers get so many requests at a time: then all go through one backend, whose servers count them."""
    return pool.route.policy.max_connections > 0


def milliseconds(seconds: float) -> str:
    """As HAProxy writes it, and at least one: 0 would be for ever."""
    return f"{max(1, round(seconds * 1000))}ms"


def quoted(text: Path | str) -> str:
    r"""For use inside double quotes, where \, " and $ have a meaning (Configuration Manual §2.2)."""
    text = str(text)
    for special in ("\\", '"', "$"):
        text = text.replace(special, f"\\{special}")
    return text
