"""`rollout status`: how far an operation is, and a way to attach to one again."""

import asyncio

import click

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.command import fleet_command
from fleetctl.connection import Connection
from fleetctl.names import complete_apps
from fleetctl.operation import carry_out, newest_rollout
from fleetctl.output import Column, Output, state
from fleetctl.settings import Settings
from fleetctl.wording import duration

_HOST_COLUMNS = (Column("HOST"), Column("DONE", right=True), Column("DOING"))


@click.group("rollout")
def rollout() -> None:
    """Follow what is being done to an app."""


@fleet_command("status")
@click.argument("app", shell_complete=complete_apps)
@click.option("--watch", "-w", is_flag=True, help="Follow it to its end; the exit code is the operation's.")
def status(settings: Settings, app: str, watch: bool) -> None:  # noqa: FBT001
    """Show an app's newest rollout."""
    output = Output(settings)
    if watch:
        carry_out(settings, output, app, lambda connection: newest_rollout(connection, app), no_wait=False)
        return
    newest = asyncio.run(_fetch(settings, app))
    if settings.structured:
        output.document(views.rollout_view(newest))
    elif settings.quiet:
        output.names([views.rollout_state(newest)])
    else:
        show(output, newest)


rollout.add_command(status)


def show(output: Output, shown: control_pb2.Rollout) -> None:
    """A rollout in full."""
    output.line(
        (shown.app, "bold"),
        f"  {views.rollout_kind(shown)}  ",
        state(views.rollout_state(shown)),
        f"  {shown.steps_done}/{shown.steps}  {duration(shown.seconds)}  ",
        (f"revision {shown.revision}, generation {shown.generation}", "dim"),
    )
    if shown.message:
        output.paragraph(shown.message, style="yellow")
    if shown.hosts:
        rows = [(host.host, f"{host.steps_done}/{host.steps}", host.doing or "-") for host in shown.hosts]
        output.table(_HOST_COLUMNS, rows, indent=2)


async def _fetch(settings: Settings, app: str) -> control_pb2.Rollout:
    async with Connection.open(settings) as connection:
        return await newest_rollout(connection, app)
