"""`host ls`."""

import asyncio

import click

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.command import fleet_command
from fleetctl.connection import Connection
from fleetctl.output import Column, Output, state
from fleetctl.settings import Settings

_COLUMNS = (
    Column("HOST"),
    Column("STATE"),
    Column("CPUS", right=True, rank=2),
    Column("WORKERS", right=True),
    Column("ADDRESS", rank=1),
    Column("AGENT", rank=4),
    Column("LABELS", rank=3),
)


@click.group("host")
def host() -> None:
    """The hosts."""


@fleet_command("ls")
def ls(settings: Settings) -> None:
    """List the hosts."""
    output = Output(settings)
    hosts = sorted(asyncio.run(_fetch(settings)), key=lambda host: host.name)
    if settings.structured:
        output.document([views.host_view(host) for host in hosts])
    elif settings.quiet:
        output.names(host.name for host in hosts)
    elif not hosts:
        output.line("no hosts yet: fleetctl up --hosts 3 starts a fleet on this machine")
    else:
        output.table(
            _COLUMNS,
            [
                (
                    host.name,
                    state(views.host_state(host)),
                    str(host.cpus),
                    str(host.workers),
                    host.address or "-",
                    host.agent_version or "-",
                    " ".join(f"{key}={value}" for key, value in sorted(host.labels.items())) or "-",
                )
                for host in hosts
            ],
        )


host.add_command(ls)


async def _fetch(settings: Settings) -> list[control_pb2.Host]:
    async with Connection.open(settings) as connection:
        return list((await connection.call(lambda stub: stub.ListHosts, control_pb2.ListHostsRequest())).hosts)
