"""The session with the leading controller: hello, what this host runs, changes the moment they happen; assignments back.

The agent dials and never stops trying; without a controller the host goes on with the assignment it holds.
"""

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from fleet.v1 import agent_pb2, types_pb2
from fleet_agent.agent_service import SessionCall
from fleet_agent.assignment import AssignmentRefusedError, HeldAssignment, SpecMissingError
from fleet_agent.host import Host
from fleet_agent.logs import LogRequests
from fleet_agent.probes import boot_time
from fleet_agent.supervisor.protocol import Key
from fleet_agent.upkeep import UsageSampler
from fleet_core.ids import Epoch
from fleet_core.leader_search import LEADER_METADATA
from fleet_core.spec import spec_digest
from fleet_core.version import PROTOCOL_VERSION, program_version

_LOG = logging.getLogger(__name__)
_WELCOME_SECONDS = 5.0
_ASKING_SECONDS = 2.0
_DISK_SECONDS = 1.0
"""Between two attempts to write what a full disk refused."""
_INSTANCE = uuid.uuid4().hex
"""Of this process."""


class SessionEndedError(Exception):
    """This session is over; `leader` is the address another controller was named by, or empty."""

    def __init__(self, reason: str, leader: str = "") -> None:
        super().__init__(reason)
        self.leader = leader


