"""Small HTTP backends, a raw load client and waiting with a deadline, for the balancer's tests."""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from fleet_balancer.driver import Endpoint, Pool, Route, Target
from fleet_balancer.haproxy.driver import HaproxyDriver
from fleet_core.ids import WorkerId
from fleet_core.route import RoutePolicy
from tests.ports import free_port

HEALTH_PATH = "/healthz"
_FIRST_REQUEST_SECONDS = 60.0


async def eventually(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]], what: str, deadline: float = 15.0
) -> None:
    """Return once `condition` holds; fail after `deadline` seconds, naming `what` was awaited."""
    until = time.monotonic() + deadline
    while True:
        holds = condition()
        if isinstance(holds, Awaitable):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < until, f"not within {deadline} s: {what}"
        await asyncio.sleep(0.01)


class Backend:
    """Answers with its name, after `delay` seconds; not at all until `thawed`, as a process that is stopped. While it is `ill`, a
    check gets 503. With `X-Echo: request` it answers the request's head. `/hold` waits for `release`; `/stream` sends chunks
    until then, `/events` one whenever `event` is set; Upgrade becomes an echo.

    POST bodies are recorded in `posts`: a body seen twice anywhere is a replay.
    """

    def __init__(self, name: str, posts: Counter[bytes] | None = None, idle_timeout: float = 60.0) -> None:
        self.name = name
        self.posts: Counter[bytes] = Counter() if posts is None else posts
        self.requests = 0
        self.port = 0
        self.release = asyncio.Event()
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.event = asyncio.Event()
        self.ill = False
        self.delay = 0.0
        self._idle_timeout = idle_timeout
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def target(self) -> Target:
        return Target("127.0.0.1", self.port)

    def endpoint(self, pool: str = "web", *, draining: bool = False) -> Endpoint:
        return Endpoint(WorkerId(pool, "host", 1 + self.port, 1), self.target, draining)

    async def start(self, port: int | None = None) -> "Backend":
        self.port = free_port() if port is None else port
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=256)
        return self

    async def stop(self) -> None:
        """End abruptly: every connection is reset."""
        self.release.set()
        self.thawed.set()
        if self._server is not None:
            self._server.close()
        for writer in set(self._writers):
            writer.transport.abort()
        if self._server is not None:
            await self._server.wait_closed()
        await eventually(lambda: not self._writers, "handlers of the backend end")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            patience = _FIRST_REQUEST_SECONDS  # its client has just come: only who has been served can be idle
            while await self._one(reader, writer, patience):
                patience = self._idle_timeout
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float) -> bool:
        async with asyncio.timeout(patience):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        if path == HEALTH_PATH:
            await self.thawed.wait()
            status = "503 Service Unavailable" if self.ill else "200 OK"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            return True
        self.requests += 1
        await self.thawed.wait()
        headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in head.split("\r\n")[1:])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if method == "POST":
            self.posts[body] += 1
        if headers.get("upgrade"):
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            while data := await reader.read(1000):
                writer.write(data)
            return False
        if path == "/stream":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not self.release.is_set():
                writer.write(b"4\r\ntick\r\n")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.release.wait(), 0.05)
            writer.write(b"0\r\n\r\n")
            return True
        if path == "/events":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not self.release.is_set():
                await self.event.wait()
                self.event.clear()
                writer.write(b"9\r\ndata: x\n\n\r\n")
            writer.write(b"0\r\n\r\n")
            return True
        if path == "/hold":
            await self.release.wait()
        if self.delay:
            await asyncio.sleep(self.delay)
        answer = headers.get("x-forwarded-for", "") if path == "/forwarded" else self.name
        if headers.get("x-echo") == "request":
            answer = head.strip()
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n{answer}".encode())
        await writer.drain()
        return True


@contextlib.asynccontextmanager
async def backends(count: int, *, idle_timeout: float = 60.0) -> AsyncIterator[list[Backend]]:
    posts: Counter[bytes] = Counter()
    started = [await Backend(f"b{number}", posts, idle_timeout).start() for number in range(count)]
    try:
        yield started
    finally:
        for backend in started:
            await backend.stop()


