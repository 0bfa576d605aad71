"""The frontends, one for each entrance: which app a request is for. Pure.

An entrance of one app that takes every host and path leads there without looking. All others look into a map of
"FRONTEND|HOST/PATH/", up to three times: with the host, with "*" in place of its first label, and with no host. `map_beg` finds
the longest key that what was asked begins with (a prefix tree), and both end in a slash, so that the longest path wins and
prefixes end where a segment ends. So the work for a request does not grow with the number of apps.
"""

from collections.abc import Iterable, Sequence

from fleet_balancer.driver import Entrance
from fleet_balancer.haproxy.access import log_lines, logged
from fleet_balancer.haproxy.layout import (
    UNSAFE,
    USUAL_TIMEOUTS,
    Layout,
    PoolLayout,
    backends,
    entrances,
    frontend,
    limited,
    milliseconds,
)
from fleet_core.route import Protocol

_WORDS = 30
"""Names on a line: HAProxy reads at most 64 words."""
_POOL = "var(txn.pool)"
_FOUND = f"{{ {_POOL} -m found }}"


def frontends(layout: Layout) -> Iterable[str]:
    for entrance, pools in entrances(layout.pools).items():
        yield f"frontend {frontend(entrance)}"
        yield from _bind(layout, entrance)
        yield from _client_timeout(pools)
        yield from log_lines(pools, layout.access_log, _app(pools), tcp=entrance.protocol is Protocol.TCP)
        if entrance.protocol is Protocol.TCP:
            yield "    mode tcp"
            yield f"    default_backend {backends(pools[0].name)[0]}"
        elif _unconditional(pools):
            replay, once = backends(pools[0].name)
            if not limited(pools[0]):
                yield f"    use_backend {once} if {UNSAFE}"
            yield f"    default_backend {replay}"
        else:
            yield from _found_pool(layout, entrance, pools)
            replay, once = backends(f"%[{_POOL}]")
            if counted := [pool.name for pool in pools if limited(pool)]:
                yield from _is_one_of("counted", counted)
                yield f"    use_backend {replay} if counted"
            yield f"    use_backend {once} if {UNSAFE}"
            yield f"    use_backend {replay}"
        yield ""


def map_lines(pools: Iterable[PoolLayout]) -> Iterable[str]:
    """The file that the frontends look into: a key and the pool's name on each line."""
    for entrance, reached in entrances(pools).items():
        if not _unconditional(reached):
            for pool in reached:
                for host, path in sorted(pool.route.matches):
                    yield f"{_key(entrance)}{host}{path} {pool.name}"


def _bind(layout: Layout, entrance: Entrance) -> Iterable[str]:
    bind = f"    bind fd@{layout.listeners[entrance.address]}"
    if entrance.protocol is Protocol.HTTPS:
        bind += f" ssl crt-list {layout.certificates} ssl-min-ver TLSv1.2 alpn h2,http/1.1"
    yield bind


def _client_timeout(pools: Iterable[PoolLayout]) -> Iterable[str]:
    """Known before the app is: the most patient one's."""
    longest = max(pool.route.policy.timeouts.client_seconds for pool in pools)
    if longest != USUAL_TIMEOUTS.client_seconds:
        yield f"    timeout client {milliseconds(longest)}"


def _is_one_of(condition: str, pools: Sequence[str]) -> Iterable[str]:
    for start in range(0, len(pools), _WORDS):
        yield f"    acl {condition} {_POOL} -m str {' '.join(pools[start : start + _WORDS])}"


def _app(pools: Sequence[PoolLayout]) -> str:
    """In a line of the access log."""
    return pools[0].name if _unconditional(pools) else f"%[{_POOL}]"


def _unconditional(pools: Sequence[PoolLayout]) -> bool:
    """One app takes everything."""
    return len(pools) == 1 and ("", "/") in pools[0].route.matches


def _key(entrance: Entrance) -> str:
    return f"{frontend(entrance)}|"


def _found_pool(layout: Layout, entrance: Entrance, pools: Sequence[PoolLayout]) -> Iterable[str]:
    hosts = {host for pool in pools for host, _ in pool.route.matches}
    yield "    http-request set-var(txn.host) req.hdr(host),host_only,lower"
    yield "    http-request set-var(txn.path) path"
    if any(host and not host.startswith("*") for host in hosts):
        yield _look_up(layout, entrance, "concat(,txn.host),")
    if any(host.startswith("*") for host in hosts):
        yield f"    http-request set-var(txn.wild) var(txn.host),regsub(^[^.]*,*) if !{_FOUND}"
        yield f"{_look_up(layout, entrance, 'concat(,txn.wild),')} if !{_FOUND}"
    if "" in hosts:
        yield f"{_look_up(layout, entrance, '')} if !{_FOUND}"
    names = [pool.name for pool in pools if logged(pool.route.policy)]
    if names:
        yield from _is_one_of("logged", names)
        yield "    http-request set-log-level silent if !logged"
    text = "No app is reached by this host and path.\\n"
    yield f'    http-request return status 404 content-type "text/plain" string "{text}" if !{_FOUND}'


def _look_up(layout: Layout, entrance: Entrance, host: str) -> str:
    return f"    http-request set-var(txn.pool) str({_key(entrance)}),{host}concat(,txn.path,/),map_beg({layout.map})"
