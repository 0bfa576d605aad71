"""The load client against servers that misbehave in one way each: every failure is seen, and named for what it is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.load.client import LoadClient, LoadPlan, Target

_PID = b'{"pid": 1}'
_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """(head, body); (b"", b"") at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
        return head, await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b"", b""


def _answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while (request := await _read_request(reader))[0]:
        writer.write(_answer(request[1] or _PID))
        await writer.drain()


@asynccontextmanager
async def _serving(handler: _Handler) -> AsyncIterator[int]:
    """The port of a server that treats each connection with `handler`, and ends only when all of them have."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield _port(server)
    finally:
        server.close()
        await server.wait_closed()
        async with asyncio.timeout(10):
            await asyncio.gather(*connections)


async def _load(handler: _Handler, requests: int, **settings: float | int | bool) -> LoadClient:
    """Send at least so many requests to a server that treats each connection with `handler`."""
    async with _serving(handler) as port:
        client = LoadClient(_plan(port, **settings))
        await _run_until(client, requests)
    return client


def _port(server: asyncio.Server) -> int:
    port = server.sockets[0].getsockname()[1]
    assert isinstance(port, int)
    return port


def _plan(*ports: int, **settings: float | int | bool) -> LoadPlan:
    defaults: dict[str, float | int | bool] = {"keepalive": 2, "fresh": 2, "idle": 0, "rate": 1000.0}
    targets = [Target("127.0.0.1", port) for port in ports]
    return LoadPlan(targets, **{**defaults, **settings})  # type: ignore[arg-type]


async def _run_until(client: LoadClient, requests: int) -> None:
    running = asyncio.create_task(client.run())
    async with asyncio.timeout(20):
        while client.tally.sent.total() < requests:  # noqa: ASYNC110 (the tally is plain counters, and stays so)
            await asyncio.sleep(0.01)
        client.stop()
        await running


async def test_a_good_server_fails_nothing_on_kept_alive_and_fresh_connections() -> None:
    client = await _load(_echo, 100)

    summary = client.summary()
    assert summary["failed"] == 0
    assert set(summary["sent_by_method"]) == {"GET", "POST"}
    assert summary["pids"] == {"1": summary["sent_by_method"]["GET"]}
    # Two kept-alive connections, and a new one for each request of the others.
    assert 2 < summary["connections_opened"] < summary["sent"]


async def test_a_connection_closed_between_two_requests_is_reopened_and_no_failure() -> None:
    async def one_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, body = await _read_request(reader)
        writer.write(_answer(body or _PID))

    client = await _load(one_answer, 50, keepalive=2, fresh=0, rate=50.0)

    assert client.tally.failed.total() == 0
    assert client.tally.closed_while_idle >= 40


async def test_a_connection_closed_after_the_request_was_sent_is_a_reset() -> None:
    async def no_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_request(reader)

    client = await _load(no_answer, 10)

    assert client.tally.kinds == {"reset": client.tally.sent.total()}


async def test_an_answer_cut_short_is_a_reset() -> None:
    async def half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_request(reader)
        writer.write(_answer(_PID)[:-1])

    client = await _load(half_an_answer, 10)

    assert client.tally.kinds == {"reset": client.tally.sent.total()}


async def test_a_silent_server_is_a_timeout() -> None:
    async def silence(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    client = await _load(silence, 4, timeout_seconds=0.2)

    assert client.tally.kinds == {"timeout": client.tally.sent.total()}


async def test_any_status_but_200_is_a_failure() -> None:
    async def unavailable(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await _read_request(reader))[0]:
            writer.write(_answer(b"no server", b"503 Service Unavailable"))

    client = await _load(unavailable, 10)

    assert client.tally.kinds == {"status": client.tally.sent.total()}
    assert "503" in client.tally.details[0].detail


@pytest.mark.parametrize("body", [b'{"pid": "one"}', b"[]", b"<html>"])
async def test_a_wrong_body_is_a_failure(body: bytes) -> None:
    async def wrong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await _read_request(reader))[0]:
            writer.write(_answer(body))

    client = await _load(wrong, 10)

    assert client.tally.kinds == {"body": client.tally.sent.total()}


async def _closed_port() -> int:
    """A port where nothing listens: its listener was just closed."""
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    port = _port(server)
    server.close()
    await server.wait_closed()
    return port


async def test_a_refused_connection_is_a_failure() -> None:
    client = LoadClient(_plan(await _closed_port()))
    await _run_until(client, 10)

    assert client.tally.kinds == {"refused": client.tally.sent.total()}


async def test_with_fail_over_a_refused_connection_goes_to_the_next_target() -> None:
    async with _serving(_echo) as port:
        client = LoadClient(_plan(await _closed_port(), port, fail_over=True))
        await _run_until(client, 50)

    assert client.tally.failed.total() == 0
    assert client.tally.failed_over > 0


async def test_with_fail_over_a_reset_is_a_failure_all_the_same() -> None:
    async def no_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_request(reader)

    async with _serving(no_answer) as bad, _serving(_echo) as good:
        client = LoadClient(_plan(bad, good, fail_over=True))
        await _run_until(client, 20)

    assert set(client.tally.kinds) == {"reset"}
    assert {failure.target for failure in client.tally.details} == {f"127.0.0.1:{bad}"}
    assert all(failure.began <= failure.at for failure in client.tally.details)
    assert client.tally.failed_over == 0


async def test_the_rate_is_not_exceeded() -> None:
    client = await _load(_echo, 60, rate=100.0)

    assert client.summary()["requests_per_second"] < 150
