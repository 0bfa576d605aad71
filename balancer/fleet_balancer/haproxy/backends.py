"""The backends of a pool. Pure.

`NAME.replay` takes requests of safe methods (RFC 9110 §9.2.1): they reuse pooled connections and are sent again when a connection
ends without an answer. `NAME.once` takes all others: each gets a fresh connection, so none can meet a pooled connection its
server is just closing, and none is ever sent twice; only a connection that could not be made is tried elsewhere. The servers of
`NAME.once` track those of `NAME.replay`, so a state is set once. See docs/adr/0002-haproxy-by-slots.md.

Where the app has a health path, the servers are asked for it, and each has a reserve: a backup server at the same address, used
only when every other one is hidden, and hidden itself only when it cannot be connected to. `NAME.tcp` holds the checks of the
reserves; no request ever goes there. See docs/adr/0012-checks-hide-and-never-empty-a-pool.md.

Where the route limits a worker's requests, `NAME.replay` gets them all, each with a fresh connection, and `NAME.once` none: two
backends would count for themselves.

What a route says of its requests (docs/adr/0018-routes.md) is one function for each setting, and the same in both backends.
"""

import re
from collections.abc import Iterable

from fleet_balancer.driver import Target
from fleet_balancer.haproxy.access import noted
from fleet_balancer.haproxy.layout import (
    UNSAFE,
    USUAL_TIMEOUTS,
    PoolLayout,
    backends,
    limited,
    milliseconds,
    plain_tcp,
    quoted,
    rate_table,
    reserve_backend,
    server_id,
    server_name,
)
from fleet_balancer.haproxy.pages import error_lines
from fleet_balancer.haproxy.slots import Slot, SlotState
from fleet_core.route import Forwarded, Protocol, RoutePolicy, TimeoutPolicy

_CONNECT_CHECK = "check inter 1s fastinter 250ms downinter 250ms fall 2 rise 1"
# A freeze is noticed within inter + timeout check < 3 s. One miss hides: what a mistake costs is 250 ms elsewhere.
_HTTP_CHECK = "check inter 1s fastinter 250ms downinter 250ms fall 1 rise 1"
_HTTP_CHECK_TIMEOUT = "1900ms"
_HTTPS_PORT = 443
_RESERVE_COOKIE = "none"
"""Reserves have no digest, which would be that of the server whose reserve they are, and nobody sticks to them."""
_CLIENTS = "100k"
"""Whose requests are counted at a time; the one that was not seen for longest makes room."""
_CACHE_MEGABYTES = 16
"""Of an app, in one process; an object has at most half."""
_COMPRESSED = (
    "text/html",
    "text/plain",
    "text/css",
    "text/csv",
    "text/xml",
    "text/javascript",
    "application/javascript",
    "application/json",
    "application/xml",
    "image/svg+xml",
)
"""Beginnings of Content-Type. Not text/event-stream: an event must not wait for others."""
_NOWHERE = Target("127.0.0.1", 1)


# A worker that died has the fewest connections, so leastconn would choose it for every retry: one refused connection hides it
# until a check, at most 250 ms later, finds it alive.
_REFUSING_HIDES = "    default-server observe layer4 error-limit 1 on-error mark-down"


def pool_backends(pool: PoolLayout) -> Iterable[str]:
    if plain_tcp(pool.route):
        yield from _tcp_backends(pool)
        return
    yield from _rate_table(pool)
    yield from _cache_section(pool)
    replay, once = backends(pool.name)
    yield f"backend {replay}"
    yield from _settings(pool)
    yield from _limit(pool) if limited(pool) else ("    http-reuse always",)
    yield "    retry-on conn-failure empty-response"
    yield "    default-server pool-purge-delay 500ms"
    # Before the checks, which are not for them: a server that tracks another has none of its own.
    yield from _reserves(pool)
    yield from _check(pool)
    yield _REFUSING_HIDES
    yield from _slow_start(pool.route.policy)
    yield from _servers(pool)
    yield ""
    yield f"backend {once}"
    yield from _settings(pool)
    yield "    option http-server-close"
    yield "    http-reuse never"
    yield "    retry-on conn-failure"
    yield "    http-request disable-l7-retry"
    yield from _slow_start(pool.route.policy)
    for slot in pool.slots:
        yield f"    server {_server(slot)} track {replay}/{server_name(slot.number)}"
    yield from _reserves(pool)
    yield ""
    if pool.health_path:
        yield f"backend {reserve_backend(pool.name)}"
        yield f"    default-server {_CONNECT_CHECK}"
        yield from _servers(pool, reserve=True)
        yield ""


