"""`balancer ls`, `balancer upstreams` and `balancer remove`."""

import asyncio

import click
from rich.text import Text

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.command import fleet_command
from fleetctl.connection import Connection
from fleetctl.names import complete_apps, complete_balancers
from fleetctl.operation import new_request_id
from fleetctl.output import Column, Output, state
from fleetctl.settings import Settings
from fleetctl.wording import duration

_BALANCER_COLUMNS = (
    Column("BALANCER"),
    Column("STATE"),
    Column("CURRENT", right=True),
    Column("DRIVER", rank=1),
    Column("VERSION", rank=2),
)
_ENDPOINT_COLUMNS = (Column("ENDPOINT"), Column("STATE"), Column("WORKER"), Column("GEN", right=True, rank=1))


@click.group("balancer")
def balancer() -> None:
    """The balancers and their upstream lists."""


@fleet_command("ls")
def ls(settings: Settings) -> None:
    """List the balancers, and how many upstream lists each has applied."""
    output = Output(settings)
    balancers = sorted(asyncio.run(_fetch_balancers(settings)), key=lambda balancer: balancer.name)
    if settings.structured:
        output.document([views.balancer_view(balancer) for balancer in balancers])
    elif settings.quiet:
        output.names(balancer.name for balancer in balancers)
    elif not balancers:
        output.line("no balancers are registered: fleet-balancer registers itself when it first connects")
    else:
        output.table(_BALANCER_COLUMNS, [_row(balancer) for balancer in balancers])
        for balancer in balancers:
            if balancer.error:
                output.note(f"{balancer.name} refused: {balancer.error}")
            for notice in balancer.notices:
                output.note(f"{balancer.name}: {notice}")


@fleet_command("upstreams")
@click.argument("app", required=False, default="", shell_complete=complete_apps)
def upstreams(settings: Settings, app: str) -> None:
    """Show where the balancers send requests, and who has applied it."""
    output = Output(settings)
    lists = sorted(asyncio.run(_fetch_upstreams(settings, app)), key=lambda upstream: upstream.pool)
    if settings.structured:
        output.document([views.upstream_view(upstream) for upstream in lists])
    elif settings.quiet:
        output.names(f"{endpoint.address}:{endpoint.port}" for upstream in lists for endpoint in upstream.endpoints)
    elif not lists:
        output.line(
            f"{app} has no upstream list: it has no route" if app else "no upstream lists yet: no app has a route"
        )
    else:
        for index, upstream in enumerate(lists):
            if index:
                output.line()
            _show(output, upstream)


@fleet_command("remove")
@click.argument("name", shell_complete=complete_balancers)
def remove(settings: Settings, name: str) -> None:
    """Forget a balancer that is gone for good: rollouts wait for it no more.

    If it runs on out of reach, the requests it sends to workers that were stopped meanwhile fail.
    """
    output = Output(settings)
    output.confirm(f"Forget {name}? If it still runs, what it sends to stopped workers fails.")
    request = control_pb2.RemoveBalancerRequest(request_id=new_request_id(), balancer=name)

    async def forget() -> None:
        async with Connection.open(settings) as connection:
            await connection.call(lambda stub: stub.RemoveBalancer, request, mutation=True)

    asyncio.run(forget())
    if settings.structured:
        output.document({"balancer": name, "state": "removed"})
    elif not settings.quiet:
        output.line((name, "bold"), " removed: rollouts wait for it no more")


balancer.add_command(ls)
balancer.add_command(remove)
balancer.add_command(upstreams)


def _row(balancer: control_pb2.Balancer) -> list[str | Text]:
    view = views.balancer_view(balancer)
    away = f" for {duration(int(balancer.absent_seconds))}" if balancer.absent_seconds >= 1 else ""
    behind = balancer.pools_current < balancer.pools
    return [
        balancer.name,
        Text(f"{view['state']}{away}", "red") if away else state(view["state"]),
        Text(f"{balancer.pools_current}/{balancer.pools}", "yellow" if behind else ""),
        f"{balancer.driver} {balancer.driver_version}".strip() or "-",
        balancer.version or "-",
    ]


def _show(output: Output, upstream: control_pb2.Upstream) -> None:
    acknowledged = ", ".join(
        f"{name} {'has it' if version == upstream.version else f'has version {version}'}"
        for name, version in sorted(upstream.acknowledged.items())
    )
    output.line(
        (upstream.pool, "bold"),
        f"  {views.route_words(upstream.route) or 'no route'}  version {upstream.version}  ",
        (acknowledged or "acknowledged by nobody yet", "" if acknowledged else "yellow"),
    )
    if not upstream.endpoints:
        output.line("  no endpoints: every request is answered 503")
        return
    output.table(
        _ENDPOINT_COLUMNS,
        [
            (
                f"{endpoint.address}:{endpoint.port}",
                state(views.endpoint_state(endpoint)),
                views.worker_name(endpoint.worker),
                str(endpoint.worker.generation),
            )
            for endpoint in upstream.endpoints
        ],
        indent=2,
    )


async def _fetch_balancers(settings: Settings) -> list[control_pb2.Balancer]:
    async with Connection.open(settings) as connection:
        request = control_pb2.ListBalancersRequest()
        return list((await connection.call(lambda stub: stub.ListBalancers, request)).balancers)


async def _fetch_upstreams(settings: Settings, app: str) -> list[control_pb2.Upstream]:
    async with Connection.open(settings) as connection:
        request = control_pb2.ListUpstreamsRequest(app=app)
        return list((await connection.call(lambda stub: stub.ListUpstreams, request)).upstreams)
