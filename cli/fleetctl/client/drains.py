"""Drains of hosts, watched until nothing is left; watching outlives the loss of a controller."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from fleet.v1 import control_pb2
from fleetctl.client.connection import Connection
from fleetctl.client.errors import DrainFailed, Refused, StillRunning, UnavailableError
from fleetctl.wording import count, duration, printable

_PAUSE_SECONDS = 0.5


async def watched_drain(
    connection: Connection, host: str, trouble: Callable[[str], None]
) -> AsyncGenerator[control_pb2.WatchDrainResponse, None]:
    """How far it is whenever that changes, the present state first, until the host is drained; ends before where the drain is
    called off. A lost controller is awaited, and `trouble` told why there is no news. Close it (`contextlib.aclosing`).
    Raises FleetError."""
    request = control_pb2.WatchDrainRequest(host=host)
    while True:
        try:
            async with aclosing(connection.stream(lambda stub: stub.WatchDrain, request)) as responses:
                async for response in responses:
                    yield response
                    if response.drained:
                        return
        except UnavailableError as error:
            trouble(f"{error.message.partition(';')[0]}; the drain does not depend on it, waiting for news")
        except Refused:
            return
        await asyncio.sleep(_PAUSE_SECONDS)


def how_to_look(host: str) -> str:
    return (
        f"`fleetctl host drain {host}` follows it again, `fleetctl host ls` shows it, "
        f"`fleetctl host uncordon {host}` calls it off"
    )


def called_off(drain: control_pb2.WatchDrainResponse) -> DrainFailed:
    """To be raised."""
    return DrainFailed(
        f"the drain of {drain.host} was called off, by somebody's `host uncordon`, with "
        f"{count(drain.workers_left, 'worker')} left there"
    )


def still_draining(drain: control_pb2.WatchDrainResponse, seconds: float) -> StillRunning:
    """To be raised when a wait of so many seconds ended before the drain."""
    waits = f" ({printable(drain.message)})" if drain.message else ""
    return StillRunning(
        f"{count(drain.workers_left, 'worker')} left on {drain.host} after {duration(seconds)}{waits}; "
        f"the drain goes on: {how_to_look(drain.host)}"
    )