class Session:
    """One conversation with one controller, from hello to its end."""

    def __init__(
        self, call: SessionCall, host: Host, sampler: UsageSampler, log_dir: Path, hello: agent_pb2.AgentHello
    ) -> None:
        self._call = call
        self._host = host
        self._sampler = sampler
        self._hello = hello
        self._specs: dict[str, types_pb2.AppSpec] = {}
        self._logs = LogRequests(log_dir, host.context.name, self._send_log_chunk)

    async def run(self, welcomed: Callable[[Epoch], None]) -> None:
        """Raises SessionEndedError, CallError; returns never."""
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._send(agent_pb2.AgentMessage(hello=self._hello))
            tasks.append(asyncio.create_task(self._report_changes(), name="report-changes"))
            async with asyncio.timeout(_WELCOME_SECONDS):
                message = await self._receive()
            if message.WhichOneof("message") != "welcome":
                raise SessionEndedError("the controller did not begin with a welcome")
            interval = message.welcome.heartbeat_interval_seconds
            if interval <= 0:
                raise SessionEndedError(f"the controller asks for a heartbeat every {interval:g} s")
            epoch = Epoch.from_proto(message.epoch)
            self._begin(epoch, message.welcome.fleet_id)
            welcomed(epoch)
            if message.welcome.pings:
                tasks.append(asyncio.create_task(self._send_news(), name="news"))
            else:
                tasks.append(asyncio.create_task(self._send_heartbeats(interval), name="heartbeats"))
            tasks.append(asyncio.create_task(self._ask_for_replacements(), name="ask-for-replacements"))
            tasks.append(asyncio.create_task(self._tell_of_leaving(), name="tell-of-leaving"))
            tasks.append(
                asyncio.create_task(self._take_messages(epoch, message.welcome.fleet_id), name="take-messages")
            )
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        except TimeoutError:
            raise SessionEndedError(f"the controller sent no welcome within {_WELCOME_SECONDS:g} s") from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._call.cancel()
            await self._logs.close()

    def _begin(self, epoch: Epoch, fleet_id: str) -> None:
        """Raises SessionEndedError where this host may not obey such a controller."""
        try:
            self._host.held.obey(epoch).belong(fleet_id)
        except AssignmentRefusedError as error:
            raise SessionEndedError(f"refused: {error}") from error

    async def _hold(self, change: Callable[[HeldAssignment], HeldAssignment]) -> None:
        """Make what is held durable as `change` makes it, however long the disk refuses: before that, nothing may be acted on.

        Raises AssignmentRefusedError.
        """
        while True:
            try:
                await self._host.hold(change(self._host.held))
            except OSError as error:
                self._host.state_unwritable(error)
                await asyncio.sleep(_DISK_SECONDS)
            else:
                self._host.state_unwritable(None)
                return

    async def _receive(self) -> agent_pb2.ControllerMessage:
        message = await self._call.read()
        if message is None:
            raise SessionEndedError("the controller ended the session")
        return message

    async def _obey(self, epoch: Epoch, fleet_id: str = "") -> None:
        """Raises SessionEndedError on an epoch lower than one obeyed before (invariant 4)."""
        try:
            await self._hold(lambda held: held.obey(epoch).belong(fleet_id))
        except AssignmentRefusedError as error:
            raise SessionEndedError(f"refused: {error}") from error

    async def _take_messages(self, epoch: Epoch, fleet_id: str) -> None:
        await self._obey(epoch, fleet_id)
        while True:
            message = await self._receive()
            await self._obey(Epoch.from_proto(message.epoch))
            match message.WhichOneof("message"):
                case "assignment":
                    await self._take_assignment(Epoch.from_proto(message.epoch), message.assignment)
                case "log_request":
                    self._logs.start(message.log_request)
                case "log_cancel":
                    self._logs.cancel(message.log_cancel.request_id)
                case "usage_watch":
                    self._host.watch_usage(message.usage_watch.for_seconds)
                case "drained":
                    self._host.drained.set()
                case _:
                    continue  # a newer controller's; to be ignored

    async def _take_assignment(self, epoch: Epoch, assignment: agent_pb2.Assignment) -> None:
        self._specs.update((spec_digest(spec), spec) for spec in assignment.specs)
        try:
            await self._hold(lambda held: held.accept(epoch, assignment, self._specs))
        except SpecMissingError as error:
            raise SessionEndedError(str(error)) from error
        except AssignmentRefusedError as error:
            _LOG.error("refused: %s", error)

    async def _report_changes(self) -> None:
        """The whole first, then what changed since; what piles up while one report is written goes into the next."""
        sent: dict[Key, types_pb2.WorkerStatus] = {}
        sent_version: tuple[Epoch, int] | None = None
        prepared: tuple[agent_pb2.PreparationStatus, ...] = ()
        while True:
            self._host.changed.clear()
            held, statuses = self._host.held, dict(self._host.statuses)
            version = (held.epoch, held.sequence)
            changed = [
                key for key, status in statuses.items() if (said := sent.get(key)) is not status and said != status
            ]
            removed = [sent[key].id for key in sent.keys() - statuses.keys()]
            fresh = prepared != self._host.preparations or version != sent_version
            if sent_version is None or changed or removed or fresh:
                report = agent_pb2.WorkerReport(
                    complete=sent_version is None,
                    workers=[self._dated(key, statuses[key], complete=sent_version is None) for key in changed],
                    removed=removed,
                    assignment_epoch=held.epoch.to_proto(),
                    assignment_sequence=held.sequence,
                    preparations=self._host.preparations,
                )
                sent, sent_version, prepared = statuses, version, self._host.preparations
                await self._send(agent_pb2.AgentMessage(report=report))
            await self._host.changed.wait()

    async def _send_news(self) -> None:
        """Each sample of usage, and what is wrong with the host when that changes: it is looked at while the controller asks
        whether this agent is there, as nothing else wakes an idle one (ADR 23)."""
        told: list[str] = []

        def look() -> None:
            if self._host.troubles() != told:
                self._sampler.sampled.set()

        self._call.on_pulse = look
        while True:
            self._sampler.sampled.clear()
            told = self._host.troubles()
            await self._send(self._heartbeat_with_usage(told))
            await self._sampler.sampled.wait()

    async def _send_heartbeats(self, interval: float) -> None:
        """For a controller of before ADR 23: each shows that the agent's loop turns; usage is in all that follow a new sample."""
        sent = 0
        while True:
            await asyncio.sleep(interval)
            notices = self._host.troubles()
            if sent == self._sampler.number and not notices:
                await self._send(agent_pb2.AgentMessage(heartbeat=agent_pb2.AgentHeartbeat()))
            else:
                sent = self._sampler.number
                await self._send(self._heartbeat_with_usage(notices))

    def _heartbeat_with_usage(self, notices: list[str]) -> agent_pb2.AgentMessage:
        heartbeat = agent_pb2.AgentHeartbeat(notices=notices)
        for key, usage in self._sampler.latest.items():
            status = self._host.statuses.get(key)
            if status is None or status.pid != usage.pid:
                continue
            heartbeat.usage.add(
                id=status.id,
                pid=usage.pid,
                rss_bytes=usage.rss_bytes,
                cpu_percent=usage.cpu_percent,
                open_files=usage.open_files,
                threads=usage.threads,
                uptime_seconds=self._uptime(key),
            )
        return agent_pb2.AgentMessage(heartbeat=heartbeat)

    async def _ask_for_replacements(self) -> None:
        """Again and again, until the process is gone or the reason is."""
        while True:
            await self._host.demanding.wait()
            for key, demand in list(self._host.demands.items()):
                status = self._host.statuses.get(key)
                if status is not None and status.pid == demand.pid:
                    request = agent_pb2.ReplaceRequest(worker=status.id, pid=demand.pid, reason=demand.reason)
                    await self._send(agent_pb2.AgentMessage(replace=request))
            await asyncio.sleep(_ASKING_SECONDS)

    async def _tell_of_leaving(self) -> None:
        told = False
        while True:
            self._host.leaving_changed.clear()
            if self._host.leaving != told:
                told = self._host.leaving
                leaving = agent_pb2.AgentLeaving(leaving=told)
                await self._send(agent_pb2.AgentMessage(leaving=leaving))
            await self._host.leaving_changed.wait()

    def _dated(self, key: Key, status: types_pb2.WorkerStatus, *, complete: bool) -> types_pb2.WorkerStatus:
        """With its uptime now; what it runs is said in a complete report alone."""
        dated = types_pb2.WorkerStatus()
        dated.CopyFrom(status)
        dated.uptime_seconds = self._uptime(key)
        if not complete:
            dated.ClearField("spec_digest")
            dated.ClearField("artifact_digest")
        return dated

    def _uptime(self, key: Key) -> float:
        worker = self._host.workers.get(key)
        return max(0.0, boot_time() - worker.started_monotonic) if worker and worker.pid else 0.0

    async def _send_log_chunk(self, chunk: agent_pb2.LogChunk) -> None:
        await self._send(agent_pb2.AgentMessage(log_chunk=chunk))

    async def _send(self, message: agent_pb2.AgentMessage) -> None:
        """Raises CallError."""
        await self._call.write(message)


def make_hello(host: Host, uid: str, boot: str, labels: dict[str, str]) -> agent_pb2.AgentHello:
    held = host.held
    return agent_pb2.AgentHello(
        protocol_version=PROTOCOL_VERSION,
        host_uid=uid,
        host_name=host.context.name,
        boot_id=boot,
        agent_version=program_version(),
        highest_epoch=held.highest_epoch.to_proto(),
        assignment_epoch=held.epoch.to_proto(),
        assignment_sequence=held.sequence,
        fleet_id=held.fleet_id,
        etcd_revision=held.etcd_revision,
        instance=_INSTANCE,
        cpus=len(os.sched_getaffinity(0)),
        address=host.context.address,
        labels=labels,
        prepares_code=True,
        answers_pings=True,
    )


def leader_of(metadata: Mapping[str, str]) -> str:
    """The address a controller that does not lead named; empty: none."""
    return metadata.get(LEADER_METADATA, "")
