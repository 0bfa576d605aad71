"""Desired and observed state in the words of the control API."""

from collections.abc import Iterable

from fleet.v1 import control_pb2, types_pb2
from fleet_controller.balancers import ObservedBalancer, UpstreamList
from fleet_controller.hosts import ObservedHost, ObservedWorker
from fleet_controller.leadership import Office
from fleet_controller.mutations.revisions import differences
from fleet_controller.planning.relocation import at_rest, draining
from fleet_controller.planning.views import Life, Phase
from fleet_controller.records import (
    AppRecord,
    AppState,
    FailedWorkerRecord,
    HostRecord,
    RevisionRecord,
    RolloutKind,
    RolloutRecord,
    RolloutState,
    Scheduling,
    SizeMode,
    revision_key,
    rollout_key,
)
from fleet_core.ids import WorkerId

_WORKER_STATES = {
    Life.PENDING: types_pb2.WORKER_STATE_PENDING,
    Life.STARTING: types_pb2.WORKER_STATE_STARTING,
    Life.READY: types_pb2.WORKER_STATE_READY,
    Life.UNREADY: types_pb2.WORKER_STATE_UNREADY,
    Life.STOPPING: types_pb2.WORKER_STATE_STOPPING,
    Life.EXITED: types_pb2.WORKER_STATE_EXITED,
    Life.BACKOFF: types_pb2.WORKER_STATE_BACKOFF,
    Life.FAILED: types_pb2.WORKER_STATE_FAILED,
}
_PHASES = {Phase.RUN: types_pb2.PHASE_RUN, Phase.STOP: types_pb2.PHASE_STOP}
_APP_STATES = {
    AppState.RUNNING: control_pb2.APP_STATE_RUNNING,
    AppState.STOPPED: control_pb2.APP_STATE_STOPPED,
    AppState.REMOVING: control_pb2.APP_STATE_REMOVING,
}
SIZE_MODES = {
    SizeMode.FLOATING: control_pb2.SIZE_MODE_FLOATING,
    SizeMode.PINNED: control_pb2.SIZE_MODE_PINNED,
}
_ROLLOUT_KINDS = {
    RolloutKind.START: control_pb2.ROLLOUT_KIND_START,
    RolloutKind.SET_SIZE: control_pb2.ROLLOUT_KIND_SET_SIZE,
    RolloutKind.RESTART: control_pb2.ROLLOUT_KIND_RESTART,
    RolloutKind.STOP: control_pb2.ROLLOUT_KIND_STOP,
    RolloutKind.REMOVE: control_pb2.ROLLOUT_KIND_REMOVE,
    RolloutKind.UPDATE: control_pb2.ROLLOUT_KIND_UPDATE,
    RolloutKind.ROLLBACK: control_pb2.ROLLOUT_KIND_ROLLBACK,
    RolloutKind.MOVE: control_pb2.ROLLOUT_KIND_MOVE,
}
_ROLLOUT_STATES = {
    RolloutState.RUNNING: control_pb2.ROLLOUT_STATE_RUNNING,
    RolloutState.DONE: control_pb2.ROLLOUT_STATE_DONE,
    RolloutState.FAILED: control_pb2.ROLLOUT_STATE_FAILED,
    RolloutState.SUPERSEDED: control_pb2.ROLLOUT_STATE_SUPERSEDED,
    RolloutState.ROLLING_BACK: control_pb2.ROLLOUT_STATE_ROLLING_BACK,
    RolloutState.ABORTED: control_pb2.ROLLOUT_STATE_ABORTED,
}
_SCHEDULING = {
    Scheduling.OPEN: control_pb2.HOST_SCHEDULING_OPEN,
    Scheduling.CORDONED: control_pb2.HOST_SCHEDULING_CORDONED,
    Scheduling.DRAINING: control_pb2.HOST_SCHEDULING_DRAINING,
}


