"""The fleet, or one app of it, at about one time: what `status` and `top` show."""

import asyncio
from dataclasses import dataclass
from typing import Any

from fleet.v1 import control_pb2, types_pb2
from fleetctl import views
from fleetctl.advice import app_advice, fleet_advice
from fleetctl.client.connection import Connection
from fleetctl.client.errors import NotFound
from fleetctl.usage import Snapshot, by_name


@dataclass(frozen=True, slots=True)
class Overview:
    """All that is asked for, at about one time."""

    apps: list[control_pb2.App]
    workers: list[types_pb2.WorkerStatus]
    hosts: list[control_pb2.Host]
    balancers: list[control_pb2.Balancer]
    notices: list[str]
    """Of the fleet as a whole."""

    def workers_of(self, app: control_pb2.App) -> list[types_pb2.WorkerStatus]:
        return [worker for worker in self.workers if worker.id.app == app.name]


def overview_view(fleet: Overview) -> dict[str, Any]:
    """The object -o json prints."""
    return {
        "apps": [
            {
                **views.app_view(app),
                "workers": [views.worker_view(worker) for worker in fleet.workers_of(app)],
                "next": app_advice(app, fleet.workers_of(app)),
            }
            for app in fleet.apps
        ],
        "hosts": [views.host_view(host) for host in fleet.hosts],
        "balancers": [views.balancer_view(balancer) for balancer in fleet.balancers],
        "notices": fleet.notices,
        "next": fleet_advice(fleet.hosts, fleet.balancers),
    }


async def overview(connection: Connection, app: str) -> Overview:
    """Raises FleetError, also for an app nobody knows."""
    apps = await connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest(app=app))
    chosen = [known for known in apps.apps if app in ("", known.name)]
    if app and not chosen:
        raise NotFound(f"there is no app {app!r}", "`fleetctl ls` shows the apps")
    workers, hosts, balancers, info = await asyncio.gather(
        connection.call(lambda stub: stub.ListWorkers, control_pb2.ListWorkersRequest(app=app)),
        connection.call(lambda stub: stub.ListHosts, control_pb2.ListHostsRequest()),
        connection.call(lambda stub: stub.ListBalancers, control_pb2.ListBalancersRequest()),
        connection.call(lambda stub: stub.GetInfo, control_pb2.GetInfoRequest()),
    )
    return Overview(
        sorted(chosen, key=lambda known: known.name),
        by_name(workers.workers),
        sorted(hosts.hosts, key=lambda host: host.name),
        sorted(balancers.balancers, key=lambda balancer: balancer.name),
        list(info.notices),
    )


async def snapshot_of(connection: Connection, app: str) -> Snapshot:
    """Raises FleetError, also for an app nobody knows."""
    apps, workers, hosts = await asyncio.gather(
        connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest(app=app)),
        connection.call(lambda stub: stub.ListWorkers, control_pb2.ListWorkersRequest(app=app)),
        connection.call(lambda stub: stub.ListHosts, control_pb2.ListHostsRequest()),
    )
    return Snapshot(
        tuple(sorted(hosts.hosts, key=lambda host: host.name)),
        tuple(sorted((known for known in apps.apps if app in ("", known.name)), key=lambda known: known.name)),
        tuple(workers.workers),
    )
