"""How much a worker gets, how long clients wait, and how long nothing may happen: seen by clients of a real HAProxy."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from fleet_balancer.driver import Endpoint, Target
from fleet_balancer.haproxy.binary import Binary
from fleet_balancer.haproxy.driver import HaproxyDriver
from fleet_core.ids import WorkerId
from tests.integration.balancer.harness import Answer, Connection, Load, ask, backends, eventually, pool, waiting
from tests.ports import free_port


async def test_a_worker_gets_no_more_requests_at_a_time_than_it_may(driver: HaproxyDriver) -> None:
    """One limit for all methods; the others wait and are answered."""
    port = free_port()
    async with backends(2) as servers:
        await driver.start({"web": pool(port, servers, max_connections=2)})
        methods = ("GET", "POST", "PUT", "GET", "GET", "POST", "DELETE", "GET")
        asked = [asyncio.create_task(ask(port, "/hold", method=method)) for method in methods]
        await eventually(partial(waiting, driver, "web", 4), "what is more than two for each waits")
        assert [server.requests for server in servers] == [2, 2]
        for server in servers:
            server.release.set()
        assert [(await one).status for one in asked] == [200] * len(methods)


async def test_more_than_may_wait_are_told_at_once(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(1) as servers:
        await driver.start({"web": pool(port, servers, max_connections=1, max_queue=2)})
        asked = []
        for count in (0, 1, 2):
            asked.append(asyncio.create_task(ask(port, "/hold")))
            await eventually(partial(waiting, driver, "web", count), f"{count} wait")
        await eventually(lambda: servers[0].requests == 1, "one is at the worker")
        refused = await ask(port)
        assert (refused.status, refused.body) == (503, "Too many requests are waiting.\n")
        assert refused.headers["retry-after"] == "1"
        servers[0].release.set()
        assert [(await one).status for one in asked] == [200] * 3
        assert (await ask(port)).status == 200


async def test_a_limited_app_loses_no_request_and_replays_no_post(driver: HaproxyDriver) -> None:
    """A worker killed under load: what may be sent again is."""
    port = free_port()
    async with backends(3) as servers:
        await driver.start({"web": pool(port, servers, max_connections=4)})
        async with Load(port, clients=16) as load:
            await load.more(200)
            old = servers[0].port
            await servers[0].stop()
            await load.more(200)
            await servers[0].start(old)
            await load.more(200)
        assert [failure for failure in load.failures if failure.startswith("GET")] == []
        assert max(servers[0].posts.values()) == 1


async def test_a_limit_beside_other_apps_on_one_address_is_of_its_app_alone(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(2) as servers:
        free, tight = servers
        await driver.start(
            {
                "free": pool(port, [free], "free", hosts=("free.test",)),
                "tight": pool(port, [tight], "tight", hosts=("tight.test",), max_connections=1),
            }
        )
        asked = [
            asyncio.create_task(ask(port, "/hold", host=host)) for host in ("free.test", "tight.test") for _ in range(3)
        ]
        await eventually(partial(waiting, driver, "tight", 2), "two wait")
        await eventually(lambda: free.requests == 3, "the other app gets all of its requests")
        assert tight.requests == 1
        for server in servers:
            server.release.set()
        assert [(await one).status for one in asked] == [200] * 6


async def test_who_waits_for_too_long_is_told(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(1) as servers:
        limits = {"max_connections": 1, "timeouts": {"queue_seconds": 0.3}}
        await driver.start({"web": pool(port, servers, **limits)})
        first = asyncio.create_task(ask(port, "/hold"))
        await eventually(lambda: servers[0].requests == 1, "one is at the worker")
        assert (await ask(port)).status == 503
        servers[0].release.set()
        assert (await first).status == 200


async def test_a_worker_that_says_nothing_for_too_long_is_given_up(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(2) as servers:
        impatient, patient = servers
        await driver.start(
            {
                "web": pool(port, [impatient], paths=("/",), timeouts={"server_seconds": 0.3}),
                "api": pool(port, [patient], "api", hosts=("api.test",)),
            }
        )
        held = asyncio.create_task(ask(port, "/hold", host="api.test"))
        for method in ("GET", "POST"):
            assert (await ask(port, "/hold", method=method)).status == 504
        assert not held.done(), "another app has its own patience"
        patient.release.set()
        assert (await held).status == 200


@contextlib.contextmanager
def unreachable() -> Iterator[Target]:
    """A listener whose queue is full answers no SYN: as a host without power."""
    with socket.socket() as dead, socket.socket() as one, socket.socket() as two:
        dead.bind(("127.0.0.1", 0))
        dead.listen(0)
        for client in (one, two):
            client.setblocking(False)
            client.connect_ex(dead.getsockname())
        yield Target("127.0.0.1", dead.getsockname()[1])


async def test_a_connection_that_takes_too_long_is_given_up(driver: HaproxyDriver) -> None:
    port = free_port()
    with unreachable() as target:
        lost = {name: [Endpoint(WorkerId(name, "gone", 1, 1), target)] for name in ("web", "api")}
        await driver.start(
            {
                "web": pool(port, lost["web"], timeouts={"connect_seconds": 0.02}),
                "api": pool(port, lost["api"], "api", hosts=("api.test",), timeouts={"connect_seconds": 60}),
            }
        )
        patient = asyncio.create_task(ask(port, host="api.test", method="POST"))
        assert (await ask(port, method="POST")).status == 503
        assert not patient.done()
        patient.cancel()


async def test_a_client_that_says_nothing_for_too_long_is_given_up(driver: HaproxyDriver, haproxy: Binary) -> None:
    """In the middle of a request's body. Of the apps on one address the most patient one counts.

    HAProxy 2.6 takes it for the worker's silence.
    """
    port, other = free_port(), free_port()
    async with backends(2) as servers:
        timeouts = {"timeouts": {"client_seconds": 0.3}}
        await driver.start(
            {
                "web": pool(port, servers[:1], timeouts={"client_seconds": 0.3, "server_seconds": 5}),
                "a": pool(other, servers[:1], "a", hosts=("a.test",), **timeouts),
                "b": pool(other, servers[1:], "b", hosts=("b.test",), timeouts={"client_seconds": 60}),
            }
        )
        patient = asyncio.create_task(stalled(other, "a.test"))
        answer = await stalled(port, "any.test")
        if haproxy.version < (2, 8):
            assert answer is not None
            assert answer.status == 504
        else:
            assert answer is None or answer.status in (400, 408)
        assert not patient.done()
        patient.cancel()


async def stalled(port: int, host: str) -> Answer | None:
    """Send half of a body; how the balancer ends it. None: without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\nhalf".encode())
        content = (await reader.read()).decode()
        return Answer(int(content.split(" ")[1]), {}, "") if content else None
    finally:
        writer.close()


