"""BalancerService: subscriptions of balancers."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator

import grpc

from fleet.v1 import balancer_pb2, balancer_pb2_grpc, types_pb2
from fleet_controller.balancers import ObservedBalancer
from fleet_controller.leadership import Leadership, Office
from fleet_controller.lineage import Remembered
from fleet_controller.outbox import Outbox
from fleet_controller.records import BalancerRecord
from fleet_controller.services.streams import (
    MISSED_HEARTBEATS,
    PATIENCE_SECONDS,
    Context,
    abort,
    check_hello,
    converse,
    first,
    require_office,
    require_role,
)
from fleet_controller.store.interface import StoreError
from fleet_core.ids import Epoch
from fleet_core.route import RoutePolicy
from fleet_core.tls import Role
from fleet_core.version import PROTOCOL_VERSION

_log = logging.getLogger(__name__)
VALIDATE_TIMEOUT_SECONDS = 5.0


class BalancerService(balancer_pb2_grpc.BalancerServiceServicer):
    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership
        self._validations: dict[str, asyncio.Future[balancer_pb2.Validated]] = {}

    async def Subscribe(  # noqa: N802 (the contract's name)
        self, request_iterator: AsyncIterator[balancer_pb2.BalancerMessage], context: Context
    ) -> AsyncIterator[balancer_pb2.UpstreamMessage]:
        identity = await require_role(context, Role.BALANCER)
        code = grpc.StatusCode.FAILED_PRECONDITION
        office = await require_office(context, self._leadership, code, PATIENCE_SECONDS)
        hello = (await first(request_iterator, context)).hello
        highest = Epoch.from_proto(hello.highest_epoch)
        peer = Remembered(f"balancer {hello.name}", hello.balancer_uid, hello.fleet_id, highest, hello.etcd_revision)
        await check_hello(context, identity, peer, hello.name, hello.protocol_version, office)
        double = office.upstreams.double(hello)
        if double:
            await abort(context, grpc.StatusCode.ALREADY_EXISTS, double)
        try:
            await office.register_balancer(BalancerRecord(name=hello.name, uid=hello.balancer_uid))
        except StoreError as error:
            await abort(context, grpc.StatusCode.UNAVAILABLE, f"the balancer cannot be registered: {error}")
        welcome = balancer_pb2.UpstreamMessage(epoch=office.epoch.to_proto())
        welcome.welcome.protocol_version = PROTOCOL_VERSION
        welcome.welcome.heartbeat_interval_seconds = office.heartbeat_interval_seconds
        welcome.welcome.fleet_id = office.lineage.fleet.id
        yield welcome
        outbox: Outbox[balancer_pb2.UpstreamMessage] = Outbox()
        balancer = office.upstreams.subscribe(hello, outbox)
        _log.info("balancer %s is connected (%s %s)", balancer.name, balancer.driver, balancer.driver_version)
        office.conductor.touch()

        async def receive(message: balancer_pb2.BalancerMessage) -> None:
            if balancer.outbox is outbox:
                self._receive(office, balancer, message)

        silence = MISSED_HEARTBEATS * office.heartbeat_interval_seconds
        try:
            async for message in converse(request_iterator, outbox, receive, silence):
                await office.awake()
                yield message
        finally:
            if office.upstreams.leave(balancer, outbox):
                _log.info("balancer %s is no longer connected", balancer.name)
                office.conductor.touch()

    async def refusal(self, office: Office, pool: balancer_pb2.Pool) -> str:
        """Ask every connected balancer whether `pool` could be applied; the first refusal in words, empty: none.

        A route that none of them would listen for is refused too: nobody would ever reach the app.
        """
        asked: dict[str, tuple[ObservedBalancer, asyncio.Future[balancer_pb2.Validated]]] = {}
        for balancer in office.upstreams.balancers.values():
            if balancer.outbox is None:
                continue
            identifier = uuid.uuid4().hex
            answer: asyncio.Future[balancer_pb2.Validated] = asyncio.get_running_loop().create_future()
            asked[identifier] = balancer, answer
            self._validations[identifier] = answer
            message = balancer_pb2.UpstreamMessage(epoch=office.epoch.to_proto())
            message.validate.request_id = identifier
            message.validate.pool.CopyFrom(pool)
            balancer.outbox.put(("validate", identifier), lambda message=message: message)  # type: ignore[misc]
        try:
            elsewhere = []
            for balancer, answer in asked.values():
                try:
                    async with asyncio.timeout(VALIDATE_TIMEOUT_SECONDS):
                        validated = await answer
                except TimeoutError:
                    return f"balancer {balancer.name} did not say in time whether it can serve {_shown(pool.route)}"
                if validated.error:
                    return f"balancer {balancer.name}: {validated.error}"
                if validated.elsewhere:
                    elsewhere.append(f"{balancer.name} listens on {balancer.listen_address}")
            if elsewhere and len(elsewhere) == len(asked):
                ports = (f":{port}" for _, port in RoutePolicy.from_proto(pool.route).addresses.values())
                return (
                    f"no balancer has the address of {_shown(pool.route)} ({', '.join(sorted(elsewhere))}): "
                    f"write {' and '.join(ports)} for all of them"
                )
        finally:
            for identifier in asked:
                self._validations.pop(identifier, None)
        return ""

    def _receive(self, office: Office, balancer: ObservedBalancer, message: balancer_pb2.BalancerMessage) -> None:
        kind = message.WhichOneof("message")
        if kind == "applied":
            office.upstreams.acknowledge(balancer, message.applied)
            office.conductor.touch([message.applied.pool])
        elif kind == "heartbeat":
            changed = office.upstreams.loads(balancer, message.heartbeat)
            if changed:
                office.conductor.touch(changed)
        elif kind == "validated":
            answer = self._validations.get(message.validated.request_id)
            if answer is not None and not answer.done():
                answer.set_result(message.validated)


def _shown(route: types_pb2.RoutePolicy) -> str:
    """Its addresses."""
    return " and ".join(RoutePolicy.from_proto(route).written.values())
