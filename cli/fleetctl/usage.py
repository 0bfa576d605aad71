"""What workers use, together and in order: what `top` knows. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fleet.v1 import control_pb2, types_pb2
from fleetctl import views


class Order(Enum):
    """By what workers are sorted, and the heading of that column; the key is the word's first letter."""

    CPU = "CPU"
    MEMORY = "MEMORY"
    UPTIME = "UPTIME"
    RESTARTS = "RESTARTS"
    NAME = "WORKER"

    @property
    def key(self) -> str:
        return self.name[0].lower()


@dataclass(frozen=True, slots=True)
class Usage:
    """What several workers use together: memory in bytes, per cent of one core."""

    cpu_percent: float
    rss_bytes: int
    restarts: int
    workers: int

    @classmethod
    def of(cls, workers: Iterable[types_pb2.WorkerStatus]) -> "Usage":
        chosen = list(workers)
        return cls(
            sum(worker.cpu_percent for worker in chosen),
            sum(worker.rss_bytes for worker in chosen),
            sum(worker.restarts for worker in chosen),
            sum(worker.pid > 0 for worker in chosen),
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fleet, or one app of it, at about one time."""

    hosts: tuple[control_pb2.Host, ...]
    apps: tuple[control_pb2.App, ...]
    workers: tuple[types_pb2.WorkerStatus, ...]

    def by_host(self) -> dict[str, Usage]:
        """Of every host, also of those without workers."""
        return _usages(self.workers, [host.name for host in self.hosts], lambda worker: worker.id.host)

    def by_app(self) -> dict[str, Usage]:
        """Of every app, also of those without workers."""
        return _usages(self.workers, [app.name for app in self.apps], lambda worker: worker.id.app)


def ordered(workers: Iterable[types_pb2.WorkerStatus], order: Order) -> list[types_pb2.WorkerStatus]:
    """The most interesting first: what uses most, has lived shortest, was restarted most; equals stand by name."""
    keys: dict[Order, Callable[[types_pb2.WorkerStatus], float]] = {
        # As it is shown: noise behind the point would make lines change places.
        Order.CPU: lambda worker: -round(worker.cpu_percent, 1),
        Order.MEMORY: lambda worker: -(worker.rss_bytes >> 20),
        Order.UPTIME: lambda worker: worker.uptime_seconds if worker.pid else 0,
        Order.RESTARTS: lambda worker: -worker.restarts,
        Order.NAME: lambda _worker: 0,
    }
    return sorted(by_name(workers), key=keys[order])


def by_name(workers: Iterable[types_pb2.WorkerStatus]) -> list[types_pb2.WorkerStatus]:
    """By app, host, slot and generation."""
    return sorted(workers, key=lambda worker: (worker.id.app, worker.id.host, worker.id.slot, worker.id.generation))


def snapshot_view(snapshot: Snapshot, order: Order) -> dict[str, Any]:
    """The object -o json prints."""
    hosts, apps = snapshot.by_host(), snapshot.by_app()
    return {
        "hosts": [{**views.host_view(host), **_usage_view(hosts[host.name])} for host in snapshot.hosts],
        "apps": [{**views.app_view(app), **_usage_view(apps[app.name])} for app in snapshot.apps],
        "workers": [views.worker_view(worker) for worker in ordered(snapshot.workers, order)],
    }


def _usage_view(usage: Usage) -> dict[str, Any]:
    return {"cpu_percent": round(usage.cpu_percent, 1), "rss_bytes": usage.rss_bytes, "restarts": usage.restarts}


def _usages(
    workers: Iterable[types_pb2.WorkerStatus], names: Sequence[str], name_of: Callable[[types_pb2.WorkerStatus], str]
) -> dict[str, Usage]:
    chosen: dict[str, list[types_pb2.WorkerStatus]] = {name: [] for name in names}
    for worker in workers:
        # A host or an app may have gone between two answers.
        chosen.setdefault(name_of(worker), []).append(worker)
    return {name: Usage.of(group) for name, group in chosen.items()}