def app_message(office: Office, app: AppRecord) -> control_pb2.App:
    message = control_pb2.App(
        name=app.name,
        state=_APP_STATES[app.state],
        revision=app.revision,
        generation=app.generation,
        size_mode=SIZE_MODES[app.size_mode],
        size=app.size,
        ready=sum(worker.ready for worker in office.hosts.workers_of(app.name)),
        placement=app.placement,
        notices=[*office.conductor.notices(app), *office.relocator.notices(app.name)],
    )
    rollout = office.desired.get(rollout_key(app.rollout), RolloutRecord)
    if rollout is not None:
        message.rollout.CopyFrom(rollout_message(office, rollout))
    revision = office.desired.get(revision_key(app.name, app.revision), RevisionRecord)
    if revision is not None:
        message.spec.CopyFrom(revision.spec_message())
        message.artifact_digest = revision.artifact_digest
        if revision.artifact_digest in office.missing_code:
            message.notices.append(
                f"code {revision.artifact_digest[:12]} is not in the leading controller's artifact store, so no other host can "
                f"get it: `fleetctl deploy {app.name}` sends it again; several controllers need one store (docs/deploy.md)"
            )
    return message


def rollout_message(office: Office, rollout: RolloutRecord) -> control_pb2.Rollout:
    """With its progress, where it is under way."""
    message = control_pb2.Rollout(
        id=rollout.id,
        app=rollout.app,
        kind=_ROLLOUT_KINDS[rollout.kind],
        state=_ROLLOUT_STATES[rollout.state],
        steps=rollout.steps,
        steps_done=rollout.steps if rollout.state is RolloutState.DONE else sum(rollout.host_steps_done.values()),
        replaced=rollout.replaced,
        seconds=rollout.seconds,
        message=rollout.message,
        revision=rollout.revision,
        generation=rollout.generation,
        paused=rollout.paused,
        previous_revision=rollout.previous.revision if rollout.previous is not None else 0,
        cause=rollout.cause,
        began_at=rollout.began_at,
    )
    if rollout.failed_worker is not None:
        message.failed_worker.CopyFrom(_failed_worker(rollout.failed_worker))
    if not rollout.state.under_way:
        done = rollout.state is RolloutState.DONE
        for host, steps in sorted(rollout.host_steps.items()):
            message.hosts.add(
                host=host, steps=steps, steps_done=steps if done else rollout.host_steps_done.get(host, 0)
            )
        return message
    remaining: dict[str, int] = dict(rollout.host_steps)
    doing: dict[str, str] = {}
    progress = office.conductor.apps.get(rollout.app)
    if progress is not None and progress.plan is not None and progress.rollout == rollout.id:
        remaining, doing = dict(progress.plan.remaining), dict(progress.plan.doing)
        message.seconds = round(office.clock() - progress.began, 3)
        if rollout.state is RolloutState.ROLLING_BACK:
            message.message = "; ".join(filter(None, (rollout.message, progress.plan.waiting)))
        else:
            refusals = "; ".join(office.upstreams.refusals(rollout.app))
            message.message = progress.plan.waiting or rollout.message or refusals
        message.awaits_promotion = progress.plan.awaits_promotion
    for host in sorted({*rollout.host_steps, *remaining}):
        steps = max(rollout.host_steps.get(host, 0), remaining.get(host, 0))
        left = remaining.get(host, 0)
        message.hosts.add(host=host, steps=steps, steps_done=steps - left, doing=doing.get(host, ""))
    message.steps = sum(host.steps for host in message.hosts)
    message.steps_done = sum(host.steps_done for host in message.hosts)
    message.replaced = message.steps_done
    return message


def _failed_worker(record: FailedWorkerRecord) -> control_pb2.FailedWorker:
    app, host, slot = record.worker.split("/")
    worker = WorkerId(app, host, int(slot), record.generation)
    return control_pb2.FailedWorker(worker=worker.to_proto(), reason=record.reason, last_lines=record.last_lines)


def revision_summary(
    record: RevisionRecord, before: RevisionRecord | None, app: AppRecord
) -> control_pb2.RevisionSummary:
    return control_pb2.RevisionSummary(
        revision=types_pb2.Revision(
            number=record.number,
            spec=record.spec_message(),
            artifact_digest=record.artifact_digest,
            spec_digest=record.spec_digest,
        ),
        created_at=record.created_at,
        cause=record.cause,
        differences=differences(before, record) if before is not None else (),
        good=record.number in app.good_revisions,
        current=record.number == app.revision,
    )


