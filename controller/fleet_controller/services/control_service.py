"""ControlService: what fleetctl, consoles and scripts call."""

from collections.abc import AsyncIterator, Iterable

from fleet.v1 import agent_pb2, control_pb2, control_pb2_grpc
from fleet_controller.leadership import Office
from fleet_controller.mutations import changes
from fleet_controller.mutations.changes import Refused
from fleet_controller.records import AppRecord, BalancerRecord, HostRecord, RolloutRecord, rollout_key
from fleet_controller.services.control_apps import AppCalls
from fleet_controller.services.control_artifacts import ArtifactCalls
from fleet_controller.services.control_backup import BackupCalls
from fleet_controller.services.control_controllers import ControllerCalls
from fleet_controller.services.control_desk import Desk
from fleet_controller.services.control_hosts import HostCalls
from fleet_controller.services.log_relay import LogRelay
from fleet_controller.services.presentation import (
    app_message,
    balancer_message,
    host_message,
    revision_summary,
    rollout_message,
    upstream_message,
    worker_message,
)
from fleet_controller.services.streams import Context
from fleet_controller.store.interface import Store
from fleet_core.version import PROTOCOL_VERSION, program_version

_NEWS_SECONDS = 0.1
"""From one message of a watched rollout to the next, except its last: planning passes may be many times as many."""
_WATCH_SECONDS = 15.0
"""Who lists workers may well ask again: agents sample usage often for so long."""


