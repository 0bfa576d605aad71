"""Which pools may have the route they ask for: pure."""

from collections.abc import Iterable, Mapping

from fleet_balancer.driver import Pool
from fleet_core.route import Register


def clashes(pools: Mapping[str, Pool], standing: Mapping[str, Pool]) -> dict[str, str]:
    """Why some of `pools` cannot have their route, by name: another pool has it. Who has it already keeps it."""
    refused: dict[str, str] = {}
    register = Register()
    for name in sorted(pools, key=lambda name: (not _keeps_places(pools[name], standing), name)):
        route = pools[name].route
        if route is not None and (refusal := register.enter(name, route.places)):
            refused[name] = refusal
    return refused


def clash(pool: Pool, others: Iterable[Pool]) -> str:
    """Why `pool` cannot have its route beside `others`; empty: it can."""
    register = Register()
    for other in others:
        if other.route is not None and other.name != pool.name:
            register.enter(other.name, other.route.places)
    return register.enter(pool.name, pool.route.places) if pool.route is not None else ""


def _keeps_places(pool: Pool, standing: Mapping[str, Pool]) -> bool:
    before = standing[pool.name].route if pool.name in standing else None
    return before is not None and pool.route is not None and before.places == pool.route.places
