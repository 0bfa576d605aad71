"""Asks a worker whether it is well, by one HTTP GET or one connection: the smallest client that can, with a deadline."""

import asyncio
import os

from fleet_agent.readiness import Finding

_MAX_STATUS_LINE = 4096
_MAX_FIELDS = 100
_INTERIM = (100, 102, 103)
"""The answer itself is still to come (RFC 9110, 15.2)."""
_NOT_HTTP = "the answer is not HTTP/1"
_NO_ANSWER = "the connection was closed without an answer"


async def http_finding(address: str, port: int, path: str, timeout: float) -> Finding:
    """A status of 200 to 399 is good; everything else, silence included, is not. The body is not read."""
    try:
        async with asyncio.timeout(timeout):
            status = await _status(address, port, path)
    except TimeoutError:
        return Finding(good=False, seen=f"GET {path} was not answered within {timeout:g} s")
    except ValueError as error:
        return Finding(good=False, seen=f"GET {path} on port {port}: {error}")
    except OSError as error:
        return Finding(good=False, seen=f"GET {path} on port {port}: {_reason(error)}")
    return Finding(200 <= status <= 399, f"GET {path} answered {status}")


async def tcp_finding(address: str, port: int, timeout: float) -> Finding:
    """A connection that is accepted is good; it is closed at once, without a byte."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return Finding(good=False, seen=f"port {port} accepted no connection within {timeout:g} s")
    except OSError as error:
        return Finding(good=False, seen=f"connection to port {port}: {_reason(error)}")
    writer.close()
    return Finding(good=True, seen=f"port {port} accepts connections")


def _reason(error: OSError) -> str:
    """In the kernel's words: asyncio's hold the address once more."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)


async def _status(address: str, port: int, path: str) -> int:
    """Raises OSError, and ValueError on an answer that is not HTTP/1."""
    reader, writer = await asyncio.open_connection(address, port, limit=_MAX_STATUS_LINE)
    try:
        host = f"[{address}]" if ":" in address else address
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: fleet-agent\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        while (status := await _read_status(reader)) in _INTERIM:
            await _skip_fields(reader)
        return status
    finally:
        writer.transport.abort()


async def _read_status(reader: asyncio.StreamReader) -> int:
    line = await _read_line(reader)
    if not line:
        raise ValueError(_NO_ANSWER)
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ValueError(_NOT_HTTP)
    return int(words[1])


async def _skip_fields(reader: asyncio.StreamReader) -> None:
    for _ in range(_MAX_FIELDS):
        if (await _read_line(reader)).strip() == b"":
            return
    raise ValueError(_NOT_HTTP)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError as error:  # it is too long, which asyncio says in terms of its own
        raise ValueError(_NOT_HTTP) from error
