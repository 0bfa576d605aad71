"""A controller that only speaks the agent session: mutual TLS, a welcome, and what a test tells it to send."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc

from fleet.v1 import agent_pb2, agent_pb2_grpc, types_pb2
from fleet_core.authority import create_authority, issue
from fleet_core.grpc_tls import server_credentials, server_options
from fleet_core.ids import Epoch
from fleet_core.spec import AppSpec, spec_digest
from fleet_core.tls import Identity, Role
from tests.ports import free_address

DEADLINE_SECONDS = 20.0
Slot = tuple[str, int, int]
"""(app, slot, generation)."""


def target(
    spec: AppSpec, slot: int, generation: int = 1, phase: str = "PHASE_RUN", artifact_digest: str = ""
) -> agent_pb2.Target:
    return agent_pb2.Target(
        app=spec.name,
        slot=slot,
        generation=generation,
        revision=1,
        phase=types_pb2.Phase.Value(phase),
        spec_digest=spec_digest(spec.to_proto()),
        artifact_digest=artifact_digest,
    )


class FakeController(agent_pb2_grpc.AgentServiceServicer):
    def __init__(self, folder: Path, epoch: Epoch | None = None) -> None:
        self.folder = folder
        self.epoch = epoch or Epoch(1, 10)
        self.heartbeat_seconds = 0.2
        self.pings = True
        """False: as controllers of before ADR 23."""
        self.leader = ""
        """Set: refuses sessions and names this address."""
        self.address = ""
        self.hellos: list[agent_pb2.AgentHello] = []
        self.reports: list[tuple[float, agent_pb2.WorkerReport]] = []
        self.heartbeats: list[agent_pb2.AgentHeartbeat] = []
        self.chunks: list[agent_pb2.LogChunk] = []
        self.demands: list[agent_pb2.ReplaceRequest] = []
        self.departures: list[bool] = []
        """What it was told of leaving, in this order."""
        self.workers: dict[Slot, types_pb2.WorkerStatus] = {}
        self.preparations: tuple[agent_pb2.PreparationStatus, ...] = ()
        self.history: list[tuple[float, types_pb2.WorkerStatus]] = []
        self.code: dict[str, bytes] = {}
        """Digest → the bytes that are sent for it."""
        self.fetches: list[agent_pb2.FetchArtifactRequest] = []
        self.break_after = 0
        """Not 0: the next fetch breaks after so many bytes."""
        self._sequences = itertools.count(1)
        self._outbox: asyncio.Queue[agent_pb2.ControllerMessage] | None = None
        self._server: grpc.aio.Server | None = None
        self._changed = asyncio.Event()

    async def start(self, address: str | None = None) -> None:
        create_authority(self.folder)
        files = issue(self.folder, Identity(Role.CONTROLLER, "controller1"))
        self._server = grpc.aio.server(options=server_options(2 * self.heartbeat_seconds, 10.0))
        agent_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        self.address = free_address() if address is None else address
        self._server.add_secure_port(self.address, server_credentials(files))
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def Session(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[agent_pb2.AgentMessage], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[agent_pb2.ControllerMessage]:
        if self.leader:
            context.set_trailing_metadata((("fleet-leader", self.leader),))
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"not the leader, which is at {self.leader}")
        outbox: asyncio.Queue[agent_pb2.ControllerMessage] = asyncio.Queue()
        self._outbox = outbox
        reading = asyncio.create_task(self._read(request_iterator))
        try:
            welcome = agent_pb2.AgentWelcome(
                protocol_version=1, heartbeat_interval_seconds=self.heartbeat_seconds, pings=self.pings
            )
            yield agent_pb2.ControllerMessage(epoch=self.epoch.to_proto(), welcome=welcome)
            while True:
                yield await outbox.get()
        finally:
            if self._outbox is outbox:  # the next session may have begun
                self._outbox = None
            reading.cancel()

    async def FetchArtifact(  # noqa: N802 - gRPC's name
        self, request: agent_pb2.FetchArtifactRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[agent_pb2.ArtifactChunk]:
        self.fetches.append(request)
        self._changed.set()
        content = self.code.get(request.digest)
        if content is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no code {request.digest[:12]}: deploy it again")
        end, self.break_after = self.break_after or len(content), 0
        yield agent_pb2.ArtifactChunk(size_bytes=len(content))
        for begin in range(request.offset, end, 1000):
            yield agent_pb2.ArtifactChunk(data=content[begin : min(begin + 1000, end)], size_bytes=len(content))
        if end < len(content):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the controller ends")

    async def _read(self, messages: AsyncIterator[agent_pb2.AgentMessage]) -> None:
        async for message in messages:
            match message.WhichOneof("message"):
                case "hello":
                    self.hellos.append(message.hello)
                case "report":
                    self._take_report(message.report)
                case "heartbeat":
                    self.heartbeats.append(message.heartbeat)
                case "log_chunk":
                    self.chunks.append(message.log_chunk)
                case "replace":
                    self.demands.append(message.replace)
                case "leaving":
                    self.departures.append(message.leaving.leaving)
            self._changed.set()

    def _take_report(self, report: agent_pb2.WorkerReport) -> None:
        now = time.monotonic()
        self.reports.append((now, report))
        if report.complete:
            self.workers.clear()
        for status in report.workers:
            self.workers[(status.id.app, status.id.slot, status.id.generation)] = status
            self.history.append((now, status))
        self.preparations = tuple(report.preparations)
        for worker in report.removed:
            del self.workers[(worker.app, worker.slot, worker.generation)]

    @property
    def in_session(self) -> bool:
        return self._outbox is not None

    def send(self, epoch: Epoch | None = None, **message: object) -> None:
        assert self._outbox is not None, "no session"
        self._outbox.put_nowait(agent_pb2.ControllerMessage(epoch=(epoch or self.epoch).to_proto(), **message))  # type: ignore[arg-type]

    def assign(
        self,
        *targets: agent_pb2.Target,
        specs: tuple[AppSpec, ...] = (),
        preparations: tuple[agent_pb2.Preparation, ...] = (),
        allow_empty: bool = False,
        sequence: int | None = None,
        epoch: Epoch | None = None,
    ) -> int:
        number = next(self._sequences) if sequence is None else sequence
        assignment = agent_pb2.Assignment(
            sequence=number,
            targets=targets,
            specs=[spec.to_proto() for spec in specs],
            preparations=preparations,
            allow_empty=allow_empty,
        )
        self.send(epoch, assignment=assignment)
        return number

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_session(self) -> None:
        """The next complete report."""
        before = len(self.complete_reports())
        await self.until(lambda: len(self.complete_reports()) > before)

    def complete_reports(self) -> list[agent_pb2.WorkerReport]:
        return [report for _, report in self.reports if report.complete]

    async def until_state(self, slot: Slot, state: str) -> types_pb2.WorkerStatus:
        await self.until(lambda: self.state(slot) == f"WORKER_STATE_{state}")
        return self.workers[slot]

    def state(self, slot: Slot) -> str:
        status = self.workers.get(slot)
        return types_pb2.WorkerState.Name(status.state) if status else ""
