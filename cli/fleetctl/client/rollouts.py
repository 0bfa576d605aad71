"""Rollouts: watched until what was asked for is true, and the words for an end that is not as asked.

Watching changes nothing, so it outlives the loss of a controller.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING
from uuid import uuid4

from fleet.v1 import control_pb2, types_pb2
from fleetctl import views
from fleetctl.ailing import culprits
from fleetctl.client.connection import Connection
from fleetctl.client.errors import FleetError, NotFound, RolloutFailed, RolloutTimeout, UnavailableError
from fleetctl.outcome import described, evidence, next_step, standing, what_runs
from fleetctl.wording import duration, printable

if TYPE_CHECKING:
    from fleetctl.client.values import RolloutStatus

WAIT_SECONDS = 1800.0
"""How long an operation is waited for, unless somebody says otherwise."""
_PAUSE_SECONDS = 0.5
_SYMPTOMS_SECONDS = 3.0


def new_request_id() -> str:
    """Makes repeating a mutation safe."""
    return str(uuid4())


Mutation = (
    control_pb2.StartAppRequest
    | control_pb2.SetSizeRequest
    | control_pb2.RestartAppRequest
    | control_pb2.StopAppRequest
    | control_pb2.RemoveAppRequest
    | control_pb2.UpdateAppRequest
    | control_pb2.RollbackAppRequest
    | control_pb2.ControlRolloutRequest
)
"""What begins or steers a rollout."""


async def begin_rollout(connection: Connection, request: Mutation) -> control_pb2.Rollout:
    """Send it, again while no controller answers: its request id makes that safe. Raises FleetError."""
    match request:
        case control_pb2.StartAppRequest():
            return (await connection.call(lambda stub: stub.StartApp, request, mutation=True)).rollout
        case control_pb2.SetSizeRequest():
            return (await connection.call(lambda stub: stub.SetSize, request, mutation=True)).rollout
        case control_pb2.RestartAppRequest():
            return (await connection.call(lambda stub: stub.RestartApp, request, mutation=True)).rollout
        case control_pb2.StopAppRequest():
            return (await connection.call(lambda stub: stub.StopApp, request, mutation=True)).rollout
        case control_pb2.RemoveAppRequest():
            return (await connection.call(lambda stub: stub.RemoveApp, request, mutation=True)).rollout
        case control_pb2.UpdateAppRequest():
            return (await connection.call(lambda stub: stub.UpdateApp, request, mutation=True)).rollout
        case control_pb2.RollbackAppRequest():
            return (await connection.call(lambda stub: stub.RollbackApp, request, mutation=True)).rollout
        case control_pb2.ControlRolloutRequest():
            return (await connection.call(lambda stub: stub.ControlRollout, request, mutation=True)).rollout


async def newest_rollout(connection: Connection, app: str) -> control_pb2.Rollout:
    """Raises FleetError, also when the app never had one."""
    response = await connection.call(lambda stub: stub.GetRollout, control_pb2.GetRolloutRequest(app=app))
    if not response.HasField("rollout"):
        raise NotFound(f"{app} had no rollout yet", f"`fleetctl status {app}` shows how it is")
    return response.rollout


async def watched(
    connection: Connection, rollout: str, trouble: Callable[[str], None]
) -> AsyncGenerator[control_pb2.Rollout, None]:
    """The rollout of this id whenever it changes, the present state first, until it ended; a lost controller is awaited, and
    `trouble` told why there is no news. Close it (`contextlib.aclosing`). Raises FleetError."""
    request = control_pb2.GetRolloutRequest(rollout=rollout)
    while True:
        try:
            async with aclosing(connection.stream(lambda stub: stub.WatchRollout, request)) as responses:
                async for response in responses:
                    yield response.rollout
                    if not views.under_way(response.rollout):
                        return
        except UnavailableError as error:
            trouble(f"{error.message.partition(';')[0]}; the rollout does not depend on it, waiting for news")
        await asyncio.sleep(_PAUSE_SECONDS)


def timeless(rollout: control_pb2.Rollout) -> control_pb2.Rollout:
    """A copy to be compared: the controller repeats a rollout as time goes by, which is no change."""
    copy = control_pb2.Rollout()
    copy.CopyFrom(rollout)
    copy.ClearField("seconds")
    return copy


async def workers_to_blame(connection: Connection, rollout: control_pb2.Rollout) -> list[types_pb2.WorkerStatus]:
    """As they are now; nothing where they cannot be had: the failure itself is what has to be told."""
    request = control_pb2.ListWorkersRequest(app=rollout.app)
    try:
        async with asyncio.timeout(_SYMPTOMS_SECONDS):
            workers = (await connection.call(lambda stub: stub.ListWorkers, request)).workers
    except (FleetError, TimeoutError):
        return []
    return culprits(list(workers), rollout.message)


def status_of(rollout: control_pb2.Rollout) -> "RolloutStatus":
    from fleetctl.client.values import (
        RolloutStatus,
        from_view,
    )  # 15 ms that a command whose rollout is done does not need

    return from_view(views.rollout_view(rollout), RolloutStatus)


def how_to_attach(app: str) -> str:
    return f"`fleetctl rollout status {app} --watch`"


def not_as_asked(rollout: control_pb2.Rollout, blamed: Sequence[types_pb2.WorkerStatus]) -> RolloutFailed:
    """To be raised for a rollout that ended otherwise than somebody wanted; `blamed`: its workers that are not well."""
    app, status = rollout.app, status_of(rollout)
    if rollout.state == control_pb2.ROLLOUT_STATE_SUPERSEDED:
        text = f"{described(rollout)} was superseded by a newer operation on {app}"
        return RolloutFailed(text, status, f"follow that one: {how_to_attach(app)}")
    if rollout.state == control_pb2.ROLLOUT_STATE_ABORTED:
        text = f"{described(rollout)} was aborted, by somebody's `rollout abort`: {what_runs(rollout)}"
        return RolloutFailed(text, status, f"`fleetctl history {app}` shows what was done")
    if rollout.state == control_pb2.ROLLOUT_STATE_DONE:
        text = f"{described(rollout)} was done before it could be undone"
        return RolloutFailed(text, status, f"`fleetctl rollback {app}` goes back to what ran before")
    return RolloutFailed(
        f"{described(rollout)} failed: {printable(rollout.message) or 'no reason was given'}",
        status,
        next_step(rollout, blamed),
        evidence(rollout, blamed),
    )


def still_running(rollout: control_pb2.Rollout, seconds: float) -> RolloutTimeout:
    """To be raised when a wait of so many seconds ended before the rollout."""
    stands = standing(rollout)
    unfinished = {"paused": "is paused", "": "is still running"}.get(stands, f"still {stands}")
    message = printable(rollout.message).removeprefix("paused: ")
    waiting_for = f" ({message})" if message else ""
    return RolloutTimeout(
        f"{described(rollout)} {unfinished} after {duration(seconds)}{waiting_for}; it goes on: "
        f"attach again with {how_to_attach(rollout.app)}",
        status_of(rollout),
    )
