"""Which pools may have the route they ask for: pure."""

from collections.abc import Iterable, Mapping

from fleet_balancer.driver import EVERY_ADDRESS, Pool, Target


def clashes(pools: Mapping[str, Pool], standing: Mapping[str, Pool]) -> dict[str, str]:
    """Why some of `pools` cannot have their route, by name: another pool has it. Who has it already keeps it."""
    refused: dict[str, str] = {}
    taken: dict[str, Target] = {}
    for name in sorted(pools, key=lambda name: (not _keeps_route(pools[name], standing), name)):
        route = pools[name].route
        if route is None:
            continue
        holder = next((other for other, address in taken.items() if _overlap(route, address)), None)
        if holder is not None:
            refused[name] = f"{route} is the route of {holder} already: give {name} another address"
        else:
            taken[name] = route
    return refused


def clash(pool: Pool, others: Iterable[Pool]) -> str:
    """Why `pool` cannot have its route beside `others`; empty: it can."""
    for other in others:
        if pool.route and other.route and other.name != pool.name and _overlap(pool.route, other.route):
            return f"{pool.route} is the route of {other.name} already: give {pool.name} another address"
    return ""


def _keeps_route(pool: Pool, standing: Mapping[str, Pool]) -> bool:
    return pool.name in standing and standing[pool.name].route == pool.route


def _overlap(one: Target, other: Target) -> bool:
    if one.port != other.port:
        return False
    return one.address == other.address or one.address in EVERY_ADDRESS or other.address in EVERY_ADDRESS