class ControlService(control_pb2_grpc.ControlServiceServicer):
    def __init__(
        self, desk: Desk, logs: LogRelay, artifacts: ArtifactCalls, store: Store, etcd_endpoints: Iterable[str]
    ) -> None:
        self._desk = desk
        self._leadership = desk.leadership
        self._logs = logs
        self._etcd_endpoints = list(etcd_endpoints)
        self._artifacts = artifacts
        self._apps = AppCalls(desk, artifacts)
        self._hosts = HostCalls(desk)
        self._controllers = ControllerCalls(desk, store)
        self._backups = BackupCalls(desk)

    # Controllers

    async def ListControllers(  # noqa: N802 (the contract's names, here and below)
        self, request: control_pb2.ListControllersRequest, context: Context
    ) -> control_pb2.ListControllersResponse:
        return await self._controllers.ls(request, context)

    async def RemoveController(  # noqa: N802
        self, request: control_pb2.RemoveControllerRequest, context: Context
    ) -> control_pb2.RemoveControllerResponse:
        return await self._controllers.remove(request, context)

    # Looking

    async def GetInfo(  # noqa: N802
        self, request: control_pb2.GetInfoRequest, context: Context
    ) -> control_pb2.GetInfoResponse:
        office = await self._desk.office(context)
        workers = [worker for host in office.hosts for worker in host.workers.values()]
        etcd_error = "" if office.term.provable() else "etcd does not answer: changes are refused until it does"
        return control_pb2.GetInfoResponse(
            controller=self._leadership.name,
            version=program_version(),
            protocol_version=PROTOCOL_VERSION,
            epoch=office.epoch.to_proto(),
            etcd_endpoints=self._etcd_endpoints,
            etcd_error=etcd_error,
            fleet_id=office.lineage.fleet.id,
            notices=[
                text
                for text in (office.lineage.trouble, etcd_error, office.etcd_full, *office.conductor.unknown_notices())
                if text
            ],
            apps=sum(1 for _ in office.desired.all(AppRecord)),
            hosts=sum(1 for _ in office.desired.all(HostRecord)),
            workers=sum(worker.view.pid > 0 for worker in workers),
        )

    async def ListApps(  # noqa: N802
        self, request: control_pb2.ListAppsRequest, context: Context
    ) -> control_pb2.ListAppsResponse:
        office = await self._desk.office(context)
        names = [request.app] if request.app else sorted(app.name for app in office.desired.all(AppRecord))
        apps = [await self._desk.app(office, name, context) for name in names]
        return control_pb2.ListAppsResponse(apps=[app_message(office, app) for app in apps])

    async def ListWorkers(  # noqa: N802
        self, request: control_pb2.ListWorkersRequest, context: Context
    ) -> control_pb2.ListWorkersResponse:
        office = await self._desk.office(context)
        if request.app:
            await self._desk.app(office, request.app, context)
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
        office = await self._desk.office(context)
        records = sorted(office.desired.all(HostRecord), key=lambda record: record.name)
        hosts = [host_message(office, record) for record in records]
        return control_pb2.ListHostsResponse(hosts=hosts)

    async def ListBalancers(  # noqa: N802
        self, request: control_pb2.ListBalancersRequest, context: Context
    ) -> control_pb2.ListBalancersResponse:
        office = await self._desk.office(context)
        names = sorted(record.name for record in office.desired.all(BalancerRecord))
        upstreams = office.upstreams
        balancers = [
            balancer_message(name, upstreams.balancers.get(name), upstreams.lists, upstreams.absent_seconds(name))
            for name in names
        ]
        return control_pb2.ListBalancersResponse(balancers=balancers)

    async def ListUpstreams(  # noqa: N802
        self, request: control_pb2.ListUpstreamsRequest, context: Context
    ) -> control_pb2.ListUpstreamsResponse:
        office = await self._desk.office(context)
        if request.app:
            await self._desk.app(office, request.app, context)
        lists = [pool for name, pool in sorted(office.upstreams.lists.items()) if request.app in ("", name)]
        upstreams = [upstream_message(pool, office.upstreams.balancers) for pool in lists]
        return control_pb2.ListUpstreamsResponse(upstreams=upstreams)

    async def GetHistory(  # noqa: N802
        self, request: control_pb2.GetHistoryRequest, context: Context
    ) -> control_pb2.GetHistoryResponse:
        office = await self._desk.office(context)
        app = await self._desk.app(office, request.app, context)
        records = self._desk.revisions(office, app.name)
        befores = [None, *records[:-1]]
        return control_pb2.GetHistoryResponse(
            revisions=[revision_summary(record, before, app) for record, before in zip(records, befores, strict=True)],
            rollouts=[rollout_message(office, rollout) for rollout in office.desired.rollouts_of(app.name)],
        )

    # Changing apps

    async def StartApp(  # noqa: N802
        self, request: control_pb2.StartAppRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        return await self._apps.start(request, context)

    async def SetSize(  # noqa: N802
        self, request: control_pb2.SetSizeRequest, context: Context
    ) -> control_pb2.SetSizeResponse:
        return await self._apps.set_size(request, context)

    async def RestartApp(  # noqa: N802
        self, request: control_pb2.RestartAppRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        return await self._apps.restart(request, context)

    async def StopApp(  # noqa: N802
        self, request: control_pb2.StopAppRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        return await self._apps.stop(request, context, remove=False)

    async def RemoveApp(  # noqa: N802
        self, request: control_pb2.RemoveAppRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        return await self._apps.stop(request, context, remove=True)

    async def UpdateApp(  # noqa: N802
        self, request: control_pb2.UpdateAppRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        return await self._apps.update(request, context)

    async def GetArtifact(  # noqa: N802
        self, request: control_pb2.GetArtifactRequest, context: Context
    ) -> control_pb2.GetArtifactResponse:
        await self._desk.office(context)
        return await self._artifacts.get(request, context)

    async def UploadArtifact(  # noqa: N802
        self, request_iterator: AsyncIterator[control_pb2.UploadArtifactRequest], context: Context
    ) -> control_pb2.GetArtifactResponse:
        office = await self._desk.changing(context)
        return await self._artifacts.upload(office, request_iterator, context)

    async def RollbackApp(  # noqa: N802
        self, request: control_pb2.RollbackAppRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        return await self._apps.roll_back(request, context)

    async def ControlRollout(  # noqa: N802
        self, request: control_pb2.ControlRolloutRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        return await self._apps.steer(request, context)

    # Changing hosts and balancers

    async def CordonHost(  # noqa: N802
        self, request: control_pb2.CordonHostRequest, context: Context
    ) -> control_pb2.HostResponse:
        return await self._hosts.cordon(request, context)

    async def DrainHost(  # noqa: N802
        self, request: control_pb2.DrainHostRequest, context: Context
    ) -> control_pb2.HostResponse:
        return await self._hosts.drain(request, context)

    async def LabelHost(  # noqa: N802
        self, request: control_pb2.LabelHostRequest, context: Context
    ) -> control_pb2.HostResponse:
        return await self._hosts.label(request, context)

    async def RemoveHost(  # noqa: N802
        self, request: control_pb2.RemoveHostRequest, context: Context
    ) -> control_pb2.RemoveHostResponse:
        return await self._hosts.remove(request, context)

    async def RemoveBalancer(  # noqa: N802
        self, request: control_pb2.RemoveBalancerRequest, context: Context
    ) -> control_pb2.RemoveBalancerResponse:
        return await self._hosts.remove_balancer(request, context)

    async def WatchDrain(  # noqa: N802
        self, request: control_pb2.WatchDrainRequest, context: Context
    ) -> AsyncIterator[control_pb2.WatchDrainResponse]:
        async for message in self._hosts.watch_drain(request, context):
            yield message

    # Following

    async def GetRollout(  # noqa: N802
        self, request: control_pb2.GetRolloutRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        office = await self._desk.office(context)
        rollout = await self._rollout(office, request, context)
        return control_pb2.RolloutResponse(rollout=rollout_message(office, rollout))

    async def WatchRollout(  # noqa: N802
        self, request: control_pb2.GetRolloutRequest, context: Context
    ) -> AsyncIterator[control_pb2.RolloutResponse]:
        office = await self._desk.office(context)
        rollout = await self._rollout(office, request, context)
        last: control_pb2.RolloutResponse | None = None
        due = 0.0
        async for _ in self._desk.passes(office, context):
            rollout = office.desired.get(rollout_key(rollout.id), RolloutRecord) or rollout
            if rollout.state.under_way and office.clock() < due:
                continue
            due = office.clock() + _NEWS_SECONDS
            message = control_pb2.RolloutResponse(rollout=rollout_message(office, rollout))
            if message != last:
                yield message
                last = message
            if not rollout.state.under_way:
                return

    async def StreamLogs(  # noqa: N802
        self, request: control_pb2.StreamLogsRequest, context: Context
    ) -> AsyncIterator[control_pb2.StreamLogsResponse]:
        office = await self._desk.office(context)
        if request.app:
            await self._desk.app(office, request.app, context)
        known = {record.name for record in office.desired.all(HostRecord)}
        if request.host and request.host not in known:
            await self._desk.refuse(context, Refused(changes.NOT_FOUND, f"no host is named {request.host}"))
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
        chunks = self._logs.read(
            hosts,
            lambda: office.epoch,
            wanted_lines,
            named={request.host} if request.host else (),
            leads=lambda: self._desk.leadership.office is office,
        )
        async for host, chunk in chunks:
            response = control_pb2.StreamLogsResponse(unreachable_hosts=[host] if chunk.error else [])
            for line in chunk.lines:
                response.entries.add(app=line.app, host=host, slot=line.slot, stream=line.stream, text=line.text)
            if response.entries or response.unreachable_hosts:
                yield response

    # Backup

    async def Backup(  # noqa: N802
        self, request: control_pb2.BackupRequest, context: Context
    ) -> AsyncIterator[control_pb2.BackupResponse]:
        async for response in self._backups.backup(context):
            yield response

    async def Restore(  # noqa: N802
        self, request_iterator: AsyncIterator[control_pb2.RestoreRequest], context: Context
    ) -> control_pb2.RestoreResponse:
        return await self._backups.restore(request_iterator, context)

    # What they share

    async def _rollout(self, office: Office, request: control_pb2.GetRolloutRequest, context: Context) -> RolloutRecord:
        if request.rollout:
            rollout = office.desired.get(rollout_key(request.rollout), RolloutRecord)
            text = f"no rollout has the id {request.rollout}"
        else:
            await self._desk.app(office, request.app, context)
            rollout = next(reversed(office.desired.rollouts_of(request.app)), None)
            text = f"app {request.app} had no rollout yet"
        if rollout is None:
            await self._desk.refuse(context, Refused(changes.NOT_FOUND, text))
        return rollout
