"""A client of HAProxy's Runtime API (Management Guide §9.3) over its stats socket."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

_PROMPT = b"\n> "
_BATCH = 32
"""Commands on one line: HAProxy reads a line into one buffer, 16 KiB by default."""


class RuntimeApiError(Exception):
    """HAProxy did not answer, or answered no to a command; the message is one line."""


class RuntimeApi:
    """One connection in interactive mode, where every reply ends with a prompt; made anew when it was lost.

    Calls are serialised. The owner calls `close`.
    """

    def __init__(self, socket: Path, timeout: float = 5.0) -> None:
        self._socket = socket
        self._timeout = timeout
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()

    async def ask(self, commands: Sequence[str]) -> list[str]:
        """The reply to each command. Raises RuntimeApiError; then it is unknown which commands took effect."""
        replies: list[str] = []
        async with self._lock:
            try:
                async with asyncio.timeout(self._timeout):
                    for start in range(0, len(commands), _BATCH):
                        replies += await self._exchange(commands[start : start + _BATCH])
            except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                self._drop()
                reason = "no answer in time" if isinstance(error, TimeoutError) else str(error)
                raise RuntimeApiError(f"HAProxy's stats socket {self._socket}: {reason}") from error
            except asyncio.CancelledError:
                self._drop()
                raise
        return replies

    async def _exchange(self, commands: Sequence[str]) -> list[str]:
        if self._connection is not None and self._connection[0].at_eof():
            self._drop()
        if self._connection is None:
            self._connection = await asyncio.open_unix_connection(str(self._socket), limit=16 * 1024 * 1024)
            self._connection[1].write(b"prompt\n")
            await self._connection[0].readuntil(_PROMPT)
        reader, writer = self._connection
        writer.write(";".join(commands).encode() + b"\n")
        await writer.drain()
        return [(await reader.readuntil(_PROMPT))[: -len(_PROMPT)].decode(errors="replace") for _ in commands]

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None

    async def close(self) -> None:
        async with self._lock:
            self._drop()


def require_silence(commands: Sequence[str], answers: Sequence[str]) -> None:
    """For commands that answer nothing when they succeed: raises RuntimeApiError with HAProxy's words otherwise."""
    for command, answer in zip(commands, answers, strict=False):
        if answer.strip():
            raise RuntimeApiError(f"HAProxy refused {command!r}: {answer.strip().splitlines()[0]}")
