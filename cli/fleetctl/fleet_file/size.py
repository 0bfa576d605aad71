"""How many workers a file wants, and where. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fleetctl.fleet_file.reader import Reader
from fleetctl.fleet_file.tree import Items, Path_, Scalar, Table

MOST_WORKERS = 1_000_000
_PER_CORE = re.compile(r"cpu(?:-([1-9][0-9]{0,2}))?")


@dataclass(frozen=True, slots=True)
class PerCore:
    """One worker per core of each host, but `less` on each, and at least one."""

    less: int = 0

    def on(self, cpus: int) -> int:
        return max(1, cpus - self.less)


@dataclass(frozen=True, slots=True)
class Wanted:
    """`count` None: as many as there are; for a new app, one. At most one of `hosts` and `spread_over` says anything."""

    count: int | PerCore | None = None
    hosts: Mapping[str, int] | None = None
    """Host → workers there."""
    spread_over: tuple[str, ...] = ()
    """`count` workers, spread evenly over these hosts."""


NO_SIZE = Wanted()


def wanted_size(reader: Reader, table: Table, path: Path_) -> Wanted:
    """What was complained about is left out."""
    count = _count(reader, table, path) if "size" in table.entries else None
    hosts = table.entries.get("hosts")
    at = (*path, "hosts")
    if hosts is None:
        return Wanted(count)
    if isinstance(hosts, Table) and hosts.entries:
        if "size" in table.entries:
            reader.complain(table.keys.get("size"), (*path, "size"), "hosts says how many run on each: leave size out")
        return Wanted(hosts=_by_host(reader, hosts, at))
    names = hosts.items if isinstance(hosts, Items) else ()
    spread = tuple(item.text for item in names if isinstance(item, Scalar) and item.value is not None)
    if not spread or len(spread) < len(names):
        reader.complain(hosts.place, at, "write {host: workers, …}, or a list of hosts")
    elif len(set(spread)) < len(spread):
        reader.complain(hosts.place, at, "a host stands in it twice")
    elif count is None:
        reader.complain(hosts.place, at, "a list of hosts needs size: how many workers in all")
    return Wanted(count, spread_over=tuple(sorted(spread)))


def _count(reader: Reader, table: Table, path: Path_) -> int | PerCore | None:
    tree = table.entries["size"]
    text = tree.text if isinstance(tree, Scalar) else ""
    if match := _PER_CORE.fullmatch(text):
        return PerCore(int(match[1] or 0))
    value = tree.value if isinstance(tree, Scalar) else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_WORKERS:
        return value
    reader.complain(
        tree.place, (*path, "size"), "write a number of workers, or cpu for one per core (cpu-1: one less on each host)"
    )
    return None


def _by_host(reader: Reader, hosts: Table, path: Path_) -> dict[str, int]:
    counts: dict[str, int] = {}
    for host, tree in hosts.entries.items():
        value = tree.value if isinstance(tree, Scalar) else None
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_WORKERS:
            counts[host] = value
        else:
            reader.complain(tree.place, (*path, host), "write a number of workers")
    return counts
