"""The configuration file of one HAProxy process, rendered from values: pure.

Every pool has one frontend and two backends over the same slots. `NAME.replay` takes requests of safe methods (RFC 9110 §9.2.1):
they reuse pooled connections and are sent again when a connection ends without an answer. `NAME.once` takes all others: each
gets a fresh connection, so none can meet a pooled connection its server is just closing, and none is ever sent twice; only a
connection that could not be made is tried elsewhere. The servers of `NAME.once` track those of `NAME.replay`, so a state is set
once. See docs/adr/0002-haproxy-by-slots.md.

Where the app has a health path, the servers are asked for it, and each has a reserve: a backup server at the same address, used
only when every other one is hidden, and hidden itself only when it cannot be connected to. `NAME.tcp` holds the checks of the
reserves; no request ever goes there. See docs/adr/0012-checks-hide-and-never-empty-a-pool.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fleet_balancer.driver import Target
from fleet_balancer.haproxy.slots import Slot, SlotState

SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")
BACKLOG = 4096
"""Connections that wait while no HAProxy accepts; Linux caps it at net.core.somaxconn."""
RESERVE_IDS = 100_000
"""A reserve's server id is its slot's number and this."""
_CONNECT_CHECK = "check inter 1s fastinter 250ms downinter 250ms fall 2 rise 1"
# A freeze is noticed within inter + timeout check < 3 s. One miss hides: what a mistake costs is 250 ms elsewhere.
_HTTP_CHECK = "check inter 1s fastinter 250ms downinter 250ms fall 1 rise 1"
_HTTP_CHECK_TIMEOUT = "1900ms"
_NOWHERE = Target("127.0.0.1", 1)


@dataclass(frozen=True, slots=True)
class PoolLayout:
    """One pool in the configuration: the inherited descriptor it listens on, and its slots."""

    name: str
    listener: int
    slots: tuple[Slot, ...]
    health_path: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything in the configuration that differs from one process to the next."""

    socket: Path
    threads: int
    max_connections: int
    pools: tuple[PoolLayout, ...]


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


# A host that lost power answers nothing, not even TCP: a request that waits there ends after three unanswered probes, and data
# that nobody acknowledges after 3 s (tcp(7), TCP_USER_TIMEOUT). A worker that takes its time has a kernel that answers. The check
# hides such a host within inter + fastinter + 2 x timeout check < 3 s.
_DEFAULTS = f"""\
defaults
    mode http
    balance leastconn
    backlog {BACKLOG}
    timeout connect 1s
    timeout client 5m
    timeout server 5m
    timeout client-fin 30s
    timeout server-fin 30s
    timeout queue 10s
    timeout tunnel 1h
    timeout check 800ms
    option srvtcpka
    srvtcpka-idle 1s
    srvtcpka-intvl 1s
    srvtcpka-cnt 3
    default-server tcp-ut 3s
    timeout http-request 10s
    timeout http-keep-alive 60s
    retries 6
    option redispatch 1
    option forwardfor
    option http-no-delay
    option idle-close-on-response
    http-error status 503 content-type "text/plain" string "No worker is ready for this request.\\n" hdr Retry-After 1
"""


def render(layout: Layout) -> str:
    lines = [
        "global",
        f"    maxconn {layout.max_connections}",
        f"    nbthread {layout.threads}",
        f'    stats socket "{_quoted(layout.socket)}" mode 600 level admin',
        "    stats timeout 1d",
        "",
        _DEFAULTS,
    ]
    for pool in layout.pools:
        lines += _pool(pool)
    return "\n".join(lines) + "\n"


def _quoted(text: Path | str) -> str:
    r"""For use inside double quotes, where \, " and $ have a meaning (Configuration Manual §2.2)."""
    text = str(text)
    for special in ("\\", '"', "$"):
        text = text.replace(special, f"\\{special}")
    return text


def _pool(pool: PoolLayout) -> Iterable[str]:
    replay, once = backends(pool.name)
    yield f"frontend {pool.name}"
    yield f"    bind fd@{pool.listener}"
    yield f"    use_backend {once} if !{{ method {' '.join(SAFE_METHODS)} }}"
    yield f"    default_backend {replay}"
    yield ""
    yield f"backend {replay}"
    yield "    http-reuse always"
    yield "    retry-on conn-failure empty-response"
    yield "    default-server pool-purge-delay 500ms"
    # Before the checks, which are not for them: a server that tracks another has none of its own.
    yield from _reserves(pool)
    yield from _check(pool)
    # A worker that died has the fewest connections, so leastconn would choose it for every retry: one refused connection hides
    # it until a check, at most 250 ms later, finds it alive.
    yield "    default-server observe layer4 error-limit 1 on-error mark-down"
    yield from _servers(pool)
    yield ""
    yield f"backend {once}"
    yield "    option http-server-close"
    yield "    http-reuse never"
    yield "    retry-on conn-failure"
    yield "    http-request disable-l7-retry"
    for slot in pool.slots:
        yield f"    server {_server(slot)} track {replay}/{server_name(slot.number)}"
    yield from _reserves(pool)
    yield ""
    if pool.health_path:
        yield f"backend {reserve_backend(pool.name)}"
        yield f"    default-server {_CONNECT_CHECK}"
        yield from _servers(pool, reserve=True)
        yield ""


def _check(pool: PoolLayout) -> Iterable[str]:
    if not pool.health_path:
        yield f"    default-server {_CONNECT_CHECK}"
        return
    yield "    option httpchk"
    path = _quoted(pool.health_path)
    yield f'    http-check send meth GET uri "{path}" ver HTTP/1.1 hdr Host {pool.name} hdr User-Agent fleet-balancer'
    yield "    http-check expect status 200-399"
    yield f"    timeout check {_HTTP_CHECK_TIMEOUT}"
    yield f"    default-server {_HTTP_CHECK}"


def _servers(pool: PoolLayout, *, reserve: bool = False) -> Iterable[str]:
    for slot in pool.slots:
        yield f"    server {_server(slot, reserve=reserve)}{'' if slot.state is SlotState.ACTIVE else ' disabled'}"


def _reserves(pool: PoolLayout) -> Iterable[str]:
    if pool.health_path:
        yield "    option allbackups"
        for slot in pool.slots:
            checked = f"{reserve_backend(pool.name)}/{server_name(slot.number, reserve=True)}"
            yield f"    server {_server(slot, reserve=True)} backup track {checked}"


def _server(slot: Slot, *, reserve: bool = False) -> str:
    name, identifier = server_name(slot.number, reserve=reserve), server_id(slot.number, reserve=reserve)
    return f"{name} {slot.target or _NOWHERE} id {identifier}"
