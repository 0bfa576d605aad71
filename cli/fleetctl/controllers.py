"""`controller ls` and `controller remove`. Every controller is asked itself, so that `ls` works while none leads."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import click
from rich.text import Text

from fleet.v1 import control_pb2
from fleetctl.command import fleet_command
from fleetctl.connection import Connection
from fleetctl.errors import UnavailableError
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


@dataclass(slots=True)
class Seen:
    """One controller as it was found: what it answered, or why it did not."""

    address: str
    name: str = ""
    answer: control_pb2.Controller | None = None
    error: str = ""
    registered: list[control_pb2.RegisteredController] = field(default_factory=list)

    def view(self) -> dict[str, Any]:
        answer = self.answer or control_pb2.Controller()
        return {
            "name": answer.name or self.name,
            "address": answer.address or self.address,
            "leads": answer.leads,
            "leading_seconds": round(answer.leading_seconds, 3),
            "version": answer.version,
            "reachable": self.answer is not None,
            "etcd_ok": self.answer is not None and not answer.etcd_error,
            "error": self.error or answer.etcd_error,
        }


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
    """Every controller that is configured or registered, by name. Raises FleetError where none answers."""
    async with Connection.open(settings) as connection:
        seen = dict(await _ask(connection, connection.addresses))
        registered = {known.name: known for each in seen.values() for known in each.registered}
        met = {each.answer.name for each in seen.values() if each.answer is not None}
        more = {known.address: known.name for known in registered.values() if known.name not in met}
        seen.update(await _ask(connection, [address for address in more if address not in seen]))
        for address, name in more.items():
            seen[address].name = name
    if all(each.answer is None for each in seen.values()):
        tried = ", ".join(f"{each.address} ({each.error})" for each in seen.values())
        raise UnavailableError(f"no controller can be reached: {tried}")
    # One that is known by two addresses is shown once.
    by_name = {each.view()["name"] or address: each for address, each in seen.items()}
    return [by_name[name] for name in sorted(by_name)]


async def _ask(connection: Connection, addresses: Iterable[str]) -> list[tuple[str, Seen]]:
    addresses = list(addresses)
    return list(zip(addresses, await asyncio.gather(*(_ask_one(connection, each) for each in addresses)), strict=True))


async def _ask_one(connection: Connection, address: str) -> Seen:
    try:
        answer = await connection.ask_one(
            address, lambda stub: stub.ListControllers, control_pb2.ListControllersRequest()
        )
    except UnavailableError as error:
        return Seen(address, error=error.message)
    return Seen(address, answer=answer.answering, registered=list(answer.registered))


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
