"""GET /metrics, over a real socket."""

import asyncio
from collections.abc import Iterator

import pytest

from fleet_core.exposition import Metric, single
from fleet_core.metrics import serve_metrics
from tests.ports import free_address


class Counting:
    def __init__(self) -> None:
        self.asked = 0

    def collect(self) -> Iterator[Metric]:
        self.asked += 1
        yield single("fleet_asked", "How often this was asked.", self.asked)


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_each_request_sees_the_present_state() -> None:
    collector = Counting()
    server = await serve_metrics(free_address(), collector)
    try:
        for count in (1, 2):
            answer = await ask(server.port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert f"fleet_asked {count}.0".encode() in answer
    finally:
        await server.close()


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"POST /metrics HTTP/1.1", b"nonsense"])
async def test_nothing_else_is_there(request_line: bytes) -> None:
    collector = Counting()
    server = await serve_metrics(free_address(), collector)
    try:
        answer = await ask(server.port, request_line + b"\r\n\r\n")
    finally:
        await server.close()
    assert answer.startswith(b"HTTP/1.1 404")
    assert collector.asked == 0
