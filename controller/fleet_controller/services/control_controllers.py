"""The calls of ControlService about controllers: the only ones that a controller answers which does not lead."""

from pydantic import ValidationError

from fleet.v1 import control_pb2
from fleet_controller.mutations import changes
from fleet_controller.mutations.changes import Refused
from fleet_controller.records import CONTROLLERS, ControllerRecord, Record, controller_key
from fleet_controller.services.control_desk import Desk
from fleet_controller.services.streams import Context, require_role
from fleet_controller.store.interface import Store, StoreError
from fleet_core.tls import Role
from fleet_core.version import program_version

_ETCD_SECONDS = 1.5
"""Less than fleetctl waits for one controller."""


class ControllerCalls:
    """The contract's names, as methods; see `control.proto` for what they promise."""

    def __init__(self, desk: Desk, store: Store) -> None:
        self._desk = desk
        self._store = store

    async def ls(
        self, _request: control_pb2.ListControllersRequest, context: Context
    ) -> control_pb2.ListControllersResponse:
        await require_role(context, Role.OPERATOR)
        leadership = self._desk.leadership
        registered, error = await self._registered()
        office = leadership.office
        leads = office is not None and office.term.provable()
        answering = control_pb2.Controller(
            name=leadership.name,
            address=leadership.address,
            version=program_version(),
            leads=leads,
            leading_seconds=round(office.age_seconds, 3) if office is not None and leads else 0.0,
            etcd_error=error,
            leader=leadership.address if leads else leadership.leader,
        )
        return control_pb2.ListControllersResponse(answering=answering, registered=registered)

    async def remove(
        self, request: control_pb2.RemoveControllerRequest, context: Context
    ) -> control_pb2.RemoveControllerResponse:
        office = await self._desk.office(context)
        name = request.controller

        def attempt() -> tuple[control_pb2.RemoveControllerResponse, list[tuple[str, Record | None]]]:
            if office.desired.get(controller_key(name), ControllerRecord) is None:
                raise Refused(changes.NOT_FOUND, f"no controller is named {name}: `fleetctl controller ls` shows them")
            if name == self._desk.leadership.name:
                raise Refused(changes.PRECONDITION, f"controller {name} leads: stop fleet-controller there first")
            return control_pb2.RemoveControllerResponse(), [(controller_key(name), None)]

        return await self._desk.commit(office, request.request_id, [controller_key(name)], attempt, context)

    async def _registered(self) -> tuple[list[control_pb2.RegisteredController], str]:
        """All, or why etcd does not tell."""
        try:
            items = (await self._store.read(CONTROLLERS, timeout=_ETCD_SECONDS)).items
            records = [ControllerRecord.decode(item.value) for item in items.values()]
        except (StoreError, ValidationError) as error:
            return [], " ".join(str(error).split())
        records.sort(key=lambda record: record.name)
        return [control_pb2.RegisteredController(name=record.name, address=record.address) for record in records], ""
