"""Asks for what a fleet file is compared with."""

from collections.abc import Collection

from fleet.v1 import control_pb2
from fleetctl.apply_outcome import Present
from fleetctl.client.connection import Connection


async def fetch_present(connection: Connection, unsent: Collection[str] = ()) -> Present:
    """The apps and hosts there are; of the digests `unsent`, which the controllers lack. Raises FleetError."""
    apps = await connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest())
    hosts = await connection.call(lambda stub: stub.ListHosts, control_pb2.ListHostsRequest())
    missing: set[str] = set()
    for digest in unsent:
        request = control_pb2.GetArtifactRequest(digest=digest)
        if not (await connection.call(lambda stub: stub.GetArtifact, request)).complete:
            missing.add(digest)
    return Present(list(apps.apps), list(hosts.hosts), frozenset(missing))
