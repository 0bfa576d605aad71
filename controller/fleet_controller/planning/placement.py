"""Where workers go. Pure: values in, values out."""

import heapq
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from fleet_controller.records import Scheduling

MAX_WORKERS_PER_HOST = 1_000


@dataclass(frozen=True, slots=True)
class HostFact:
    """What placement may know of a host."""

    name: str
    cpus: int
    online: bool
    scheduling: Scheduling = Scheduling.OPEN
    labels: Mapping[str, str] = field(default_factory=dict)
    lost_since: float | None = None
    """The leader's time since which it was not heard of; None while it is online."""
    workers_left: int = 0
    """Workers that lived on a lost host when it was last heard of in this term."""
    written_at: int = 0
    """The store's revision at which the host's record was last written."""

    def has(self, labels: Mapping[str, str]) -> bool:
        return all(self.labels.get(key) == value for key, value in labels.items())

    def takes(self, labels: Mapping[str, str]) -> bool:
        """It may be given new workers of an app that asks for these labels."""
        return self.online and self.scheduling is Scheduling.OPEN and self.has(labels)


def spread(total: int, hosts: Collection[str], present: Mapping[str, int]) -> dict[str, int]:
    """Spread `total` workers evenly over `hosts`, moving as few as possible.

    Evenly: no two hosts differ by more than one. Of the even spreads, the one returned takes the fewest workers away from
    hosts that have them: the odd ones go to where most run at present. Hosts with none are left out of the result.
    Raises ValueError when there is something to place and no host.
    """
    if total < 0:
        raise ValueError(f"size {total} is negative")
    if not hosts:
        if total:
            raise ValueError("there is no host to place workers on")
        return {}
    share, odd = divmod(total, len(hosts))
    by_present = sorted(hosts, key=lambda host: (-present.get(host, 0), host))
    placement = {host: share + (1 if index < odd else 0) for index, host in enumerate(by_present)}
    return {host: placement[host] for host in sorted(placement) if placement[host]}


def with_host(present: Mapping[str, int], host: str, count: int) -> dict[str, int]:
    """The present spread, but `count` workers on `host`."""
    if count < 0:
        raise ValueError(f"size {count} is negative")
    placement = {**present, host: count}
    return {name: placement[name] for name in sorted(placement) if placement[name]}


def without(
    present: Mapping[str, int], leaving: Collection[str], taking: Collection[str], load: Mapping[str, int]
) -> dict[str, int]:
    """The present spread with the shares of the hosts `leaving` given to the hosts `taking`; nothing else moves.

    One worker after the other goes to where fewest of the app are, then to where `load` (workers of all apps by host) is
    least, so that no host that got one has two more than another. Raises ValueError when there is something to move and no host.
    """
    placement = {host: count for host, count in present.items() if host not in leaving}
    moving = sum(present.values()) - sum(placement.values())
    if moving and not taking:
        raise ValueError("there is no host to move workers to")
    if set(leaving) & set(taking):
        raise ValueError("a host both leaves and takes")
    queue = [(placement.get(host, 0), load.get(host, 0), host) for host in taking]
    heapq.heapify(queue)
    for _ in range(moving):
        count, loaded, host = queue[0]
        placement[host] = count + 1
        heapq.heapreplace(queue, (count + 1, loaded + 1, host))
    return {host: placement[host] for host in sorted(placement) if placement[host]}


def moved(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Host → how many slots start or stop there."""
    differences = {host: abs(after.get(host, 0) - before.get(host, 0)) for host in {*before, *after}}
    return {host: differences[host] for host in sorted(differences) if differences[host]}


def no_host(hosts: Mapping[str, HostFact], labels: Mapping[str, str]) -> str:
    """Why none takes workers, in words."""
    online = [fact for fact in hosts.values() if fact.online]
    if not online:
        return "no host is online: `fleetctl host ls` shows them"
    if not any(fact.has(labels) for fact in online):
        wanted = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
        return f"no host that is online has the labels the app asks for ({wanted}): `fleetctl host ls` shows them"
    return "every host that is online is cordoned or draining: `fleetctl host uncordon HOST` opens one"
