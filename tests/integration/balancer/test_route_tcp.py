"""Apps that are reached by plain TCP, seen by a client of a real HAProxy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fleet_balancer.driver import DriverError, Endpoint, Pool, Route, Target
from fleet_balancer.haproxy.driver import HaproxyDriver
from fleet_core.ids import WorkerId
from fleet_core.route import RoutePolicy
from tests.integration.balancer.harness import backends, eventually, pool
from tests.ports import free_port


class Echo:
    """Says its name, then whatever it is told, until the client ends its side."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> "Echo":
        self.port = free_port()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    def endpoint(self, *, draining: bool = False) -> Endpoint:
        return Endpoint(WorkerId("db", "host", 1 + self.port, 1), Target("127.0.0.1", self.port), draining)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(f"{self.name}\n".encode())
            while data := await reader.read(1000):
                writer.write(data)
                await writer.drain()
        writer.close()


class Client:
    """One connection that knows who answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        self._reader = reader
        self._writer = writer
        self.name = name

    @classmethod
    async def connected(cls, port: int) -> "Client":
        """Raises OSError, IncompleteReadError or TimeoutError."""
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            return cls(reader, writer, (await reader.readuntil(b"\n")).decode().strip())

    async def echoed(self, data: bytes) -> bytes:
        async with asyncio.timeout(10):
            self._writer.write(data)
            return await self._reader.readexactly(len(data))

    async def finish(self) -> bytes:
        """End our side and read to the other's end."""
        async with asyncio.timeout(10):
            self._writer.write_eof()
            rest = await self._reader.read()
        self._writer.close()
        return rest


async def answering(port: int) -> str:
    """Who answers a connection."""
    client = await Client.connected(port)
    await client.finish()
    return client.name


@contextlib.asynccontextmanager
async def echoes(count: int) -> AsyncIterator[list[Echo]]:
    started = [await Echo(f"e{number}").start() for number in range(count)]
    try:
        yield started
    finally:
        for echo in started:
            echo.stop()


def tcp_pool(port: int, *endpoints: Endpoint, name: str = "db", health_path: str = "", **settings: Any) -> Pool:
    route = Route.of(RoutePolicy.model_validate({"tcp": f"127.0.0.1:{port}"} | settings))
    return Pool(name, route, endpoints, health_path)


async def test_bytes_pass_in_both_directions_whatever_they_are(driver: HaproxyDriver) -> None:
    """Also what is no HTTP, what the server says first, and an end of one side only; a health path is nothing to TCP."""
    port = free_port()
    async with echoes(1) as (echo,):
        assert await driver.start({"db": tcp_pool(port, echo.endpoint(), health_path="/healthz")}) == {}
        client = await Client.connected(port)
        assert client.name == echo.name
        data = bytes(range(256)) * 100 + b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"
        assert await client.echoed(data) == data
        assert await client.finish() == b""
        assert [one.hidden for one in await driver.observed()] == [False]


async def test_a_soft_restart_fails_no_connection_and_waits_for_the_open_ones(driver: HaproxyDriver) -> None:
    """Each worker is replaced while short connections come and go and long ones stay. Guards invariant 7."""
    port = free_port()
    async with echoes(4) as servers:
        old, new = servers[:2], servers[2:]
        await driver.start({"db": tcp_pool(port, *(echo.endpoint() for echo in old))})
        long = [await Client.connected(port) for _ in range(8)]
        assert {client.name for client in long} == {echo.name for echo in old}
        names: list[str] = []
        failures: list[str] = []
        over = asyncio.Event()

        async def come_and_go() -> None:
            while not over.is_set():
                try:
                    client = await Client.connected(port)
                    assert await client.echoed(b"x") == b"x"
                    assert await client.finish() == b""
                    names.append(client.name)
                except (OSError, asyncio.IncompleteReadError, TimeoutError, AssertionError) as error:
                    failures.append(f"{type(error).__name__} {error}")

        async def more(count: int) -> None:
            goal = len(names) + len(failures) + count
            await eventually(lambda: len(names) + len(failures) >= goal, f"{count} more connections", 30)

        clients = [asyncio.create_task(come_and_go()) for _ in range(4)]
        try:
            await more(50)
            serving = list(old)
            for leaving, coming in zip(old, new, strict=True):
                serving = [echo for echo in serving if echo is not leaving] + [coming]
                ready = [echo.endpoint() for echo in serving]
                await driver.apply({"db": tcp_pool(port, *ready, leaving.endpoint(draining=True))})
                worker = leaving.endpoint().worker
                held = [client for client in long if client.name == leaving.name]
                await eventually(lambda w=worker, h=held: _drains(driver, w, len(h)), "only the long ones are left")
                before = len(names)
                await more(50)
                assert leaving.name not in names[before + len(clients) :]
                for client in held:
                    assert await client.echoed(b"still here") == b"still here"
                    assert await client.finish() == b""
                await eventually(lambda w=worker: _drains(driver, w, 0), "nothing is left")
                leaving.stop()
                await driver.apply({"db": tcp_pool(port, *ready)})
                await more(50)
        finally:
            over.set()
            await asyncio.gather(*clients)
        assert failures == []
        assert set(names) == {echo.name for echo in servers}


async def _drains(driver: HaproxyDriver, worker: WorkerId, count: int) -> bool:
    return (await driver.in_flight()).get(("db", worker)) == count


async def test_a_worker_that_refuses_is_passed_over(driver: HaproxyDriver) -> None:
    port = free_port()
    async with echoes(2) as (dead, echo):
        dead.stop()
        await driver.start({"db": tcp_pool(port, dead.endpoint(), echo.endpoint())})
        assert {await answering(port) for _ in range(10)} == {echo.name}


async def test_a_limited_worker_gets_so_many_connections(driver: HaproxyDriver) -> None:
    port = free_port()
    async with echoes(1) as (echo,):
        await driver.start({"db": tcp_pool(port, echo.endpoint(), max_connections=1)})
        first = await Client.connected(port)
        second = asyncio.create_task(answering(port))
        assert await first.echoed(b"x") == b"x"
        assert not second.done()
        await first.finish()
        assert await second == echo.name


async def test_an_address_is_of_one_tcp_app_or_of_http(driver: HaproxyDriver) -> None:
    port = free_port()
    async with echoes(1) as (echo,), backends(1) as servers:
        await driver.start({"db": tcp_pool(port, echo.endpoint())})
        with pytest.raises(DriverError, match=f"127.0.0.1:{port} speaks tcp for db already: give web another address"):
            await driver.validate(pool(port, servers))
        with pytest.raises(DriverError, match=f"127.0.0.1:{port} is the route of db already: give cache another addr"):
            await driver.validate(tcp_pool(port, echo.endpoint(), name="cache"))
        assert await answering(port) == echo.name
