"""What the calls of ControlService have in common: who may call, what exists, and how a decision becomes durable."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from typing import NoReturn, TypeVar

import grpc

from fleet.v1 import balancer_pb2, control_pb2, types_pb2
from fleet_controller.leadership import Leadership, Office
from fleet_controller.lineage import Halted
from fleet_controller.mutations import changes
from fleet_controller.mutations.changes import Ask, Change, Refused
from fleet_controller.planning.placement import HostFact
from fleet_controller.records import (
    AppRecord,
    BalancerRecord,
    HostRecord,
    Record,
    RevisionRecord,
    RolloutRecord,
    app_key,
    balancer_key,
    host_key,
    rollout_key,
)
from fleet_controller.relocator import host_facts
from fleet_controller.services.balancer_service import BalancerService
from fleet_controller.services.presentation import rollout_message
from fleet_controller.services.streams import Context, abort, require_office, require_role
from fleet_controller.store.interface import Conflict, StoreError, StoreFull, StoreUnavailable
from fleet_controller.time_of_day import time_of_day
from fleet_core.checked import CheckError
from fleet_core.spec import AppSpec
from fleet_core.tls import Role

_CODES = {
    changes.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    changes.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    changes.EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    changes.PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
}
_PATIENCE_SECONDS = 4.0
"""So long a change waits for etcd to choose another leader, which takes it one to two seconds, before it is refused."""
_COMMIT_SECONDS = 2.0
_RETRY_SECONDS = 0.05
_ETCD_SILENT = "etcd does not answer, so nothing can be changed now; what runs goes on: look at the etcd servers"
_REPEAT_SECONDS = 1.0
_T = TypeVar("_T")


class Desk:
    def __init__(self, leadership: Leadership, balancers: BalancerService) -> None:
        self.leadership = leadership
        self._balancers = balancers

    # Who and what

    async def office(self, context: Context) -> Office:
        await require_role(context, Role.OPERATOR)
        return await require_office(context, self.leadership, grpc.StatusCode.UNAVAILABLE)

    async def changing(self, context: Context) -> Office:
        """As `office`, for calls that change something: they are refused while nothing may be acted on, whatever they ask for."""
        office = await self.office(context)
        if office.lineage.trouble:
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, office.lineage.trouble)
        return office

    async def app(self, office: Office, name: str, context: Context) -> AppRecord:
        app = office.desired.get(app_key(name), AppRecord)
        if app is None:
            await self.refuse(context, Refused(changes.NOT_FOUND, f"no app is named {name}"))
        return app

    async def host(self, office: Office, name: str, context: Context) -> HostRecord:
        host = office.desired.get(host_key(name), HostRecord)
        if host is None:
            text = f"no host is named {name}: `fleetctl host ls` shows them"
            await self.refuse(context, Refused(changes.NOT_FOUND, text))
        return host

    async def spec(self, message: types_pb2.AppSpec, context: Context) -> AppSpec:
        try:
            return AppSpec.from_proto(message)
        except CheckError as error:
            return await abort(context, grpc.StatusCode.INVALID_ARGUMENT, error.message)

    async def check_route(self, office: Office, spec: AppSpec, context: Context) -> None:
        """End the call where a connected balancer could not serve the spec's route."""
        if not spec.route.routed:
            return
        pool = balancer_pb2.Pool(name=spec.name, version=1, route=spec.route.to_proto())
        refusal = await self._balancers.refusal(office, pool)
        if refusal:
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, refusal)

    def host_facts(self, office: Office) -> dict[str, HostFact]:
        return host_facts(office.desired, office.hosts)

    def ask(
        self, office: Office, app: str, request_id: str, options: control_pb2.RolloutOptions, cause: str = ""
    ) -> Ask:
        """Raises Refused where a balancer that shall be ignored is none."""
        for name in options.ignore_balancers:
            if office.desired.get(balancer_key(name), BalancerRecord) is None:
                raise Refused(changes.NOT_FOUND, f"no balancer is named {name}: `fleetctl balancer ls` shows them")
        return Ask(
            request=request_id,
            past=tuple(map(office.conductor.as_far_as_it_is, office.desired.rollouts_of(app))),
            supersede=options.supersede,
            ignored_balancers=tuple(options.ignore_balancers),
            cause=cause,
            at=time_of_day(),
        )

    def revisions(self, office: Office, app: str) -> list[RevisionRecord]:
        """Oldest first."""
        records = (record for record in office.desired.all(RevisionRecord) if record.app == app)
        return sorted(records, key=lambda record: record.number)

    async def passes(self, office: Office, context: Context) -> AsyncIterator[None]:
        """Now, after each of the conductor's passes, and every second although nothing was planned: what is watched goes on.

        Ends the call with UNAVAILABLE once `office` leads no more.
        """
        while self.leadership.office is office:
            yield
            try:
                async with asyncio.timeout(_REPEAT_SECONDS), office.conductor.planned:
                    await office.conductor.planned.wait()
            except TimeoutError:
                continue
        text = f"controller {self.leadership.name} does not lead any more"
        await abort(context, grpc.StatusCode.UNAVAILABLE, text)

    # Deciding and writing

    async def change(
        self,
        office: Office,
        request_id: str,
        name: str,
        decide: Callable[[AppRecord], Change | None],
        context: Context,
    ) -> control_pb2.RolloutResponse:
        """Decide on the app as it is, and write the decision.

        A request id that made a rollout already is answered with that rollout.
        """

        def decide_on_existing(app: AppRecord | None) -> Change | None:
            if app is None:
                raise Refused(changes.NOT_FOUND, f"no app is named {name}")
            return decide(app)

        return await self.change_or_create(office, request_id, name, decide_on_existing, context)

    async def change_or_create(
        self,
        office: Office,
        request_id: str,
        name: str,
        decide: Callable[[AppRecord | None], Change | None],
        context: Context,
    ) -> control_pb2.RolloutResponse:
        """As `change`, where there may be no app of that name yet."""

        def attempt() -> tuple[control_pb2.RolloutResponse, Iterable[tuple[str, Record | None]]]:
            repeated = office.desired.get(rollout_key(request_id), RolloutRecord)
            if repeated is not None:
                return control_pb2.RolloutResponse(rollout=rollout_message(office, repeated)), ()
            change = decide(office.desired.get(app_key(name), AppRecord))
            if change is None:
                return control_pb2.RolloutResponse(), ()
            return control_pb2.RolloutResponse(rollout=rollout_message(office, change.rollout)), change.writes()

        return await self.commit(office, request_id, [app_key(name), rollout_key(request_id)], attempt, context)

    async def commit(
        self,
        office: Office,
        request_id: str,
        reads: Iterable[str],
        attempt: Callable[[], tuple[_T, Iterable[tuple[str, Record | None]]]],
        context: Context,
    ) -> _T:
        """Answer as `attempt` says, once what it writes is written; anew when somebody changed what it `reads` meanwhile.

        What `reads` names cannot be written twice from one state, so that a write whose answer was lost, as at the death of
        etcd's leader, may be tried again: if it happened after all, `attempt` finds what it made.
        """
        await self._check_request_id(request_id, context)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_SECONDS
        code, text = grpc.StatusCode.FAILED_PRECONDITION, _ETCD_SILENT
        while True:
            try:
                answer, writes = attempt()
            except Refused as refusal:
                await self.refuse(context, refusal)
            except ValueError as error:
                await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
            writes = list(writes)
            if not writes:
                return answer
            if office.term.provable():
                try:
                    await office.commit(reads, writes, timeout=_COMMIT_SECONDS)
                except Conflict:
                    code, text = grpc.StatusCode.ABORTED, "others are changing this at the same moment: ask again"
                except (StoreUnavailable, TimeoutError) as error:
                    code, text = grpc.StatusCode.FAILED_PRECONDITION, _unconfirmed(error)
                except StoreError as error:
                    await abort(context, grpc.StatusCode.FAILED_PRECONDITION, _not_written(error))
                else:
                    return answer
            if office.term.lost.is_set():
                code = grpc.StatusCode.UNAVAILABLE
                text = f"controller {self.leadership.name} does not lead any more"
            if code is grpc.StatusCode.UNAVAILABLE or loop.time() > deadline:
                await abort(context, code, text)
            await asyncio.sleep(_RETRY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 (spreads contenders)

    async def refuse(self, context: Context, refusal: Refused) -> NoReturn:
        await abort(context, _CODES[refusal.kind], str(refusal))

    async def _check_request_id(self, request_id: str, context: Context) -> None:
        try:
            uuid.UUID(request_id)
        except ValueError:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "a mutation needs a request id, a UUID")


def _not_written(error: StoreError) -> str:
    if isinstance(error, Halted):
        return str(error)
    return f"nothing was changed: {error}" if isinstance(error, StoreFull) else _unconfirmed(error)


def _unconfirmed(error: Exception) -> str:
    return f"etcd cannot be reached, so the change was not confirmed: see `fleetctl status` once it is back ({error})"
