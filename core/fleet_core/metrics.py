"""GET /metrics for a daemon: Prometheus' text format over plain HTTP, to be bound to an address that only scrapers reach."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from fleet_core.addresses import parse_address
from fleet_core.exposition import CONTENT_TYPE, Metric, exposition

_REQUEST_BYTES = 8192
_REQUEST_SECONDS = 5.0


class Collector(Protocol):
    def collect(self) -> Iterable[Metric]:
        """The metrics at this moment."""
        ...


class MetricsServer:
    """Answers with what the collector yields at that moment. `close` ends it."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()


async def serve_metrics(address: str, collector: Collector) -> MetricsServer:
    """Listen on "address:port". `collector` is asked on the event loop, once a request. Raises OSError, ValueError."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(request, collector))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    host, port = parse_address(address)
    return MetricsServer(await asyncio.start_server(answer, host, port, limit=_REQUEST_BYTES))


def _response(request: bytes, collector: Collector) -> bytes:
    parts = request.split(b" ", 2)
    if len(parts) < 3 or parts[0] not in (b"GET", b"HEAD") or parts[1].split(b"?")[0] != b"/metrics":
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    body = exposition(collector.collect())
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if parts[0] == b"GET" else b"")
