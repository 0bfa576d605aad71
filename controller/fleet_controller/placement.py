"""Where workers go. Pure: values in, values out."""

import heapq
from collections.abc import Collection, Mapping


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
