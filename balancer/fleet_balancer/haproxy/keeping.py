"""For how long a worker that drains keeps the clients that stick to it: pure.

A pool with sticky sessions gives its draining workers nobody new, but those who hold their cookie go on coming, for
`sticky_drain_seconds` from the list that began the drain. Then the worker leaves the list, so that HAProxy cannot choose it for
anybody (its slot is in maintenance; what is in flight ends there), and its clients are sent elsewhere. Only from then on may it
be reported as having nothing in flight: invariant 7, a worker is stopped only after nobody chooses it.
"""

from collections.abc import Mapping

from fleet_balancer.driver import Pool, Target

Lists = dict[str, dict[Target, bool]]
"""By pool: its targets, and whether they drain."""


class Keeping:
    """`now` is of a clock that only goes forward."""

    def __init__(self) -> None:
        self._began: dict[tuple[str, Target], float] = {}
        self._ended: frozenset[tuple[str, Target]] = frozenset()
        """Of which HAProxy knows that they keep nobody any more."""

    def lists(self, pools: Mapping[str, Pool], now: float) -> Lists:
        """What HAProxy shall have: without those that kept their clients for long enough."""
        lists = {name: pool.targets() for name, pool in pools.items()}
        draining = {
            (name, target)
            for name, targets in lists.items()
            if pools[name].keeps_for
            for target, drains in targets.items()
            if drains
        }
        self._began = {key: self._began.get(key, now) for key in draining}
        for name, target in self._over(pools, now):
            del lists[name][target]
        return lists

    def stands(self, pools: Mapping[str, Pool], lists: Lists) -> None:
        """`lists`, made of `pools`, are true in HAProxy."""
        self._ended = frozenset(
            (name, target) for name, target in self._began if name in pools and target not in lists[name]
        )

    def keeps(self, pool: str, target: Target) -> bool:
        """Whether clients may still be sent there, as far as HAProxy knows."""
        return (pool, target) in self._began and (pool, target) not in self._ended

    def next_end(self, pools: Mapping[str, Pool]) -> float | None:
        """When `lists` will differ next; None: by itself never."""
        ends = [
            began + pools[name].keeps_for
            for (name, target), began in self._began.items()
            if name in pools and (name, target) not in self._ended
        ]
        return min(ends, default=None)

    def _over(self, pools: Mapping[str, Pool], now: float) -> list[tuple[str, Target]]:
        return [key for key, began in self._began.items() if now >= began + pools[key[0]].keeps_for]
