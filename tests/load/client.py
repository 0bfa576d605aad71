"""The load client's I/O: connections that ask, wait and check, on asyncio's raw sockets.

Streams and transports would hide the one thing that matters here: whether the server's end of a connection was closed before or
after a request was sent. Before sending, the socket itself is asked, so what the kernel knew is what is counted.
"""

import asyncio
import json
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.load.http import GarbledResponseError, Response, ResponseReader, encode_request
from tests.load.tally import Failure, FailureKind, Tally

_RECEIVE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to send, where."""

    targets: Sequence[Target]
    """Connections are spread over them in turn."""
    keepalive: int = 20
    """Kept-alive connections, the idle ones among them."""
    fresh: int = 20
    """Clients that open a new connection for each request."""
    idle: int = 6
    """How many of the kept-alive connections wait 4-6 s between two requests, around Node's own timeout of 5 s."""
    rate: float = 200.0
    """At most so many requests a second in all; a slow server makes it fewer."""
    post_share: float = 0.3
    get_path: str = "/"
    post_path: str = "/echo"
    timeout_seconds: float = 5.0
    fail_over: bool = False
    """A refused connect tries the other targets before it counts as a failure, as a client does that was given several addresses.
    Only a refused one: who was connected has sent something, or may have, and what ends it then is a failure."""
    seed: int = 1


class _RequestError(Exception):
    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class LoadClient:
    """Sends `plan` from `run` until `stop`; `tally` can be read meanwhile."""

    def __init__(self, plan: LoadPlan) -> None:
        self.tally = Tally()
        self._plan = plan
        self._stopping = asyncio.Event()
        self._started = 0.0

    def stop(self) -> None:
        """Requests under way are finished and counted; `run` then returns, within one request's timeout."""
        self._stopping.set()

    def summary(self) -> dict[str, Any]:
        return self.tally.summary(time.monotonic() - self._started)

    async def run(self) -> None:
        plan = self._plan
        self._started = time.monotonic()
        busy = plan.keepalive - plan.idle + plan.fresh
        interval = busy / plan.rate if busy else 0.0
        async with asyncio.TaskGroup() as group:
            for number in range(plan.keepalive + plan.fresh):
                kind = "idle" if number < plan.idle else "keepalive" if number < plan.keepalive else "fresh"
                pause = (4.0, 6.0) if kind == "idle" else (interval * 0.5, interval * 1.5)
                group.create_task(self._keep_asking(number, kind, pause))

    async def _keep_asking(self, number: int, kind: str, pause: tuple[float, float]) -> None:
        """One client: asks, then lets `pause` pass from the start of one request to the next; idle ones from end to start."""
        dice = random.Random(f"{self._plan.seed}/{number}")
        asker = _Asker(self._plan, self.tally, number, kind, dice)
        begin = time.monotonic() + dice.uniform(0.0, min(pause[1], 1.0))
        try:
            while not await self._stopped_before(begin):
                await asker.ask()
                now = time.monotonic()
                gap = dice.uniform(*pause)
                begin = now + gap if kind == "idle" else max(now, begin + gap)
        finally:
            asker.close()

    async def _stopped_before(self, moment: float) -> bool:
        try:
            async with asyncio.timeout(max(0.0, moment - time.monotonic())):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True


