"""Log lines from the agents that have them to the callers who asked.

Agents say how far each log was read, so a reading keeps its place: an agent that comes back, restarted or cut off, is asked
to go on there; and a caller who reads slowly is waited for by asking no more of a host until there is room again. Nothing
is sent twice, nothing left out, and what waits is bounded.
"""

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field

from fleet.v1 import agent_pb2
from fleet_controller.hosts import ObservedHost
from fleet_core.ids import Epoch

_CHUNKS_WAITING = 256
_CHUNKS_LEFT = 64
"""With no more than so many waiting, hosts that were told to wait are asked again."""
_LOOK_SECONDS = 0.5
"""While no host is there, between two looks whether this controller leads still: if not, the caller finds its way to who does."""

_Log = tuple[str, int, str]


@dataclass(slots=True, eq=False)
class _Asked:
    """One host's part of a reading."""

    host: ObservedHost
    request_id: str = ""
    """Of its present request: another one each time it is asked. Empty: it is not asked now."""
    waits: bool = False
    """It is to be asked again once there is room."""
    places: dict[_Log, agent_pb2.LogPosition] | None = None
    """How far its logs were read; None: it did not tell."""

    def heard(self, chunk: agent_pb2.LogChunk) -> None:
        if chunk.HasField("positions"):
            self.places = self.places or {}
            self.places.update({(log.app, log.slot, log.stream): log for log in chunk.positions.logs})


@dataclass(slots=True, eq=False)
class _Reading:
    """One caller's request, on all its hosts."""

    wanted: agent_pb2.LogRequest
    named: Collection[str]
    """Whose logs are wanted, whether or not they are connected; empty: every host's."""
    epoch: Callable[[], Epoch]
    began: float
    chunks: asyncio.Queue[tuple[str, agent_pb2.LogChunk]] = field(
        default_factory=lambda: asyncio.Queue(_CHUNKS_WAITING)
    )
    asked: dict[str, _Asked] = field(default_factory=dict)
    overflowed: bool = False
    """A host sent too much that cannot be asked to go on."""

    @property
    def open(self) -> bool:
        return any(asked.request_id or asked.waits for asked in self.asked.values())


class LogRelay:
    """Chunks wait in a bounded queue a caller; the agents are not slowed."""

    def __init__(self) -> None:
        self._readings: set[_Reading] = set()
        self._requests: dict[str, tuple[_Reading, _Asked]] = {}
        """By the id of the request, which names one host's part."""
        self._numbers = itertools.count()

    def deliver(self, host: str, chunk: agent_pb2.LogChunk) -> None:
        reading, asked = self._requests.get(chunk.request_id, (None, None))
        if reading is None or asked is None or asked.host.name != host:
            return
        try:
            reading.chunks.put_nowait((host, chunk))
        except asyncio.QueueFull:
            self._cancel(reading, asked)
            asked.waits = asked.places is not None
            reading.overflowed = reading.overflowed or not asked.waits
            return
        asked.heard(chunk)
        if chunk.done:
            self._forget(asked)

    def host_left(self, host: str) -> None:
        for reading in self._readings:
            asked = reading.asked.get(host)
            if asked is not None and (asked.request_id or asked.waits):
                self._end(reading, asked, f"host {host} is no longer connected")

    def host_came(self, host: ObservedHost) -> None:
        """It has a new session: who follows its logs goes on."""
        for reading in self._readings:
            asked = reading.asked.get(host.name)
            if asked is not None:
                self._forget(asked)
            if reading.wanted.follow and (not reading.named or host.name in reading.named):
                self._ask(reading, host)
            elif asked is not None:  # its session before ends unseen where this one took its place
                self._end(reading, asked, f"host {host.name} was cut off")

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

        `named`: whose logs are followed, also of hosts that are not connected now; empty: every host's. Cancels the requests at
        the agents when it is closed.
        """
        reading = _Reading(wanted, named, epoch, time.monotonic())
        self._readings.add(reading)
        try:
            for host in hosts:
                self._ask(reading, host)
            while not reading.overflowed:
                if reading.chunks.qsize() <= _CHUNKS_LEFT:
                    self._ask_again(reading)
                if not reading.open and not reading.chunks.qsize() and not (wanted.follow and leads()):
                    return
                try:
                    async with asyncio.timeout(None if reading.open else _LOOK_SECONDS):
                        host_name, chunk = await reading.chunks.get()
                except TimeoutError:
                    continue
                yield host_name, chunk
        finally:
            self._readings.discard(reading)
            for asked in reading.asked.values():
                self._cancel(reading, asked)

    def _ask(self, reading: _Reading, host: ObservedHost) -> None:
        if host.outbox is None:
            return
        asked = reading.asked.get(host.name)
        message = agent_pb2.ControllerMessage(epoch=reading.epoch().to_proto())
        request = message.log_request
        request.CopyFrom(reading.wanted)
        request.request_id = f"{uuid.uuid4().hex}.{next(self._numbers)}"
        if asked is None:
            asked = reading.asked[host.name] = _Asked(host)
        elif asked.places is None:
            request.lines, request.since_seconds = 0, 0
        else:
            request.resume.logs.extend(asked.places.values())
            if request.since_seconds:  # since the same moment as before
                request.since_seconds += time.monotonic() - reading.began
        asked.host, asked.request_id, asked.waits = host, request.request_id, False
        self._requests[request.request_id] = reading, asked
        host.outbox.put(("logs", request.request_id), lambda: message)

    def _ask_again(self, reading: _Reading) -> None:
        for asked in list(reading.asked.values()):
            if asked.waits:
                self._ask(reading, asked.host)

    def _cancel(self, reading: _Reading, asked: _Asked) -> None:
        """At the agent, too."""
        request_id = asked.request_id
        self._forget(asked)
        if request_id and asked.host.outbox is not None:
            cancel = agent_pb2.ControllerMessage(epoch=reading.epoch().to_proto())
            cancel.log_cancel.request_id = request_id
            asked.host.outbox.put(("logs", request_id), lambda: cancel)

    def _forget(self, asked: _Asked) -> None:
        self._requests.pop(asked.request_id, None)
        asked.request_id, asked.waits = "", False

    def _end(self, reading: _Reading, asked: _Asked, why: str) -> None:
        """Tell the caller that the host does not go on for now."""
        self._forget(asked)
        try:
            reading.chunks.put_nowait((asked.host.name, agent_pb2.LogChunk(done=True, error=why)))
        except asyncio.QueueFull:
            reading.overflowed = reading.overflowed or not reading.wanted.follow