def _tcp_backends(pool: PoolLayout) -> Iterable[str]:
    """Everything through one; the other is there because every pool has the same copies of each slot."""
    replay, once = backends(pool.name)
    yield f"backend {replay}"
    yield "    mode tcp"
    yield from _timeouts(pool.route.policy.timeouts)
    if limited(pool):
        yield f"    default-server maxconn {pool.route.policy.max_connections}"
    yield f"    default-server {_CONNECT_CHECK}"
    yield _REFUSING_HIDES
    yield from _slow_start(pool.route.policy)
    yield from _servers(pool)
    yield ""
    yield f"backend {once}"
    yield "    mode tcp"
    for slot in pool.slots:
        yield f"    server {_server(slot)} track {replay}/{server_name(slot.number)}"
    yield ""


def _settings(pool: PoolLayout) -> Iterable[str]:
    """What the route says of every request, in the order in which it is done."""
    yield from error_lines(pool.route.policy)
    yield from noted(pool.route.policy)
    yield from _rate_limit(pool)
    yield from _redirect(pool.route.policy)
    yield from _cache(pool)
    yield from _compression(pool.route.policy)
    yield from _forwarded(pool.route.policy)
    yield from _strip_path(pool.route.policy)
    yield from _sticky(pool)
    yield from _queue(pool)
    yield from _timeouts(pool.route.policy.timeouts)


def _slow_start(policy: RoutePolicy) -> Iterable[str]:
    if policy.slow_start_seconds:
        yield f"    default-server slowstart {milliseconds(policy.slow_start_seconds)}"


def _rate_table(pool: PoolLayout) -> Iterable[str]:
    if pool.route.policy.rate_limit.requests:
        period = pool.route.policy.rate_limit.per_seconds
        yield f"backend {rate_table(pool.name)}"
        kept = milliseconds(2 * period)
        yield f"    stick-table type ipv6 size {_CLIENTS} expire {kept} store http_req_rate({milliseconds(period)})"
        yield ""


def _rate_limit(pool: PoolLayout) -> Iterable[str]:
    if pool.route.policy.rate_limit.requests:
        yield f"    http-request track-sc0 src table {rate_table(pool.name)}"
        too_many = f"{{ sc_http_req_rate(0) gt {pool.route.policy.rate_limit.requests} }}"
        yield f"    http-request deny deny_status 429 if {too_many}"


def _cache_section(pool: PoolLayout) -> Iterable[str]:
    cache = pool.route.policy.cache
    if cache.max_age_seconds:
        yield f"cache {pool.name}"
        yield f"    total-max-size {_CACHE_MEGABYTES}"
        yield f"    max-object-size {cache.max_object_bytes}"
        yield f"    max-age {int(cache.max_age_seconds)}"
        yield ""


def _cache(pool: PoolLayout) -> Iterable[str]:
    """What is for one client is not kept, even where the app forgets to say so."""
    if pool.route.policy.cache.max_age_seconds:
        yield f"    http-request cache-use {pool.name}"
        yield f"    http-response cache-store {pool.name} if !{{ res.hdr(set-cookie) -m found }}"


def _compression(policy: RoutePolicy) -> Iterable[str]:
    if policy.compression:
        yield "    compression algo gzip"
        yield f"    compression type {' '.join(_COMPRESSED)}"


def _redirect(policy: RoutePolicy) -> Iterable[str]:
    if policy.redirect_https:
        _, port = policy.addresses[Protocol.HTTPS]
        place = f"https://%[req.hdr(host),host_only]{'' if port == _HTTPS_PORT else f':{port}'}%[pathq]"
        yield "    http-request deny deny_status 400 if !{ ssl_fc } !{ req.hdr(host) -m found }"
        yield f"    http-request redirect code 308 location {place} if !{{ ssl_fc }}"