class _Asker:
    """One client's connection, reopened as its kind demands."""

    def __init__(self, plan: LoadPlan, tally: Tally, number: int, kind: str, dice: random.Random) -> None:
        self._plan = plan
        self._tally = tally
        self._number = number
        self._kind = kind
        self._dice = dice
        self._socket: socket.socket | None = None
        self._target = plan.targets[number % len(plan.targets)]
        """Where the connection leads, or was last tried."""
        self._requests = 0

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def ask(self) -> None:
        """One request, counted as answered or failed."""
        method = "POST" if self._dice.random() < self._plan.post_share else "GET"
        self._requests += 1
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._plan.timeout_seconds):
                await self._exchange(method)
        except TimeoutError:
            self._fail(FailureKind.TIMEOUT, method, f"no answer in {self._plan.timeout_seconds:g} s", began)
        except _RequestError as error:
            self._fail(error.kind, method, error.detail, began)
        else:
            self._tally.succeed(method, time.monotonic() - began)

    def _fail(self, kind: FailureKind, method: str, detail: str, began: float) -> None:
        self.close()
        self._tally.fail(Failure(kind, method, time.monotonic(), self._kind, detail, began, str(self._target)))

    async def _exchange(self, method: str) -> None:
        # Half of the fresh connections say that they will close, as ab does; the others just close, as curl does.
        says_close = self._kind == "fresh" and self._dice.random() < 0.5
        body = self._body() if method == "POST" else b""
        path = self._plan.post_path if method == "POST" else self._plan.get_path
        connection = await self._connection()
        request = encode_request(method, path, str(self._target), body, close=says_close)
        response = await _send_and_receive(connection, request)
        self._check(method, body, response)
        if self._kind == "fresh" or not response.keeps_alive:
            self.close()

    def _body(self) -> bytes:
        value = {"client": self._number, "request": self._requests, "text": "ü" * self._dice.randrange(200)}
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def _check(self, method: str, body: bytes, response: Response) -> None:
        if response.status != 200:
            raise _RequestError(FailureKind.STATUS, f"status {response.status}: {response.body[:80]!r}")
        try:
            answer = json.loads(response.body)
        except ValueError as error:
            raise _RequestError(FailureKind.BODY, f"not JSON: {response.body[:80]!r}") from error
        if method == "POST":
            if answer != json.loads(body):
                raise _RequestError(FailureKind.BODY, f"not what was sent: {response.body[:80]!r}")
        elif isinstance(answer, dict) and isinstance(answer.get("pid"), int):
            self._tally.pids[answer["pid"]] += 1
        else:
            raise _RequestError(FailureKind.BODY, f"names no pid: {response.body[:80]!r}")

    async def _connection(self) -> socket.socket:
        """The open connection if the server's end still is, else a new one."""
        if self._socket is not None:
            if not _closed_by_server(self._socket):
                return self._socket
            self._tally.closed_while_idle += 1
            self.close()
        targets = self._plan.targets
        refusal = ""
        for step in range(len(targets) if self._plan.fail_over else 1):
            self._target = targets[(self._number + step) % len(targets)]
            try:
                self._socket = await _connect(self._target)
            except ConnectionRefusedError:
                refusal = f"connect to {self._target}: refused"
                continue
            except OSError as error:
                raise _RequestError(
                    FailureKind.REFUSED, f"connect to {self._target}: {error.strerror or error}"
                ) from error
            self._tally.connections_opened += 1
            if step:
                self._tally.failed_over += 1
            return self._socket
        raise _RequestError(FailureKind.REFUSED, refusal)


def _closed_by_server(connection: socket.socket) -> bool:
    try:
        # Bytes nobody asked for leave the connection as unusable as its end does.
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


async def _connect(target: Target) -> socket.socket:
    family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        await asyncio.get_running_loop().sock_connect(connection, (target.host, target.port))
    except BaseException:
        connection.close()
        raise
    return connection


async def _send_and_receive(connection: socket.socket, request: bytes) -> Response:
    """Raises _RequestError for whatever ends the exchange before the whole answer is there."""
    loop = asyncio.get_running_loop()
    reader = ResponseReader()
    received = 0
    try:
        await loop.sock_sendall(connection, request)
        while True:
            data = await loop.sock_recv(connection, _RECEIVE_BYTES)
            received += len(data)
            response = reader.feed(data)
            if response is not None:
                return response
            if not data:
                raise _RequestError(FailureKind.RESET, f"connection ended after {received} bytes of the answer")
    except OSError as error:
        detail = f"{error.strerror or error}, {received} bytes of the answer received"
        raise _RequestError(FailureKind.RESET, detail) from error
    except GarbledResponseError as error:
        raise _RequestError(FailureKind.BODY, f"not HTTP: {error}") from error
