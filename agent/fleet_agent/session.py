"""The session with the leading controller: hello, what this host runs, changes the moment they happen; assignments back.

The agent dials and never stops trying; without a controller the host goes on with the assignment it holds.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from fleet.v1 import agent_pb2, types_pb2
from fleet_agent.assignment import AssignmentRefusedError, SpecMissingError
from fleet_agent.host import Host
from fleet_agent.logs import LogRequests
from fleet_agent.probes import boot_time
from fleet_agent.supervisor.protocol import Key
from fleet_agent.upkeep import UsageSampler
from fleet_core.ids import Epoch
from fleet_core.spec import spec_digest
from fleet_core.version import PROTOCOL_VERSION, program_version

_LOG = logging.getLogger(__name__)
_WELCOME_SECONDS = 5.0
_ASKING_SECONDS = 2.0
_LEADER_METADATA = "fleet-leader"

Call = grpc.aio.StreamStreamCall[agent_pb2.AgentMessage, agent_pb2.ControllerMessage]
OpenChannel = Callable[[str], grpc.aio.Channel]
"""Address → channel, closed by the session. Raises OSError when a certificate cannot be read."""


class SessionEndedError(Exception):
    """This session is over; `leader` is the address another controller was named by, or empty."""

    def __init__(self, reason: str, leader: str = "") -> None:
        super().__init__(reason)
        self.leader = leader


class Session:
    """One conversation with one controller, from hello to its end."""

    def __init__(
        self, call: Call, host: Host, sampler: UsageSampler, log_dir: Path, hello: agent_pb2.AgentHello
    ) -> None:
        self._call = call
        self._host = host
        self._sampler = sampler
        self._hello = hello
        self._writing = asyncio.Lock()
        self._writes: set[asyncio.Task[None]] = set()
        self._specs: dict[str, types_pb2.AppSpec] = {}
        self._logs = LogRequests(log_dir, host.context.name, self._send_log_chunk)

    async def run(self, welcomed: Callable[[Epoch], None]) -> None:
        """Raises SessionEndedError, AioRpcError; returns never."""
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
            welcomed(Epoch.from_proto(message.epoch))
            tasks.append(asyncio.create_task(self._send_heartbeats(interval), name="heartbeats"))
            tasks.append(asyncio.create_task(self._ask_for_replacements(), name="ask-for-replacements"))
            tasks.append(asyncio.create_task(self._tell_of_leaving(), name="tell-of-leaving"))
            tasks.append(asyncio.create_task(self._take_messages(), name="take-messages"))
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
            await asyncio.gather(*self._writes, return_exceptions=True)

    async def _receive(self) -> agent_pb2.ControllerMessage:
        """The next message of an epoch this host may obey, made durable when it is a higher one."""
        with _cancelled_call_is_over():
            message = await self._call.read()
        if not isinstance(message, agent_pb2.ControllerMessage):
            metadata = await self._call.trailing_metadata()
            raise SessionEndedError(
                await self._call.details() or "the controller ended the session", leader_of(metadata)
            )
        try:
            await self._host.hold(self._host.held.obey(Epoch.from_proto(message.epoch)))
        except AssignmentRefusedError as error:
            raise SessionEndedError(f"refused: {error}") from error
        except OSError as error:
            raise SessionEndedError(f"the state folder cannot be written: {error}") from error
        return message

    async def _take_messages(self) -> None:
        while True:
            message = await self._receive()
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
            held = self._host.held.accept(epoch, assignment, self._specs)
        except SpecMissingError as error:
            raise SessionEndedError(str(error)) from error
        except AssignmentRefusedError as error:
            _LOG.error("refused: %s", error)
            return
        try:
            await self._host.hold(held)
        except OSError as error:
            raise SessionEndedError(f"the assignment cannot be written: {error}") from error

    async def _report_changes(self) -> None:
        """The whole first, then what changed since; what piles up while one report is written goes into the next."""
        sent: dict[Key, types_pb2.WorkerStatus] = {}
        sent_version: tuple[Epoch, int] | None = None
        while True:
            self._host.changed.clear()
            held, statuses = self._host.held, dict(self._host.statuses)
            version = (held.epoch, held.sequence)
            changed = [key for key, status in statuses.items() if sent.get(key) != status]
            removed = [sent[key].id for key in sent.keys() - statuses.keys()]
            if sent_version is None or changed or removed or version != sent_version:
                report = agent_pb2.WorkerReport(
                    complete=sent_version is None,
                    workers=[self._with_uptime(key, statuses[key]) for key in changed],
                    removed=removed,
                    assignment_epoch=held.epoch.to_proto(),
                    assignment_sequence=held.sequence,
                )
                sent, sent_version = statuses, version
                await self._send(agent_pb2.AgentMessage(report=report))
            await self._host.changed.wait()

    async def _send_heartbeats(self, interval: float) -> None:
        """Each shows that the agent lives; usage is in those that follow a new sample."""
        sent = 0
        while True:
            await asyncio.sleep(interval)
            heartbeat = agent_pb2.AgentHeartbeat()
            if sent != self._sampler.number:
                sent = self._sampler.number
                self._add_usage(heartbeat)
            await self._send(agent_pb2.AgentMessage(heartbeat=heartbeat))

    def _add_usage(self, heartbeat: agent_pb2.AgentHeartbeat) -> None:
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

    def _with_uptime(self, key: Key, status: types_pb2.WorkerStatus) -> types_pb2.WorkerStatus:
        dated = types_pb2.WorkerStatus()
        dated.CopyFrom(status)
        dated.uptime_seconds = self._uptime(key)
        return dated

    def _uptime(self, key: Key) -> float:
        worker = self._host.workers.get(key)
        return max(0.0, boot_time() - worker.started_monotonic) if worker and worker.pid else 0.0

    async def _send_log_chunk(self, chunk: agent_pb2.LogChunk) -> None:
        await self._send(agent_pb2.AgentMessage(log_chunk=chunk))

    async def _send(self, message: agent_pb2.AgentMessage) -> None:
        """One message at a time. Raises AioRpcError, and SessionEndedError when the call is over.

        Shielded, because grpc.aio cancels the whole call when a write is cancelled, and a cancelled log request must not end
        the session.
        """
        write = asyncio.create_task(self._write(message), name="session-write")
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)
        await asyncio.shield(write)

    async def _write(self, message: agent_pb2.AgentMessage) -> None:
        async with self._writing:
            try:
                with _cancelled_call_is_over():
                    await self._call.write(message)
            except asyncio.InvalidStateError as error:
                raise SessionEndedError("the controller ended the session") from error


@contextmanager
def _cancelled_call_is_over() -> Iterator[None]:
    """grpc.aio raises CancelledError for a call that was cancelled, too; unless this task is being cancelled, that is an end."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise SessionEndedError("the session was cancelled") from None


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
        cpus=len(os.sched_getaffinity(0)),
        address=host.context.address,
        labels=labels,
    )


def leader_of(metadata: grpc.aio.Metadata | None) -> str:
    """The address a controller that does not lead named; empty: none."""
    value = metadata.get(_LEADER_METADATA, "") if metadata is not None else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
