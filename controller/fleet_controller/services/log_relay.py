"""Log lines from the agents that have them to the callers who asked.

A follower keeps its place: agents say how far each log was read, and one that comes back, restarted or cut off, is asked to go on
there. Nothing it sent is asked for again, and nothing is left out that its workers printed meanwhile.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field

from fleet.v1 import agent_pb2
from fleet_controller.hosts import ObservedHost
from fleet_core.ids import Epoch

_CHUNKS_WAITING = 256
_LOOK_SECONDS = 0.5
"""While no host is there, between two looks whether this controller leads still: if not, the caller finds its way to who does."""

_Log = tuple[str, int, str]


@dataclass(slots=True)
class _Reading:
    """One caller's request, on all its hosts."""

    wanted: agent_pb2.LogRequest
    hosts: Collection[str]
    """All it is asked of, whether or not they are connected; empty: every host."""
    epoch: Callable[[], Epoch]
    chunks: asyncio.Queue[tuple[str, agent_pb2.LogChunk]] = field(
        default_factory=lambda: asyncio.Queue(_CHUNKS_WAITING)
    )
    asked: dict[str, ObservedHost] = field(default_factory=dict)
    open_hosts: set[str] = field(default_factory=set)
    places: dict[str, dict[_Log, agent_pb2.LogPosition]] = field(default_factory=dict)
    """Of each host that tells them, how far its logs were read."""
    overflowed: bool = False

    def ask(self, host: ObservedHost) -> None:
        if host.outbox is None:
            return
        message = agent_pb2.ControllerMessage(epoch=self.epoch().to_proto())
        message.log_request.CopyFrom(self.wanted)
        if host.name in self.places:
            message.log_request.resume.logs.extend(self.places[host.name].values())
        elif host.name in self.asked:
            message.log_request.lines, message.log_request.since_seconds = 0, 0
        host.outbox.put(("logs", self.wanted.request_id), lambda: message)
        self.asked[host.name] = host
        self.open_hosts.add(host.name)

    def heard(self, host: str, chunk: agent_pb2.LogChunk) -> None:
        if chunk.HasField("positions"):
            places = self.places.setdefault(host, {})
            places.update({(log.app, log.slot, log.stream): log for log in chunk.positions.logs})


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
            reading.heard(host, chunk)
            if chunk.done:
                reading.open_hosts.discard(host)
        except asyncio.QueueFull:
            reading.overflowed = True

    def host_left(self, host: str) -> None:
        for identifier, reading in self._readings.items():
            if host in reading.open_hosts:
                text = f"host {host} is no longer connected"
                self.deliver(host, agent_pb2.LogChunk(request_id=identifier, done=True, error=text))

    def host_came(self, host: ObservedHost) -> None:
        """It has a new session: who follows its logs goes on."""
        for identifier, reading in self._readings.items():
            if reading.wanted.follow and (not reading.hosts or host.name in reading.hosts):
                reading.ask(host)
            elif host.name in reading.open_hosts:  # its session before ends unseen where this one took its place
                text = f"host {host.name} was cut off"
                self.deliver(host.name, agent_pb2.LogChunk(request_id=identifier, done=True, error=text))

    async def read(
        self,
        hosts: list[ObservedHost],
        epoch: Callable[[], Epoch],
        wanted: agent_pb2.LogRequest,
        *,
        named: Collection[str] = (),
        leads: Callable[[], bool] = lambda: True,
    ) -> AsyncIterator[tuple[str, agent_pb2.LogChunk]]:
        """(host, chunk) as they come, until every host is done; while following, until no host is there and nobody `leads`.

        `named`: whose logs are followed, also of hosts that are not connected now; empty: every host's. Cancels the request at
        the agents when it is closed.
        """
        identifier = uuid.uuid4().hex
        request = agent_pb2.LogRequest()
        request.CopyFrom(wanted)
        request.request_id = identifier
        reading = self._readings[identifier] = _Reading(request, named, epoch)
        try:
            for host in hosts:
                reading.ask(host)
            while not reading.overflowed:
                if not reading.open_hosts and not reading.chunks.qsize() and not (wanted.follow and leads()):
                    return
                try:
                    async with asyncio.timeout(_LOOK_SECONDS if wanted.follow and not reading.open_hosts else None):
                        host_name, chunk = await reading.chunks.get()
                except TimeoutError:
                    continue
                yield host_name, chunk
        finally:
            del self._readings[identifier]
            for host in reading.asked.values():
                if host.outbox is not None and host.name in reading.open_hosts:
                    cancel = agent_pb2.ControllerMessage(epoch=epoch().to_proto())
                    cancel.log_cancel.request_id = identifier
                    host.outbox.put(("logs", identifier), lambda cancel=cancel: cancel)  # type: ignore[misc]
