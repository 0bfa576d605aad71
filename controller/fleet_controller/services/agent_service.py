"""AgentService: sessions of agents."""

import logging
import math
from collections.abc import AsyncIterator

import grpc

from fleet.v1 import agent_pb2, agent_pb2_grpc
from fleet_controller.admission import Crowded
from fleet_controller.hosts import ObservedHost
from fleet_controller.leadership import Leadership, Office
from fleet_controller.lineage import Remembered
from fleet_controller.outbox import Outbox
from fleet_controller.records import HostRecord
from fleet_controller.services.control_artifacts import ArtifactCalls
from fleet_controller.services.log_relay import LogRelay
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
from fleet_core.ids import Epoch, WorkerId
from fleet_core.tls import Role
from fleet_core.version import PROTOCOL_VERSION

_log = logging.getLogger(__name__)


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    def __init__(self, leadership: Leadership, logs: LogRelay, artifacts: ArtifactCalls) -> None:
        self._leadership = leadership
        self._logs = logs
        self._artifacts = artifacts

    async def FetchArtifact(  # noqa: N802 (the contract's name)
        self, request: agent_pb2.FetchArtifactRequest, context: Context
    ) -> AsyncIterator[agent_pb2.ArtifactChunk]:
        async for chunk in self._artifacts.fetch(request, context):
            yield chunk

    async def Session(  # noqa: N802 (the contract's name)
        self, request_iterator: AsyncIterator[agent_pb2.AgentMessage], context: Context
    ) -> AsyncIterator[agent_pb2.ControllerMessage]:
        identity = await require_role(context, Role.AGENT)
        code = grpc.StatusCode.FAILED_PRECONDITION
        office = await require_office(context, self._leadership, code, PATIENCE_SECONDS)
        try:
            await office.admission.turn()
        except Crowded:
            text = f"controller {self._leadership.name} greets too many hosts at this moment: try again in a second"
            await abort(context, grpc.StatusCode.UNAVAILABLE, text)
        hello = (await first(request_iterator, context)).hello
        highest = Epoch.from_proto(hello.highest_epoch)
        peer = Remembered(f"host {hello.host_name}", hello.host_uid, hello.fleet_id, highest, hello.etcd_revision)
        await check_hello(context, identity, peer, hello.host_name, hello.protocol_version, office)
        await self._refuse_double(hello, office, context)
        record = HostRecord(
            name=hello.host_name,
            uid=hello.host_uid,
            address=hello.address,
            cpus=hello.cpus,
            agent_labels=dict(hello.labels),
        )
        try:
            await office.register_host(record)
        except StoreError as error:
            await abort(context, grpc.StatusCode.UNAVAILABLE, f"the host cannot be registered: {error}")
        welcome = agent_pb2.ControllerMessage(epoch=office.epoch.to_proto())
        welcome.welcome.protocol_version = PROTOCOL_VERSION
        welcome.welcome.heartbeat_interval_seconds = office.heartbeat_interval_seconds
        welcome.welcome.fleet_id = office.lineage.fleet.id
        welcome.welcome.pings = True
        yield welcome
        # Not before the welcome: a call that ends there would leave a host that nobody holds.
        await self._refuse_double(hello, office, context)
        outbox: Outbox[agent_pb2.ControllerMessage] = Outbox()
        host = office.hosts.join(hello, outbox)
        _log.info("host %s is connected (agent %s)", host.name, host.agent_version)
        self._logs.host_came(host)

        async def receive(message: agent_pb2.AgentMessage) -> None:
            if host.outbox is outbox:
                self._receive(office, host, message)

        # Where the agent answers pings, the connection ends when it does not (ADR 23).
        silence = math.inf if hello.answers_pings else MISSED_HEARTBEATS * office.heartbeat_interval_seconds
        try:
            async for message in converse(request_iterator, outbox, receive, silence):
                await office.awake()
                yield message
        finally:
            if office.hosts.leave(host, outbox):
                _log.info("host %s is no longer connected", host.name)
                self._logs.host_left(host.name)
                office.presence_changed()

    async def _refuse_double(self, hello: agent_pb2.AgentHello, office: Office, context: Context) -> None:
        """A second live agent of one name is refused; the same process's newer session takes the older one's place."""
        refusal = office.hosts.double(hello)
        if refusal:
            await abort(context, grpc.StatusCode.ALREADY_EXISTS, refusal)

    def _receive(self, office: Office, host: ObservedHost, message: agent_pb2.AgentMessage) -> None:
        kind = message.WhichOneof("message")
        if kind == "report":
            if message.report.complete:
                # Hosts that report are counted in every app's plan.
                office.hosts.report(host, message.report)
                office.presence_changed()
            else:
                office.conductor.reported(host, office.hosts.report(host, message.report))
        elif kind == "heartbeat":
            office.hosts.heard(host, message.heartbeat)
        elif kind == "leaving":
            host.leaving, host.let_go = message.leaving.leaving, False
            office.conductor.touch()
        elif kind == "replace":
            worker = WorkerId.from_proto(message.replace.worker)
            office.ask_to_replace(worker, message.replace.pid, message.replace.reason)
        elif kind == "log_chunk":
            self._logs.deliver(host.name, message.log_chunk)
