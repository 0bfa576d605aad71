"""fleet-agent's side of the socket to fleet-supervisor (`supervisor/protocol.py`).

One connection, used by one event loop. A client whose connection ended stays unusable: the caller makes another, and learns
from its `hello` what changed meanwhile.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_agent.supervisor.protocol import (
    PROTOCOL_VERSION,
    Decoder,
    Key,
    Launch,
    ProtocolError,
    Worker,
    encode,
    key_from_json,
    launch_to_json,
    worker_from_json,
)

_READ_BYTES = 256 * 1024
_MAX_EVENTS_WAITING = 10_000
_TOGETHER_BYTES = 16 * 1024
"""Some starts, which the supervisor can make while the rest is put into words."""
_REQUEST_SECONDS = 10.0
_STOP_ALL_MARGIN_SECONDS = 30.0


class SupervisorUnavailable(Exception):  # noqa: N818 - a state of the world, named like ControllerUnavailable
    """The supervisor cannot be reached, went away, or did not answer in time."""


class SupervisorRefusedError(Exception):
    """The supervisor understood the request and refused it; the text says why."""


@dataclass(frozen=True)
class WorkerEvent:
    """A worker changed: its new record, whole."""

    worker: Worker


@dataclass(frozen=True)
class RemovedEvent:
    """A worker's record was forgotten."""

    key: Key


Event = WorkerEvent | RemovedEvent


@dataclass(frozen=True)
class Hello:
    """The supervisor's answer to `hello`."""

    protocol: int
    pid: int
    workers: list[Worker]


class SupervisorClient:
    """Requests and events over one connection. Every request has a deadline; none is repeated by this class."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self._unwritten = bytearray()
        """Requests of this turn of the loop. They go out together, so that many starts come to the supervisor as many."""
        self._reading: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: deque[Event] = deque()
        self._hand_over: Callable[[Event], None] | None = None
        self._arrived = asyncio.Event()
        self._ended = "not connected"

    async def connect(self, socket_path: Path | str, timeout: float = 5.0) -> None:
        """Raises SupervisorUnavailable. May be called once."""
        if self._reading is not None:
            raise RuntimeError("a SupervisorClient connects once")
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_unix_connection(str(socket_path))
        except (OSError, TimeoutError) as error:
            raise SupervisorUnavailable(f"fleet-supervisor does not answer on {socket_path}: {error}") from error
        self._writer = writer
        self._ended = ""
        self._reading = asyncio.create_task(self._read(reader), name="supervisor-client")

    async def close(self) -> None:
        """Ends the connection; requests in flight fail. May be repeated."""
        self._end("closed")
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    @property
    def connected(self) -> bool:
        return not self._ended

    async def request(self, name: str, timeout: float = _REQUEST_SECONDS, **fields: Any) -> dict[str, Any]:
        """The supervisor's answer, without `id` and `ok`. Raises SupervisorUnavailable, SupervisorRefusedError."""
        if self._writer is None or self._ended:
            raise SupervisorUnavailable(f"fleet-supervisor is not connected: {self._ended}")
        number = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            async with asyncio.timeout(timeout):
                self._write(encode({**fields, "id": number, "request": name}))
                await self._writer.drain()
                message = await answer
        except TimeoutError as error:
            raise SupervisorUnavailable(f"fleet-supervisor did not answer {name!r} in {timeout:g} s") from error
        except OSError as error:
            raise SupervisorUnavailable(f"fleet-supervisor went away: {error}") from error
        finally:
            del self._answers[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also where something else ended the wait
        if message.pop("ok", False) is not True:
            raise SupervisorRefusedError(str(message.get("error", "no reason given")))
        message.pop("id", None)
        return message

    async def hello(self, timeout: float = _REQUEST_SECONDS) -> Hello:
        """All workers as they are now; events of later changes follow."""
        answer = await self.request("hello", timeout, protocol=PROTOCOL_VERSION)
        try:
            workers = [worker_from_json(value) for value in answer["workers"]]
            return Hello(int(answer["protocol"]), int(answer["pid"]), workers)
        except (KeyError, TypeError, ValueError, ProtocolError) as error:
            raise SupervisorUnavailable(f"fleet-supervisor's hello is not understood: {error}") from error

    async def run(self, key: Key, launch: Launch) -> None:
        await self.request("run", key=key._asdict(), launch=launch_to_json(launch))

    async def stop(self, key: Key, stop_signal: int, grace_seconds: float) -> None:
        await self.request("stop", key=key._asdict(), signal=stop_signal, grace_seconds=grace_seconds)

    async def forget(self, key: Key) -> None:
        await self.request("forget", key=key._asdict())

    async def note(self, key: Key, pid: int, ready: bool) -> None:  # noqa: FBT001 - the protocol's own field
        await self.request("note", key=key._asdict(), pid=pid, ready=ready)

    async def fail(self, key: Key, pid: int, reason: str) -> None:
        await self.request("fail", key=key._asdict(), pid=pid, reason=reason)

    async def stop_all(self, grace_seconds: float) -> None:
        """Returns when every worker is down."""
        await self.request("stop_all", grace_seconds + _STOP_ALL_MARGIN_SECONDS, grace_seconds=grace_seconds)

    async def hand_events_to(self, take: Callable[[Event], None]) -> None:
        """Call `take` with each event as it is read, in their order. Raises SupervisorUnavailable when the connection ended."""
        while self._events:
            take(self._events.popleft())
        self._hand_over = take
        while not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        if self._reading is not None and self._reading.done() and not self._reading.cancelled():
            self._reading.result()  # what `take` raised
        raise SupervisorUnavailable(f"fleet-supervisor is not connected: {self._ended}")

    async def events(self) -> AsyncIterator[Event]:
        """Events in their order, for one reader. Raises SupervisorUnavailable when the connection ended, after the last."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._ended:
                raise SupervisorUnavailable(f"fleet-supervisor is not connected: {self._ended}")
            self._arrived.clear()
            await self._arrived.wait()

    def _write(self, data: bytes) -> None:
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unwritten += data
        if len(self._unwritten) >= _TOGETHER_BYTES:
            self._flush()

    def _flush(self) -> None:
        data = bytes(self._unwritten)
        self._unwritten.clear()
        if data and self._writer is not None and not self._ended:
            self._writer.write(data)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder = Decoder()
        reason = "it closed the connection"
        try:
            while data := await reader.read(_READ_BYTES):
                for message in decoder.feed(data):
                    self._take(message)
        except (OSError, ProtocolError) as error:
            reason = str(error)
        finally:
            self._end(reason)

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            answer = self._answers.get(message["id"])
            if answer is not None and not answer.done():
                answer.set_result(message)
            return
        if message.get("event") == "worker":
            self._tell(WorkerEvent(worker_from_json(message.get("worker", {}))))
        elif message.get("event") == "removed":
            self._tell(RemovedEvent(key_from_json(message.get("key", {}))))

    def _tell(self, event: Event) -> None:
        if self._hand_over is not None:
            self._hand_over(event)
        elif len(self._events) >= _MAX_EVENTS_WAITING:
            raise ProtocolError(f"{_MAX_EVENTS_WAITING} events were left unread")
        else:
            self._events.append(event)
            self._arrived.set()

    def _end(self, reason: str) -> None:
        if self._ended:
            return
        self._ended = reason
        if self._writer is not None:
            self._writer.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(SupervisorUnavailable(f"fleet-supervisor went away: {reason}"))
        self._arrived.set()
