"""Leaving: what `fleet-agent drain` and the running agent say to each other before a host goes down.

Over `agent.sock` in the runtime folder, one line each: the command sends "leave", the agent has the controller drain this host
and answers "drained", or "alone" where there is no controller; the command has the supervisor stop all workers and sends "down".
This host is leaving while the connection is open, and after "down" until the agent ends: it starts nothing then.
"""

import asyncio
import contextlib
import logging
import socket
from pathlib import Path

from fleet_agent.host import Host
from fleet_agent.supervisor_client import SupervisorClient, SupervisorRefusedError, SupervisorUnavailable

SOCKET_NAME = "agent.sock"
_LEAVE, _DRAINED, _ALONE, _DOWN = b"leave\n", b"drained\n", b"alone\n", b"down\n"
_ABSENCE_SECONDS = 5.0
"""Without a session for so long, no controller is waited for: one that restarts is back sooner."""
_LOOK_SECONDS = 0.2
_FOLDER_SECONDS = 0.5
_DEFAULT_GRACE_SECONDS = 10.0
_LOG = logging.getLogger(__name__)


class DepartureError(Exception):
    """Workers are still running; the message is one line that says why."""


async def serve_departures(host: Host, path: Path) -> None:
    """Until cancelled; where the supervisor, whose folder it is, has never run yet, once it has. Raises OSError where the socket
    cannot be made."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await _serve(host, reader, writer)
        writer.close()

    while not path.parent.is_dir():  # noqa: ASYNC110 - a folder that appears tells nobody
        await asyncio.sleep(_FOLDER_SECONDS)
    server = await asyncio.start_unix_server(serve, sock=_bound(path), limit=64)
    async with server:
        await server.serve_forever()


def _bound(path: Path) -> socket.socket:
    """A socket for root alone that does not listen yet. The lock of the state folder makes us the only agent of this host."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        bound.bind(str(path))
        path.chmod(0o600)
    except OSError:
        bound.close()
        raise
    return bound


async def _serve(host: Host, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if await reader.readline() != _LEAVE:
        return
    _LOG.info("this host leaves: its workers are drained, and then stopped")
    host.leave(leaving=True)
    told = asyncio.create_task(_outcome(host), name="departure")
    last_word = asyncio.create_task(reader.readline(), name="departure-end")
    try:
        await asyncio.wait((told, last_word), return_when=asyncio.FIRST_COMPLETED)
        if not last_word.done():
            writer.write(told.result())
            await writer.drain()
        if await last_word != _DOWN:
            _LOG.info("this host stays")
            host.leave(leaving=False)
    finally:
        told.cancel()
        last_word.cancel()


async def _outcome(host: Host) -> bytes:
    waited = 0.0
    while waited < _ABSENCE_SECONDS:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await host.drained.wait()
                return _DRAINED
        waited = 0.0 if host.in_session else waited + _LOOK_SECONDS
    return _ALONE


async def depart(runtime_dir: Path, timeout: float) -> None:
    """Take this host's workers out of service, at most for `timeout` seconds, and stop them. Raises DepartureError.

    Where no agent runs, they are stopped at once.
    """
    async with contextlib.AsyncExitStack() as owned:
        agent: asyncio.StreamWriter | None = None
        try:
            reader, agent = await asyncio.open_unix_connection(runtime_dir / SOCKET_NAME)
            owned.callback(agent.close)
            await _ask_to_drain(reader, agent, timeout)
        except OSError as error:
            _LOG.warning(
                "no fleet-agent answers (%s): workers are stopped without being drained", error.strerror or error
            )
        await _stop_workers(runtime_dir / "supervisor.sock")
        if agent is not None:
            with contextlib.suppress(OSError):
                agent.write(_DOWN)
                await agent.drain()
    _LOG.info("all workers of this host are stopped")


async def _ask_to_drain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout: float) -> None:
    writer.write(_LEAVE)
    await writer.drain()
    try:
        async with asyncio.timeout(timeout):
            answer = await reader.readline()
    except TimeoutError:
        _LOG.warning("requests have not ended after %g s: workers are stopped all the same", timeout)
        return
    if answer == _DRAINED:
        _LOG.info("no balancer sends this host anything any more")
    else:
        _LOG.warning("no controller is reached: workers are stopped without being drained")


async def _stop_workers(path: Path) -> None:
    """Each gets the longest grace any of them asks for. Raises DepartureError."""
    client = SupervisorClient()
    try:
        await client.connect(path)
        workers = (await client.hello()).workers
        await client.stop_all(max((worker.launch.grace_seconds for worker in workers), default=_DEFAULT_GRACE_SECONDS))
    except (SupervisorUnavailable, SupervisorRefusedError) as error:
        raise DepartureError(f"workers are not stopped: {error}") from error
    finally:
        await client.close()