def _forwarded(policy: RoutePolicy) -> Iterable[str]:
    if policy.forwarded is Forwarded.OFF:
        return
    facts = {"X-Forwarded-Proto": "%[ssl_fc,iif(https,http)]", "X-Forwarded-Host": "%[req.hdr(host)]"}
    if policy.forwarded is Forwarded.APPEND:
        yield "    http-request add-header X-Forwarded-For %[src]"
        for name, fact in facts.items():
            yield f"    http-request set-header {name} {fact} if !{{ req.hdr({name}) -m found }}"
        return
    yield "    http-request del-header Forwarded"
    for name, fact in {"X-Forwarded-For": "%[src]", **facts}.items():
        yield f"    http-request set-header {name} {fact}"


def _sticky(pool: PoolLayout) -> Iterable[str]:
    """A cookie with a keyed digest of the worker's address, not with its slot (Configuration Manual §4.2, dynamic-cookie-key)."""
    policy = pool.route.policy
    if policy.sticky:
        secure = " secure" if policy.https and (policy.redirect_https or not policy.http) else ""
        yield f"    cookie {_cookie(pool)} insert indirect nocache httponly{secure} attr SameSite=Lax dynamic"
        yield f"    dynamic-cookie-key {pool.cookie_key}"
        if pool.health_path:
            # Not by ignore-persist, after which no cookie would be given either: a value that nobody has is replaced.
            replaced = f"'(^|[; ]){_cookie(pool)}={_RESERVE_COOKIE}' '\\1{_cookie(pool)}=-'"
            yield f"    http-request replace-header Cookie {replaced} if {{ req.cook({_cookie(pool)}) {_RESERVE_COOKIE} }}"


def _limit(pool: PoolLayout) -> Iterable[str]:
    """For the one backend that gets every request: so the limit is one, and those of unsafe methods are safe here too."""
    yield f"    default-server maxconn {pool.route.policy.max_connections}"
    yield "    option http-server-close"
    yield "    http-reuse never"
    yield f"    http-request disable-l7-retry if {UNSAFE}"


def _queue(pool: PoolLayout) -> Iterable[str]:
    policy = pool.route.policy
    if policy.max_queue:
        full = f"{{ queue ge {policy.max_queue} }}"
        if 503 in policy.error_pages:
            yield f"    http-request deny deny_status 503 if {full}"
            return
        text = "Too many requests are waiting.\\n"
        yield f'    http-request return status 503 content-type "text/plain" string "{text}" hdr Retry-After 1 if {full}'


def _timeouts(timeouts: TimeoutPolicy) -> Iterable[str]:
    """Those of a backend that are not what every section has."""
    for name in ("connect", "queue", "server", "tunnel"):
        seconds = getattr(timeouts, f"{name}_seconds")
        if seconds != getattr(USUAL_TIMEOUTS, f"{name}_seconds"):
            yield f"    timeout {name} {milliseconds(seconds)}"


def _cookie(pool: PoolLayout) -> str:
    """Its name: apps on one host must not overwrite each other's."""
    return f"fleet-{pool.name}"


def _strip_path(policy: RoutePolicy) -> Iterable[str]:
    if policy.strip_path and set(policy.paths) != {"/"}:
        prefixes = sorted({path.rstrip("/") for path in policy.paths} - {""}, key=lambda path: (-len(path), path))
        # Inside single quotes nothing has a meaning (Configuration Manual §2.2), and no path holds one.
        yield f"    http-request replace-path '^({'|'.join(map(re.escape, prefixes))})(/(.*))?$' '/\\3'"


def _check(pool: PoolLayout) -> Iterable[str]:
    if not pool.health_path:
        yield f"    default-server {_CONNECT_CHECK}"
        return
    yield "    option httpchk"
    path = quoted(pool.health_path)
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
            cookie = f" cookie {_RESERVE_COOKIE}" if pool.route.policy.sticky else ""
            yield f"    server {_server(slot, reserve=True)} backup{cookie} track {checked}"


def _server(slot: Slot, *, reserve: bool = False) -> str:
    name, identifier = server_name(slot.number, reserve=reserve), server_id(slot.number, reserve=reserve)
    return f"{name} {slot.target or _NOWHERE} id {identifier}"
