"""ControlService: what fleetctl, consoles and scripts call."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from typing import NoReturn

import grpc
from pydantic import ValidationError

from fleet.v1 import agent_pb2, balancer_pb2, control_pb2, control_pb2_grpc
from fleet_controller import operations
from fleet_controller.balancer_service import BalancerService
from fleet_controller.leadership import Leadership, Office
from fleet_controller.log_relay import LogRelay
from fleet_controller.operations import Change, HostFact, Refused
from fleet_controller.presentation import (
    SIZE_MODES,
    app_message,
    balancer_message,
    host_message,
    rollout_message,
    upstream_message,
    worker_message,
)
from fleet_controller.records import (
    AppRecord,
    BalancerRecord,
    HostRecord,
    RolloutRecord,
    RolloutState,
    app_key,
    rollout_key,
)
from fleet_controller.store.interface import Conflict, StoreError
from fleet_controller.streams import Context, abort, require_office, require_role
from fleet_core.ids import SlotId
from fleet_core.spec import AppSpec
from fleet_core.tls import Role
from fleet_core.version import PROTOCOL_VERSION, program_version

_CODES = {
    operations.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    operations.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    operations.EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    operations.PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
}
_ATTEMPTS = 5
_WATCH_SECONDS = 15.0
"""Who lists workers may well ask again: agents sample usage often for so long."""
_REPEAT_SECONDS = 1.0
"""A watched rollout is sent again this often although nothing was planned, so that its time goes on."""


class ControlService(control_pb2_grpc.ControlServiceServicer):
    def __init__(
        self, leadership: Leadership, balancers: BalancerService, logs: LogRelay, etcd_endpoints: Iterable[str]
    ) -> None:
        self._leadership = leadership
        self._balancers = balancers
        self._logs = logs
        self._etcd_endpoints = list(etcd_endpoints)

    # Looking

    async def GetInfo(  # noqa: N802 (the contract's names, here and below)
        self, request: control_pb2.GetInfoRequest, context: Context
    ) -> control_pb2.GetInfoResponse:
        office = await self._office(context)
        workers = [worker for host in office.hosts for worker in host.workers.values()]
        return control_pb2.GetInfoResponse(
            controller=self._leadership.name,
            version=program_version(),
            protocol_version=PROTOCOL_VERSION,
            epoch=office.epoch.to_proto(),
            etcd_endpoints=self._etcd_endpoints,
            etcd_error="" if office.term.provable() else "etcd does not answer: changes are refused until it does",
            apps=sum(1 for _ in office.desired.all(AppRecord)),
            hosts=sum(1 for _ in office.desired.all(HostRecord)),
            workers=sum(worker.view.pid > 0 for worker in workers),
        )

    async def ListApps(  # noqa: N802
        self, request: control_pb2.ListAppsRequest, context: Context
    ) -> control_pb2.ListAppsResponse:
        office = await self._office(context)
        names = [request.app] if request.app else sorted(app.name for app in office.desired.all(AppRecord))
        apps = [await self._app(office, name, context) for name in names]
        return control_pb2.ListAppsResponse(apps=[app_message(office, app) for app in apps])

    async def ListWorkers(  # noqa: N802
        self, request: control_pb2.ListWorkersRequest, context: Context
    ) -> control_pb2.ListWorkersResponse:
        office = await self._office(context)
        if request.app:
            await self._app(office, request.app, context)
        workers = [
            worker
            for host in office.hosts
            for identity, worker in host.workers.items()
            if request.app in ("", identity.app)
        ]
        workers.sort(key=lambda worker: worker.view.id)
        office.hosts.watch_usage(_WATCH_SECONDS, office.epoch)
        return control_pb2.ListWorkersResponse(workers=[worker_message(office, worker) for worker in workers])

    async def ListHosts(  # noqa: N802
        self, request: control_pb2.ListHostsRequest, context: Context
    ) -> control_pb2.ListHostsResponse:
        office = await self._office(context)
        records = sorted(office.desired.all(HostRecord), key=lambda record: record.name)
        hosts = [host_message(record, office.hosts.get(record.name)) for record in records]
        return control_pb2.ListHostsResponse(hosts=hosts)

    async def ListBalancers(  # noqa: N802
        self, request: control_pb2.ListBalancersRequest, context: Context
    ) -> control_pb2.ListBalancersResponse:
        office = await self._office(context)
        names = sorted(record.name for record in office.desired.all(BalancerRecord))
        upstreams = office.upstreams
        balancers = [balancer_message(name, upstreams.balancers.get(name), upstreams.lists) for name in names]
        return control_pb2.ListBalancersResponse(balancers=balancers)

    async def ListUpstreams(  # noqa: N802
        self, request: control_pb2.ListUpstreamsRequest, context: Context
    ) -> control_pb2.ListUpstreamsResponse:
        office = await self._office(context)
        if request.app:
            await self._app(office, request.app, context)
        lists = [pool for name, pool in sorted(office.upstreams.lists.items()) if request.app in ("", name)]
        upstreams = [upstream_message(pool, office.upstreams.balancers) for pool in lists]
        return control_pb2.ListUpstreamsResponse(upstreams=upstreams)

    # Changing

    async def StartApp(  # noqa: N802
        self, request: control_pb2.StartAppRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        office = await self._office(context)
        name = request.spec.name
        if office.desired.get(app_key(name), AppRecord) is None and request.spec.argv:
            return await self._start_new(office, request, context)

        def decide(app: AppRecord) -> Change:
            if request.spec.argv:
                text = f"app {name} exists already: `fleetctl start {name}` starts it again, `fleetctl remove {name}` forgets it"
                raise Refused(operations.EXISTS, text)
            past = office.desired.rollouts_of(name)
            return operations.start_again(
                request.request_id, app, request.size, request.hosts, self._hosts(office), past
            )

        return await self._change(office, request.request_id, name, decide, context)

    async def SetSize(  # noqa: N802
        self, request: control_pb2.SetSizeRequest, context: Context
    ) -> control_pb2.SetSizeResponse:
        office = await self._office(context)
        response = control_pb2.SetSizeResponse()
        change = request.change.WhichOneof("change")
        if change is None:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the new size is missing")

        def decide(app: AppRecord) -> Change | None:
            absolute = request.change.absolute if change == "absolute" else None
            relative = request.change.relative if change == "relative" else None
            plan = operations.plan_size(app, self._hosts(office), request.host, absolute, relative)
            del response.plan[:]
            for host in sorted({*app.placement, *plan.placement}):
                response.plan.add(host=host, before=app.placement.get(host, 0), after=plan.placement.get(host, 0))
            response.size_mode = SIZE_MODES[plan.mode]
            response.shrinking_others[:] = plan.shrinking_others
            if request.dry_run:
                return None
            if plan.shrinking_others and not request.allow_shrinking_others:
                text = f"{', '.join(plan.shrinking_others)} would lose workers: confirm it with --yes"
                raise Refused(operations.PRECONDITION, text)
            return operations.set_size(request.request_id, app, plan, office.desired.rollouts_of(app.name))

        result = await self._change(office, request.request_id, request.app, decide, context)
        if result.HasField("rollout"):
            response.rollout.CopyFrom(result.rollout)
        return response

    async def RestartApp(  # noqa: N802
        self, request: control_pb2.RestartAppRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        office = await self._office(context)

        def decide(app: AppRecord) -> Change:
            slot = SlotId(app.name, request.host, request.slot) if request.host or request.slot else None
            past = office.desired.rollouts_of(app.name)
            return operations.restart(request.request_id, app, slot, at_once=request.now, past=past)

        return await self._change(office, request.request_id, request.app, decide, context)

    async def StopApp(  # noqa: N802
        self, request: control_pb2.StopAppRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        return await self._stop(request, context, remove=False)

    async def RemoveApp(  # noqa: N802
        self, request: control_pb2.RemoveAppRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        return await self._stop(request, context, remove=True)

    # Following

    async def GetRollout(  # noqa: N802
        self, request: control_pb2.GetRolloutRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        office = await self._office(context)
        rollout = await self._rollout(office, request, context)
        return control_pb2.RolloutResponse(rollout=rollout_message(office, rollout))

    async def WatchRollout(  # noqa: N802
        self, request: control_pb2.GetRolloutRequest, context: Context
    ) -> AsyncIterator[control_pb2.RolloutResponse]:
        office = await self._office(context)
        rollout = await self._rollout(office, request, context)
        last: control_pb2.RolloutResponse | None = None
        while self._leadership.office is office:
            rollout = office.desired.get(rollout_key(rollout.id), RolloutRecord) or rollout
            message = control_pb2.RolloutResponse(rollout=rollout_message(office, rollout))
            if message != last:
                yield message
                last = message
            if rollout.state is not RolloutState.RUNNING:
                return
            try:
                async with asyncio.timeout(_REPEAT_SECONDS), office.conductor.planned:
                    await office.conductor.planned.wait()
            except TimeoutError:
                continue
        await abort(context, grpc.StatusCode.UNAVAILABLE, f"controller {self._leadership.name} does not lead any more")

    async def StreamLogs(  # noqa: N802
        self, request: control_pb2.StreamLogsRequest, context: Context
    ) -> AsyncIterator[control_pb2.StreamLogsResponse]:
        office = await self._office(context)
        if request.app:
            await self._app(office, request.app, context)
        known = {record.name for record in office.desired.all(HostRecord)}
        if request.host and request.host not in known:
            await self._refuse(context, Refused(operations.NOT_FOUND, f"no host is named {request.host}"))
        wanted = {request.host} if request.host else known
        hosts = [host for host in office.hosts if host.name in wanted and host.connected]
        away = sorted(wanted - {host.name for host in hosts})
        if away:
            yield control_pb2.StreamLogsResponse(unreachable_hosts=away)
        wanted_lines = agent_pb2.LogRequest(
            app=request.app,
            slot=request.slot,
            lines=request.lines,
            follow=request.follow,
            since_seconds=request.since_seconds,
        )
        chunks = self._logs.read(hosts, lambda: office.epoch, wanted_lines)
        async for host, chunk in chunks:
            response = control_pb2.StreamLogsResponse(unreachable_hosts=[host] if chunk.error else [])
            for line in chunk.lines:
                response.entries.add(app=line.app, host=host, slot=line.slot, stream=line.stream, text=line.text)
            if response.entries or response.unreachable_hosts:
                yield response

    # What they share

    async def _office(self, context: Context) -> Office:
        await require_role(context, Role.OPERATOR)
        return await require_office(context, self._leadership, grpc.StatusCode.UNAVAILABLE)

    async def _app(self, office: Office, name: str, context: Context) -> AppRecord:
        app = office.desired.get(app_key(name), AppRecord)
        if app is None:
            await self._refuse(context, Refused(operations.NOT_FOUND, f"no app is named {name}"))
        return app

    async def _rollout(self, office: Office, request: control_pb2.GetRolloutRequest, context: Context) -> RolloutRecord:
        if request.rollout:
            rollout = office.desired.get(rollout_key(request.rollout), RolloutRecord)
            text = f"no rollout has the id {request.rollout}"
        else:
            await self._app(office, request.app, context)
            rollout = next(reversed(office.desired.rollouts_of(request.app)), None)
            text = f"app {request.app} had no rollout yet"
        if rollout is None:
            await self._refuse(context, Refused(operations.NOT_FOUND, text))
        return rollout

    async def _stop(
        self, request: control_pb2.StopAppRequest | control_pb2.RemoveAppRequest, context: Context, *, remove: bool
    ) -> control_pb2.RolloutResponse:
        office = await self._office(context)

        def decide(app: AppRecord) -> Change:
            past = office.desired.rollouts_of(app.name)
            return operations.stop(request.request_id, app, at_once=request.now, remove=remove, past=past)

        return await self._change(office, request.request_id, request.app, decide, context)

    async def _start_new(
        self, office: Office, request: control_pb2.StartAppRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        try:
            spec = AppSpec.from_proto(request.spec)
        except ValidationError as error:
            await abort(
                context, grpc.StatusCode.INVALID_ARGUMENT, error.errors()[0]["msg"].removeprefix("Value error, ")
            )
        if spec.route.http:
            pool = balancer_pb2.Pool(name=spec.name, version=1)
            pool.route.http = spec.route.http
            refusal = await self._balancers.refusal(office, pool)
            if refusal:
                await abort(context, grpc.StatusCode.FAILED_PRECONDITION, refusal)

        def decide(_: AppRecord | None) -> Change:
            routes = {
                name: str(record.spec.get("route", {}).get("http", "")) for name, record in office.app_specs().items()
            }
            taken = {name: http for name, http in routes.items() if http}
            size = request.size or 1
            return operations.start_new(request.request_id, spec, size, request.hosts, self._hosts(office), taken)

        return await self._change(office, request.request_id, spec.name, decide, context, new=True)

    async def _change(
        self,
        office: Office,
        request_id: str,
        name: str,
        decide: Callable[[AppRecord], Change | None],
        context: Context,
        *,
        new: bool = False,
    ) -> control_pb2.RolloutResponse:
        """Decide on the app as it is, and write the decision; anew when somebody changed it meanwhile.

        A request id that made a rollout already is answered with that rollout.
        """
        await self._check_request_id(request_id, context)
        for _ in range(_ATTEMPTS):
            repeated = office.desired.get(rollout_key(request_id), RolloutRecord)
            if repeated is not None:
                return control_pb2.RolloutResponse(rollout=rollout_message(office, repeated))
            app = office.desired.get(app_key(name), AppRecord)
            if app is None and not new:
                await self._refuse(context, Refused(operations.NOT_FOUND, f"no app is named {name}"))
            try:
                change = decide(app)  # type: ignore[arg-type]  # None only where `new`
            except Refused as refusal:
                await self._refuse(context, refusal)
            except ValueError as error:
                await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
            if change is None:
                return control_pb2.RolloutResponse()
            if not office.term.provable():
                text = (
                    "etcd does not answer, so nothing can be changed now; what runs goes on: look at the etcd servers"
                )
                await abort(context, grpc.StatusCode.FAILED_PRECONDITION, text)
            try:
                await office.commit([app_key(name), rollout_key(request_id)], change.writes())
            except Conflict:
                if office.term.lost.is_set():
                    break
                await asyncio.sleep(0.05)
                continue
            except (StoreError, TimeoutError) as error:
                text = f"etcd cannot be reached, so the change was not confirmed: see `fleetctl status` once it is back ({error})"
                await abort(context, grpc.StatusCode.FAILED_PRECONDITION, text)
            return control_pb2.RolloutResponse(rollout=rollout_message(office, change.rollout))
        text = f"app {name} is being changed by others at this moment: ask again"
        return await abort(context, grpc.StatusCode.ABORTED, text)

    def _hosts(self, office: Office) -> dict[str, HostFact]:
        facts = {}
        for record in office.desired.all(HostRecord):
            host = office.hosts.get(record.name)
            facts[record.name] = HostFact(record.name, record.cpus, host is not None and host.connected)
        return facts

    async def _check_request_id(self, request_id: str, context: Context) -> None:
        try:
            uuid.UUID(request_id)
        except ValueError:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "a mutation needs a request id, a UUID")

    async def _refuse(self, context: Context, refusal: Refused) -> NoReturn:
        await abort(context, _CODES[refusal.kind], str(refusal))
