"""Log lines from the agents that have them to the callers who asked."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from fleet.v1 import agent_pb2
from fleet_controller.hosts import ObservedHost
from fleet_core.ids import Epoch

_CHUNKS_WAITING = 256


@dataclass(slots=True)
class _Reading:
    """One caller's request, on all its hosts."""

    chunks: asyncio.Queue[tuple[str, agent_pb2.LogChunk]] = field(
        default_factory=lambda: asyncio.Queue(_CHUNKS_WAITING)
    )
    open_hosts: set[str] = field(default_factory=set)
    overflowed: bool = False


class LogRelay:
    """Chunks wait in a bounded queue a caller; one who does not read is cut off, the agents are not slowed."""

    def __init__(self) -> None:
        self._readings: dict[str, _Reading] = {}

    def deliver(self, host: str, chunk: agent_pb2.LogChunk) -> None:
        reading = self._readings.get(chunk.request_id)
        if reading is None:
            return
        try:
            reading.chunks.put_nowait((host, chunk))
        except asyncio.QueueFull:
            reading.overflowed = True

    def host_left(self, host: str) -> None:
        for identifier in self._readings:
            chunk = agent_pb2.LogChunk(request_id=identifier, done=True, error=f"host {host} is no longer connected")
            self.deliver(host, chunk)

    async def read(
        self, hosts: list[ObservedHost], epoch: Callable[[], Epoch], wanted: agent_pb2.LogRequest
    ) -> AsyncIterator[tuple[str, agent_pb2.LogChunk]]:
        """(host, chunk) as they come, until every host is done. Cancels the request at the agents when it is closed."""
        identifier = uuid.uuid4().hex
        reading = self._readings[identifier] = _Reading()
        asked = []
        try:
            for host in hosts:
                if host.outbox is None:
                    continue
                message = agent_pb2.ControllerMessage(epoch=epoch().to_proto())
                message.log_request.CopyFrom(wanted)
                message.log_request.request_id = identifier
                host.outbox.put(("logs", identifier), lambda message=message: message)  # type: ignore[misc]
                reading.open_hosts.add(host.name)
                asked.append(host)
            while reading.open_hosts and not reading.overflowed:
                host_name, chunk = await reading.chunks.get()
                if chunk.done and host_name in reading.open_hosts:
                    reading.open_hosts.discard(host_name)
                yield host_name, chunk
        finally:
            del self._readings[identifier]
            for host in asked:
                if host.outbox is not None and host.name in reading.open_hosts:
                    cancel = agent_pb2.ControllerMessage(epoch=epoch().to_proto())
                    cancel.log_cancel.request_id = identifier
                    host.outbox.put(("logs", identifier), lambda cancel=cancel: cancel)  # type: ignore[misc]
