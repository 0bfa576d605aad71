"""Answers the controller's LogRequests from the files the supervisor writes.

A log is read only as fast as the session takes its chunks: nothing is queued, so a slow reader costs no memory.
"""

import asyncio
import logging
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import ParamSpec

from fleet.v1 import agent_pb2
from fleet_agent.log_tail import LogTail, Place
from fleet_agent.log_times import SinceFilter
from fleet_core.ids import check_name

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.1
_MAX_REQUESTS = 64
_FILE_NAME = re.compile(r"(\d+)\.(out|err)\.log")
_STREAM_NAMES = {"out": "stdout", "err": "stderr"}

_Arguments = ParamSpec("_Arguments")
SendChunk = Callable[[agent_pb2.LogChunk], Awaitable[None]]
LogName = tuple[str, int, str]
"""(app, slot, "out" or "err")."""


class LogRequests:
    """The requests of one session; `close` ends them all."""

    def __init__(self, log_dir: Path, host: str, send: SendChunk) -> None:
        self._log_dir = log_dir
        self._host = host
        self._send = send
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, request: agent_pb2.LogRequest) -> None:
        """A request id that is being answered already is ignored."""
        if request.request_id not in self._tasks:
            task = asyncio.create_task(self._answer(request), name=f"log-request {request.request_id}")
            self._tasks[request.request_id] = task
            task.add_done_callback(lambda done: self._ended(request.request_id, done))

    def cancel(self, request_id: str) -> None:
        task = self._tasks.get(request_id)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, request_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(request_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The session's own reading sees the same end, and acts on it.
            _LOG.debug("log request %s ended with the session: %s", request_id, error)

    async def _answer(self, request: agent_pb2.LogRequest) -> None:
        end = agent_pb2.LogChunk(request_id=request.request_id, done=True)
        if len(self._tasks) > _MAX_REQUESTS:
            end.error = f"{self._host} answers {_MAX_REQUESTS} log requests already; try again later"
            await self._send(end)
            return
        tails: dict[LogName, LogTail] = {}
        try:
            if request.app:
                check_name("app", request.app)
            await self._stream(request, tails)
        except (OSError, ValueError) as error:
            end.error = f"logs on {self._host} cannot be read: {error}"
            _LOG.warning("%s", end.error)
        except asyncio.CancelledError:
            await self._send(end)
            raise
        finally:
            for tail in tails.values():
                tail.close()
        await self._send(end)

    async def _stream(self, request: agent_pb2.LogRequest, tails: dict[LogName, LogTail]) -> None:
        """Returns when everything was sent; with `follow`, only by cancellation."""
        resumed = request.HasField("resume")
        since = time.time() - request.since_seconds if request.since_seconds > 0 else 0.0
        filters: defaultdict[LogName, SinceFilter] = defaultdict(lambda: SinceFilter(since))
        places = _places_in(request.resume)
        for name in self._matching(request):
            tail = tails[name] = LogTail(self._path(name))
            if resumed:
                await _in_thread(tail.start_at, places.get(name, Place()))
            else:
                await _in_thread(tail.start, request.lines or (None if since else 0), since)
        await self._send(self._chunk(request.request_id, tails))
        while True:
            sent = False
            for name, tail in tails.items():
                if lines := tail.read():
                    sent = True
                    await self._send_lines(request.request_id, name, tail, filters[name].take(lines))
            if sent:
                continue
            if not request.follow:
                for name, tail in tails.items():
                    await self._send_lines(request.request_id, name, tail, filters[name].take(tail.unfinished()))
                return
            await asyncio.sleep(_POLL_SECONDS)
            for name in self._matching(request):
                if name not in tails:
                    tails[name] = LogTail(self._path(name))
                    tails[name].start_at_beginning()

    async def _send_lines(self, request_id: str, name: LogName, tail: LogTail, lines: list[bytes]) -> None:
        if lines:
            chunk = self._chunk(request_id, {name: tail})
            app, slot, stream = name
            for line in lines:
                chunk.lines.add(app=app, host=self._host, slot=slot, stream=_STREAM_NAMES[stream], text=line)
            await self._send(chunk)

    def _matching(self, request: agent_pb2.LogRequest) -> Iterator[LogName]:
        """Logs that exist now, in the order of app, slot and stream."""
        folders = [self._log_dir / request.app] if request.app else sorted(self._log_dir.glob("*/"))
        for folder in folders:
            names: list[LogName] = []
            for path in folder.glob("*.log"):
                match = _FILE_NAME.fullmatch(path.name)
                if match and request.slot in (0, int(match[1])):
                    names.append((folder.name, int(match[1]), match[2]))
            yield from sorted(names)

    def _path(self, name: LogName) -> Path:
        app, slot, stream = name
        return self._log_dir / app / f"{slot}.{stream}.log"

    def _chunk(self, request_id: str, tails: Mapping[LogName, LogTail]) -> agent_pb2.LogChunk:
        """Without lines."""
        chunk = agent_pb2.LogChunk(request_id=request_id)
        chunk.positions.SetInParent()
        for (app, slot, stream), tail in tails.items():
            chunk.positions.logs.add(app=app, slot=slot, stream=_STREAM_NAMES[stream], **tail.place._asdict())
        return chunk


def _places_in(positions: agent_pb2.LogPositions) -> dict[LogName, Place]:
    streams = {long: short for short, long in _STREAM_NAMES.items()}
    return {
        (log.app, log.slot, streams[log.stream]): Place(log.inode, log.offset, log.written)
        for log in positions.logs
        if log.stream in streams
    }


async def _in_thread(
    start: Callable[_Arguments, None], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> None:
    """Because it may have to unpack; a cancellation waits for it, as its caller then closes what it opens."""
    starting = asyncio.ensure_future(asyncio.to_thread(start, *arguments, **named))
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.gather(starting, return_exceptions=True)
        raise
