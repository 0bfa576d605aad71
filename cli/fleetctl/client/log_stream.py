"""What workers print, as the controller merges it; following outlives the loss of a controller."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from fleet.v1 import control_pb2
from fleetctl.client.connection import Connection
from fleetctl.client.errors import UnavailableError

USUAL_LINES = 20
MOST_LINES = 1_000_000
UNFOLLOWED_SECONDS = 60.0
"""What was printed already should be here by then."""
_RECONNECT_SECONDS = 0.5


async def log_stream(
    connection: Connection, request: control_pb2.StreamLogsRequest, trouble: Callable[[str], None]
) -> AsyncGenerator[control_pb2.StreamLogsResponse, None]:
    """Until the end, or while following until closed: once a controller answered, one that is lost is awaited, and `trouble` told
    once that it is away. Changes `request`. Close it (`contextlib.aclosing`). Raises FleetError."""
    if request.follow:
        # Workers may be silent for hours: the stream itself does not tell whether anybody is there.
        await connection.call(lambda stub: stub.GetInfo, control_pb2.GetInfoRequest())
    heard = False
    away = False
    while True:
        try:
            async with aclosing(connection.stream(lambda stub: stub.StreamLogs, request)) as responses:
                async for response in responses:
                    heard, away = True, False
                    yield response
        except UnavailableError as error:
            if not request.follow:
                raise
            if not away:
                away = True
                trouble(f"{error.message.partition(';')[0]}: lines may be missing until one is back")
        else:
            if not request.follow:
                return
        if heard:
            request.lines, request.since_seconds = 0, 0  # those printed already are not wanted again
        await asyncio.sleep(_RECONNECT_SECONDS)
