"""The calls of ControlService that change hosts and balancers."""

from collections.abc import AsyncIterator, Callable

import grpc

from fleet.v1 import control_pb2
from fleet_controller.leadership import Office
from fleet_controller.mutations import changes, operations
from fleet_controller.mutations.changes import Refused
from fleet_controller.records import (
    AppRecord,
    BalancerRecord,
    HostRecord,
    Record,
    Scheduling,
    SizeMode,
    app_key,
    balancer_key,
    host_key,
)
from fleet_controller.services.control_desk import Desk
from fleet_controller.services.presentation import drain_message, host_message
from fleet_controller.services.streams import Context, abort
from fleet_core.ids import check_label

REQUESTS_REMEMBERED = 20
"""Per host. Whoever lost an answer asks again within seconds."""


class HostCalls:
    """The contract's names, as methods; see `control.proto` for what they promise."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def cordon(self, request: control_pb2.CordonHostRequest, context: Context) -> control_pb2.HostResponse:
        def decide(record: HostRecord) -> HostRecord:
            if request.cordoned and record.scheduling is not Scheduling.OPEN:
                return record
            scheduling = Scheduling.CORDONED if request.cordoned else Scheduling.OPEN
            return record.model_copy(update={"scheduling": scheduling})

        office = await self._desk.changing(context)
        return await self._change(office, request.request_id, request.host, decide, context)

    async def drain(self, request: control_pb2.DrainHostRequest, context: Context) -> control_pb2.HostResponse:
        office = await self._desk.changing(context)

        def decide(record: HostRecord) -> HostRecord:
            pinned = sorted(
                app.name
                for app in office.desired.all(AppRecord)
                if app.size_mode is SizeMode.PINNED and app.wanted(record.name)
            )
            if pinned and not request.allow_stopping_pinned:
                raise Refused(
                    changes.PRECONDITION,
                    f"{', '.join(pinned)}: pinned to {record.name}, so its workers there stop and nothing replaces them: "
                    "confirm it with --yes",
                )
            return record.model_copy(update={"scheduling": Scheduling.DRAINING})

        return await self._change(office, request.request_id, request.host, decide, context)

    async def watch_drain(
        self, request: control_pb2.WatchDrainRequest, context: Context
    ) -> AsyncIterator[control_pb2.WatchDrainResponse]:
        office = await self._desk.office(context)
        last: control_pb2.WatchDrainResponse | None = None
        async for _ in self._desk.passes(office, context):
            record = await self._desk.host(office, request.host, context)
            if record.scheduling is not Scheduling.DRAINING:
                text = f"host {record.name} is not being drained"
                await abort(context, grpc.StatusCode.FAILED_PRECONDITION, text)
            message = drain_message(office, record)
            if message != last:
                yield message
                last = message
            if message.drained:
                return

    async def label(self, request: control_pb2.LabelHostRequest, context: Context) -> control_pb2.HostResponse:
        def decide(record: HostRecord) -> HostRecord:
            for key, value in request.set.items():
                if not value:
                    raise Refused(
                        changes.INVALID, f"label {key} has no value: write {key}=VALUE, or {key}- to take it away"
                    )
                check_label(key, value)
            given = {key: value for key, value in record.given_labels.items() if key not in request.unset}
            given |= {key: "" for key in request.unset if key in record.agent_labels}
            return record.model_copy(update={"given_labels": {**given, **request.set}})

        office = await self._desk.changing(context)
        return await self._change(office, request.request_id, request.host, decide, context)

    async def remove(self, request: control_pb2.RemoveHostRequest, context: Context) -> control_pb2.RemoveHostResponse:
        office = await self._desk.changing(context)

        def attempt() -> tuple[control_pb2.RemoveHostResponse, list[tuple[str, Record | None]]]:
            record = office.desired.get(host_key(request.host), HostRecord)
            if record is None:
                raise Refused(changes.NOT_FOUND, f"no host is named {request.host}: `fleetctl host ls` shows them")
            host = office.hosts.get(record.name)
            if host is not None and host.outbox is not None:
                text = f"host {record.name} is connected: `fleetctl host drain {record.name}`, then stop its agent"
                raise Refused(changes.PRECONDITION, text)
            apps = operations.without_host(record.name, office.desired.all(AppRecord))
            writes: list[tuple[str, Record | None]] = [(app_key(app.name), app) for app in apps]
            return control_pb2.RemoveHostResponse(), [*writes, (host_key(record.name), None)]

        reads = [host_key(request.host), *(app_key(app.name) for app in office.desired.all(AppRecord))]
        answer = await self._desk.commit(office, request.request_id, reads, attempt, context)
        office.hosts.forget(request.host)
        office.conductor.touch()
        return answer

    async def remove_balancer(
        self, request: control_pb2.RemoveBalancerRequest, context: Context
    ) -> control_pb2.RemoveBalancerResponse:
        office = await self._desk.changing(context)

        def attempt() -> tuple[control_pb2.RemoveBalancerResponse, list[tuple[str, Record | None]]]:
            name = request.balancer
            if office.desired.get(balancer_key(name), BalancerRecord) is None:
                raise Refused(changes.NOT_FOUND, f"no balancer is named {name}: `fleetctl balancer ls` shows them")
            balancer = office.upstreams.balancers.get(name)
            if balancer is not None and balancer.outbox is not None:
                raise Refused(changes.PRECONDITION, f"balancer {name} is connected: stop fleet-balancer there first")
            return control_pb2.RemoveBalancerResponse(), [(balancer_key(name), None)]

        return await self._desk.commit(office, request.request_id, [balancer_key(request.balancer)], attempt, context)

    async def _change(
        self,
        office: Office,
        request_id: str,
        name: str,
        decide: Callable[[HostRecord], HostRecord],
        context: Context,
    ) -> control_pb2.HostResponse:
        def attempt() -> tuple[control_pb2.HostResponse, list[tuple[str, Record | None]]]:
            record = office.desired.get(host_key(name), HostRecord)
            if record is None:
                raise Refused(changes.NOT_FOUND, f"no host is named {name}: `fleetctl host ls` shows them")
            changed = record if request_id in record.requests else decide(record)
            answer = control_pb2.HostResponse(host=host_message(office, changed))
            if changed == record:
                return answer, []
            requests = (*record.requests, request_id)[-REQUESTS_REMEMBERED:]
            return answer, [(host_key(name), changed.model_copy(update={"requests": requests}))]

        return await self._desk.commit(office, request_id, [host_key(name)], attempt, context)
