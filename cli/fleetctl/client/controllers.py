"""Every controller is asked itself, so that they can be seen while none leads."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fleet.v1 import control_pb2
from fleetctl.client.connection import Connection
from fleetctl.client.errors import UnavailableError


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


async def look(connection: Connection) -> list[Seen]:
    """Every controller that is configured or registered, by name. Raises FleetError where none answers."""
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