def pool(
    route: int | None,
    endpoints: Iterable[Backend | Endpoint],
    name: str = "web",
    draining: Iterable[Backend] = (),
    health_path: str = "",
    **settings: Any,
) -> Pool:
    """Reached at port `route`; `settings`: what else its RoutePolicy says."""
    listed = [one.endpoint(name) if isinstance(one, Backend) else one for one in endpoints]
    listed += [backend.endpoint(name, draining=True) for backend in draining]
    policy = RoutePolicy.model_validate(({} if route is None else {"http": f"127.0.0.1:{route}"}) | settings)
    return Pool(name, Route.of(policy), tuple(listed), health_path)


class Connection:
    """One client connection, kept alive."""

    def __init__(self, port: int, host: str = "test") -> None:
        self._port = port
        self._host = host
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> "Connection":
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def send(self, method: str = "GET", path: str = "/", body: bytes = b"", headers: str = "") -> None:
        await self.open()
        assert self._streams is not None
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self._streams[1].write(head.encode() + body)
        await self._streams[1].drain()

    async def receive_head(self) -> tuple[int, dict[str, str]]:
        assert self._streams is not None
        lines = (await self._streams[0].readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = (line.partition(": ") for line in lines[1:])
        return int(lines[0].split(" ")[1]), {key.lower(): value for key, _, value in fields}

    async def receive(self) -> tuple[int, bytes]:
        """Status and body; raises OSError or IncompleteReadError when the connection ends first."""
        assert self._streams is not None
        status, headers = await self.receive_head()
        body = await self._streams[0].readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return status, body

    async def read(self, count: int) -> bytes:
        assert self._streams is not None
        return await self._streams[0].readexactly(count)

    def write(self, data: bytes) -> None:
        assert self._streams is not None
        self._streams[1].write(data)

    async def get(
        self, path: str = "/", method: str = "GET", body: bytes = b"", timeout: float = 10.0
    ) -> tuple[int, str]:
        async with asyncio.timeout(timeout):
            await self.send(method, path, body)
            status, answer = await self.receive()
        return status, answer.decode()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: str


async def ask(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    body: bytes = b"",
    host: str = "test",
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Answer:
    """One request on a connection of its own, and the whole answer."""
    fields = {"Host": host, "Content-Length": str(len(body)), "Connection": "close", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            answered = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
            length = answered.get("content-length")
            content = await (reader.read() if length is None else reader.readexactly(int(length)))
        finally:
            writer.close()
    return Answer(int(lines[0].split(" ")[1]), answered, content.decode())


async def get(port: int, path: str = "/", method: str = "GET", body: bytes = b"") -> tuple[int, str]:
    connection = Connection(port)
    try:
        return await connection.get(path, method, body)
    finally:
        connection.close()


async def waiting(driver: HaproxyDriver, name: str, count: int) -> bool:
    """So many requests of an app wait at the balancer for a worker."""
    assert driver._current is not None
    answer = (await driver._current._api.ask([f"show stat {name}.replay 2 -1"]))[0]
    return answer.splitlines()[1].split(",")[2] == str(count)


@dataclass
class Load:
    """Clients that keep asking; what went wrong is in `failures`."""

    port: int
    clients: int = 8
    post_share: int = 5
    pause: float = 0.002
    host: str = "test"
    answered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    total: int = 0
    outstanding: Counter[str] = field(default_factory=Counter)
    """By method: begun, and neither answered nor failed yet."""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    _over: bool = False

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._client(index)) for index in range(self.clients)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Return when `count` more requests were answered or failed."""
        goal = self.total + count
        await eventually(lambda: self.total >= goal, f"{count} more requests", 30)

    async def _client(self, index: int) -> None:
        connection = Connection(self.port, self.host)
        while not self._over:
            number = next(self._numbers)
            is_post = self.post_share > 0 and number % self.post_share == 0
            method, body = ("POST", f"post {number}".encode()) if is_post else ("GET", b"")
            self.outstanding[method] += 1
            try:
                status, answer = await connection.get("/", method, body)
                if status == 200:
                    self.answered[answer] += 1
                else:
                    self.failures.append(f"{method} {status}")
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.failures.append(f"{method} {type(error).__name__} {error}")
                connection.close()
            self.outstanding[method] -= 1
            self.total += 1
            # Every eighth client comes anew each time.
            if index % 8 == 7:
                connection.close()
            await asyncio.sleep(self.pause)
        connection.close()
