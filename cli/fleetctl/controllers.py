"""`controller ls` and `controller remove`. Every controller is asked itself, so that `ls` works while none leads."""

import asyncio

import click
from rich.text import Text

from fleet.v1 import control_pb2
from fleetctl.client.controllers import Seen, look
from fleetctl.command import fleet_command
from fleetctl.connection import Connection
from fleetctl.names import complete_controllers
from fleetctl.operation import new_request_id
from fleetctl.output import Column, Output
from fleetctl.settings import Settings
from fleetctl.wording import duration

_COLUMNS = (
    Column("CONTROLLER"),
    Column("STATE"),
    Column("ADDRESS"),
    Column("ETCD"),
    Column("VERSION", rank=1),
)


@click.group("controller")
def controller() -> None:
    """The controllers: who leads, who can be reached, whom etcd answers."""


@fleet_command("ls")
def ls(settings: Settings) -> None:
    """List the controllers.

    Asks each one that the context or -C names, and each one registered in etcd, also while none of them leads.
    """
    output = Output(settings)
    seen = asyncio.run(_look(settings))
    if settings.structured:
        output.document([each.view() for each in seen])
        return
    if settings.quiet:
        output.names(each.view()["name"] or each.address for each in seen)
        return
    output.table(_COLUMNS, [_row(each) for each in seen])
    for each in seen:
        if each.error or (each.answer is not None and each.answer.etcd_error):
            output.note(f"{each.view()['name'] or each.address}: {each.view()['error']}")
    if not any(each.view()["leads"] for each in seen):
        output.note("no controller leads: what runs goes on, changes are refused until one does")


@fleet_command("remove")
@click.argument("name", shell_complete=complete_controllers)
def remove(settings: Settings, name: str) -> None:
    """Forget a controller that is gone for good; one that runs comes back with its next start."""
    output = Output(settings)
    output.confirm(f"Forget controller {name}?")
    request = control_pb2.RemoveControllerRequest(request_id=new_request_id(), controller=name)

    async def forget() -> None:
        async with Connection.open(settings) as connection:
            await connection.call(lambda stub: stub.RemoveController, request, mutation=True)

    asyncio.run(forget())
    if settings.structured:
        output.document({"controller": name, "state": "removed"})
    elif not settings.quiet:
        output.line((name, "bold"), " removed")


controller.add_command(ls)
controller.add_command(remove)


async def _look(settings: Settings) -> list[Seen]:
    async with Connection.open(settings) as connection:
        return await look(connection)


def _row(seen: Seen) -> list[str | Text]:
    view = seen.view()
    if seen.answer is None:
        state, etcd = Text("unreachable", "red"), Text("-")
    else:
        state = (
            Text(f"leads for {duration(int(view['leading_seconds']))}", "green") if view["leads"] else Text("follows")
        )
        etcd = Text("ok") if view["etcd_ok"] else Text("no answer", "red")
    return [view["name"] or "-", state, view["address"], etcd, view["version"] or "-"]