async def upgraded(port: int, host: str = "test") -> Connection:
    connection = Connection(port, host)
    await connection.send(headers="Connection: Upgrade\r\nUpgrade: echo\r\n")
    assert (await connection.receive_head())[0] == 101
    return connection


async def test_a_websocket_that_is_silent_for_too_long_is_ended(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(2) as servers:
        await driver.start(
            {
                "web": pool(port, servers[:1], timeouts={"tunnel_seconds": 2}),
                "api": pool(port, servers[1:], "api", hosts=("api.test",), timeouts={"server_seconds": 1}),
            }
        )
        one, other = await upgraded(port), await upgraded(port, "api.test")
        for _ in range(3):
            one.write(b"echo")
            assert await one.read(4) == b"echo"
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.IncompleteReadError):
                await one.read(1)
        one.close()
        # Silence of a tunnel is no silence of a server.
        other.write(b"echo")
        assert await other.read(4) == b"echo"
        other.close()


@pytest.mark.parametrize("settings", [{}, {"sticky": True}, {"max_connections": 2}, {"hosts": ("test",)}])
async def test_websockets_pass_whatever_a_route_says(driver: HaproxyDriver, settings: dict[str, Any]) -> None:
    """Also over a change of lists and another process, while the worker drains."""
    port, other = free_port(), free_port()
    async with backends(2) as servers:
        await driver.start({"web": pool(port, servers[:1], **settings)})
        connection = await upgraded(port)
        after = {"web": pool(port, servers[1:], draining=servers[:1], **settings)}
        await driver.apply(after)
        await driver.apply({**after, "api": pool(other, servers[1:], "api")})
        for _ in range(3):
            connection.write(b"echo")
            assert await connection.read(4) == b"echo"
        connection.close()


@pytest.mark.parametrize("settings", [{}, {"sticky": True, "hosts": ("test",)}])
async def test_an_event_is_there_before_the_next_one_is_sent(driver: HaproxyDriver, settings: dict[str, Any]) -> None:
    """The worker sends nothing more until the client has the last one. Two hundred would take 40 s with HAProxy's default."""
    port = free_port()
    async with backends(1) as servers:
        await driver.start({"web": pool(port, servers, **settings)})
        connection = Connection(port)
        await connection.send(path="/events")
        assert (await connection.receive_head())[1]["content-type"] == "text/event-stream"
        async with asyncio.timeout(20):
            for _ in range(200):
                servers[0].event.set()
                assert await connection.read(14) == b"9\r\ndata: x\n\n\r\n"
        connection.close()
        servers[0].release.set()
        servers[0].event.set()