def worker_message(office: Office, worker: ObservedWorker) -> types_pb2.WorkerStatus:
    view = worker.view
    return types_pb2.WorkerStatus(
        id=view.id.to_proto(),
        revision=view.revision,
        state=_WORKER_STATES[view.life],
        phase=_PHASES[view.phase],
        pid=view.pid,
        address=view.address,
        port=view.port,
        restarts=view.restarts,
        uptime_seconds=round(office.clock() - worker.started_at, 3) if worker.started_at else 0.0,
        reason=view.reason,
        rss_bytes=worker.rss_bytes,
        cpu_percent=worker.cpu_percent,
        open_files=worker.open_files,
        threads=worker.threads,
        status_text=worker.status_text,
        last_lines=worker.last_lines,
    )


def host_message(office: Office, record: HostRecord) -> control_pb2.Host:
    host = office.hosts.get(record.name)
    lost_since = office.hosts.lost_since(record.name)
    message = control_pb2.Host(
        name=record.name,
        state=control_pb2.HOST_STATE_UNKNOWN,
        cpus=record.cpus,
        labels=record.labels,
        address=record.address,
        uid=record.uid,
        scheduling=_SCHEDULING[record.scheduling],
        unheard_seconds=0.0 if lost_since is None else round(office.clock() - lost_since, 3),
    )
    if host is not None:
        if host.connected:
            message.state = control_pb2.HOST_STATE_ONLINE
        message.workers = sum(worker.view.pid > 0 for worker in host.workers.values())
        message.agent_version = host.agent_version
        message.notices.extend(office.hosts.notices(host))
    return message


def drain_message(office: Office, record: HostRecord) -> control_pb2.WatchDrainResponse:
    """How far a drain is: workers that live on the host, and apps that are still placed there."""
    message = control_pb2.WatchDrainResponse(host=record.name)
    host = office.hosts.get(record.name)
    drained = draining(office.desired.all(HostRecord))
    for app in sorted(office.desired.all(AppRecord), key=lambda app: app.name):
        left = sum(worker.view.live for identity, worker in _workers_on(host) if identity.app == app.name)
        if not left and not at_rest(app, drained).wanted(record.name):
            continue
        progress = office.conductor.apps.get(app.name)
        plan = progress.plan if progress is not None else None
        doing = (plan.doing.get(record.name, "") or plan.waiting) if plan is not None else ""
        doing = doing or ", ".join(office.relocator.notices(app.name))
        message.apps.add(app=app.name, workers_left=left, doing=doing)
    message.workers_left = sum(app.workers_left for app in message.apps)
    message.drained = not message.apps and host is not None and host.reported
    if not message.drained and (host is None or not host.connected):
        message.message = (
            f"host {record.name} is not connected, and its workers may well be running: bring it back, "
            f"or `fleetctl host remove {record.name}` if it is gone for good"
        )
    return message


def _workers_on(host: ObservedHost | None) -> Iterable[tuple[WorkerId, ObservedWorker]]:
    return host.workers.items() if host is not None else ()


def balancer_message(
    name: str, balancer: ObservedBalancer | None, pools: dict[str, UpstreamList], absent_seconds: float
) -> control_pb2.Balancer:
    message = control_pb2.Balancer(name=name, pools=len(pools), absent_seconds=round(absent_seconds, 3))
    if balancer is not None:
        message.connected = balancer.outbox is not None
        message.driver = balancer.driver
        message.driver_version = balancer.driver_version
        message.version = balancer.version
        message.notices.extend(balancer.notices)
        message.pools_current = balancer.current(pools)
        message.notices.extend(balancer.notices)
        message.error = next((state.error for state in balancer.pools.values() if state.error), "")
    return message


def upstream_message(pool: UpstreamList, balancers: dict[str, ObservedBalancer]) -> control_pb2.Upstream:
    message = control_pb2.Upstream(pool=pool.name, version=pool.version)
    message.route.CopyFrom(pool.route.to_proto())
    message.endpoints.extend(pool.endpoint_messages())
    for name, balancer in balancers.items():
        if pool.name in balancer.pools:
            message.acknowledged[name] = balancer.pools[pool.name].version
    return message
