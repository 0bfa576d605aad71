"""The calls of ControlService that change apps."""

import grpc

from fleet.v1 import control_pb2
from fleet_controller.artifacts import ArtifactError
from fleet_controller.leadership import Office
from fleet_controller.mutations import changes, endings, operations, revisions
from fleet_controller.mutations.changes import Change, Refused
from fleet_controller.records import (
    AppRecord,
    AppState,
    Record,
    RevisionRecord,
    RolloutRecord,
    app_key,
    revision_key,
    rollout_key,
)
from fleet_controller.services.control_artifacts import ArtifactCalls
from fleet_controller.services.control_desk import Desk
from fleet_controller.services.presentation import SIZE_MODES, rollout_message
from fleet_controller.services.streams import Context, abort
from fleet_core.ids import SlotId
from fleet_core.spec import AppSpec

_STEERING = {
    control_pb2.ROLLOUT_ACTION_PAUSE: endings.paused,
    control_pb2.ROLLOUT_ACTION_RESUME: endings.resumed,
    control_pb2.ROLLOUT_ACTION_ABORT: endings.aborted,
    control_pb2.ROLLOUT_ACTION_PROMOTE: endings.promoted,
}


class AppCalls:
    """The contract's names, as methods; see `control.proto` for what they promise."""

    def __init__(self, desk: Desk, artifacts: ArtifactCalls) -> None:
        self._desk = desk
        self._artifacts = artifacts

    async def start(self, request: control_pb2.StartAppRequest, context: Context) -> control_pb2.RolloutResponse:
        office = await self._desk.changing(context)
        await office.hosts_gathered()
        name = request.spec.name
        if office.desired.get(app_key(name), AppRecord) is None and request.spec.argv:
            return await self._start_new(office, request, context)

        def decide(app: AppRecord) -> Change:
            if request.spec.argv:
                again = (
                    f"`fleetctl start {name}` starts it again"
                    if app.state is AppState.STOPPED
                    else f"`fleetctl soft-restart {name}` replaces its workers"
                )
                text = f"app {name} exists already: {again}, `fleetctl remove {name}` forgets it"
                raise Refused(changes.EXISTS, text)
            ask = self._desk.ask(office, name, request.request_id, request.options)
            labels = self._spec(office, app).placement.labels
            return operations.start_again(ask, app, request.size, request.hosts, self._desk.host_facts(office), labels)

        return await self._desk.change(office, request.request_id, name, decide, context)

    async def _start_new(
        self, office: Office, request: control_pb2.StartAppRequest, context: Context
    ) -> control_pb2.RolloutResponse:
        spec = await self._desk.spec(request.spec, context)
        if request.artifact_digest:
            await self._check_artifact(request.artifact_digest, context)
        elif spec.needs_artifact:
            text = f"working directory {spec.cwd!r} must be absolute: `fleetctl deploy` gives an app code of its own"
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, text)
        await self._desk.check_route(office, spec, context)

        def decide(_: AppRecord | None) -> Change:
            ask = self._desk.ask(office, spec.name, request.request_id, request.options, request.cause)
            hosts = self._desk.host_facts(office)
            left = list(office.hosts.workers_of(spec.name))
            return operations.start_new(
                ask, spec, request.size or 1, request.hosts, hosts, office.routes(), request.artifact_digest, left
            )

        return await self._desk.change_or_create(office, request.request_id, spec.name, decide, context)

    async def set_size(self, request: control_pb2.SetSizeRequest, context: Context) -> control_pb2.SetSizeResponse:
        office = await self._desk.changing(context)
        await office.hosts_gathered()
        response = control_pb2.SetSizeResponse()
        change = request.change.WhichOneof("change")
        if change is None:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the new size is missing")

        def decide(app: AppRecord) -> Change | None:
            absolute = request.change.absolute if change == "absolute" else None
            relative = request.change.relative if change == "relative" else None
            labels = self._spec(office, app).placement.labels
            hosts = self._desk.host_facts(office)
            plan = operations.plan_size(app, hosts, request.host, absolute, relative, labels)
            del response.plan[:]
            for host in sorted({*app.placement, *plan.placement}):
                response.plan.add(host=host, before=app.placement.get(host, 0), after=plan.placement.get(host, 0))
            response.size_mode = SIZE_MODES[plan.mode]
            response.shrinking_others[:] = plan.shrinking_others
            if request.dry_run:
                return None
            if plan.shrinking_others and not request.allow_shrinking_others:
                text = f"{', '.join(plan.shrinking_others)} would lose workers: confirm it with --yes"
                raise Refused(changes.PRECONDITION, text)
            ask = self._desk.ask(office, app.name, request.request_id, request.options)
            return operations.set_size(ask, app, plan)

        result = await self._desk.change(office, request.request_id, request.app, decide, context)
        if result.HasField("rollout"):
            response.rollout.CopyFrom(result.rollout)
        return response

    async def restart(self, request: control_pb2.RestartAppRequest, context: Context) -> control_pb2.RolloutResponse:
        office = await self._desk.changing(context)

        def decide(app: AppRecord) -> Change:
            slot = SlotId(app.name, request.host, request.slot) if request.host or request.slot else None
            ask = self._desk.ask(office, app.name, request.request_id, request.options)
            return operations.restart(ask, app, slot, at_once=request.now)

        return await self._desk.change(office, request.request_id, request.app, decide, context)

    async def stop(
        self, request: control_pb2.StopAppRequest | control_pb2.RemoveAppRequest, context: Context, *, remove: bool
    ) -> control_pb2.RolloutResponse:
        office = await self._desk.changing(context)

        def decide(app: AppRecord) -> Change:
            ask = self._desk.ask(office, app.name, request.request_id, request.options)
            return operations.stop(ask, app, at_once=request.now, remove=remove)

        return await self._desk.change(office, request.request_id, request.app, decide, context)

    async def update(self, request: control_pb2.UpdateAppRequest, context: Context) -> control_pb2.RolloutResponse:
        office = await self._desk.changing(context)
        given: AppSpec | None = None
        if request.WhichOneof("change") == "spec":
            given = await self._desk.spec(request.spec, context)
            await self._desk.check_route(office, given, context)
        elif not request.HasField("environment") and not request.artifact_digest:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "what shall change is missing")
        if request.artifact_digest:
            await self._check_artifact(request.artifact_digest, context)
        unchanged: list[AppRecord] = []

        def decide(app: AppRecord) -> Change | None:
            if request.expected_revision and app.revision != request.expected_revision:
                text = f"app {app.name} is at revision {app.revision}, not {request.expected_revision}: look again"
                raise Refused(changes.PRECONDITION, text)
            change = request.environment
            spec = given or revisions.with_environment(self._spec(office, app), dict(change.set), change.unset)
            if spec.name != app.name:
                raise Refused(changes.INVALID, f"the spec is of app {spec.name}, not {app.name}")
            operations.check_route(spec, office.routes())
            ask = self._desk.ask(office, app.name, request.request_id, request.options, request.cause)
            made = revisions.update(ask, app, spec, self._desk.revisions(office, app.name), request.artifact_digest)
            unchanged[:] = [app] if made is None else []
            return made

        response = await self._desk.change(office, request.request_id, request.app, decide, context)
        if unchanged:
            newest = office.desired.get(rollout_key(unchanged[0].rollout), RolloutRecord)
            if newest is not None:
                response.rollout.CopyFrom(rollout_message(office, newest))
        return response

    async def roll_back(self, request: control_pb2.RollbackAppRequest, context: Context) -> control_pb2.RolloutResponse:
        office = await self._desk.changing(context)

        def decide(app: AppRecord) -> Change:
            ask = self._desk.ask(office, app.name, request.request_id, request.options)
            return revisions.rollback(ask, app, request.revision, self._desk.revisions(office, app.name))

        return await self._desk.change(office, request.request_id, request.app, decide, context)

    async def steer(self, request: control_pb2.ControlRolloutRequest, context: Context) -> control_pb2.RolloutResponse:
        """Pause, resume, abort, promote."""
        office = await self._desk.changing(context)
        app = await self._desk.app(office, request.app, context)
        action = _STEERING.get(request.action)
        if action is None:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "what shall be done with the rollout is missing")
        key = rollout_key(app.rollout)

        def attempt() -> tuple[control_pb2.RolloutResponse, list[tuple[str, Record | None]]]:
            present = office.desired.get(app_key(app.name), AppRecord) or app
            rollout = office.desired.get(key, RolloutRecord)
            if rollout is not None and rollout.steered_by == request.request_id:
                return control_pb2.RolloutResponse(rollout=rollout_message(office, rollout)), []
            running = endings.running_rollout(present, rollout, request.rollout)
            new_app, new_rollout = action(present, office.conductor.as_far_as_it_is(running))
            new_rollout = new_rollout.model_copy(update={"steered_by": request.request_id})
            answer = control_pb2.RolloutResponse(rollout=rollout_message(office, new_rollout))
            return answer, [(app_key(app.name), new_app), (key, new_rollout)]

        return await self._desk.commit(office, request.request_id, [app_key(app.name), key], attempt, context)

    async def _check_artifact(self, digest: str, context: Context) -> None:
        try:
            there = await self._artifacts.has(digest)
        except (ArtifactError, OSError) as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if not there:
            text = f"code {digest[:12]} is not in the artifact store: upload it first"
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, text)

    def _spec(self, office: Office, app: AppRecord) -> AppSpec:
        record = office.desired.get(revision_key(app.name, app.revision), RevisionRecord)
        if record is None:
            raise Refused(changes.PRECONDITION, f"revision {app.revision} of app {app.name} is missing in etcd")
        return record.app_spec
