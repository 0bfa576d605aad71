"""Operations on a terminal: a mutation, then its rollout watched until what was asked for is true.

The request id makes repeating the mutation safe, and watching changes nothing, so both outlive the loss of a controller.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, NoReturn

from fleet.v1 import control_pb2, types_pb2
from fleetctl import views
from fleetctl.client.rollouts import (
    how_to_attach,
    new_request_id,
    newest_rollout,
    not_as_asked,
    still_running,
    watched,
    workers_to_blame,
)
from fleetctl.connection import Connection
from fleetctl.errors import CliError, ExitCode
from fleetctl.event_loop import run
from fleetctl.outcome import describe_aborted, describe_done, described
from fleetctl.output import Output
from fleetctl.settings import Settings

if TYPE_CHECKING:
    from fleetctl.progress import Progress

__all__ = ["Begin", "carry_out", "follow", "new_request_id", "newest_rollout"]

Begin = Callable[[Connection], Awaitable[control_pb2.Rollout]]


def carry_out(
    settings: Settings,
    output: Output,
    app: str,
    begin: Begin,
    *,
    no_wait: bool,
    aim: control_pb2.RolloutState.ValueType = control_pb2.ROLLOUT_STATE_DONE,
    request_id: str = "",
) -> None:
    """Begin the operation, watch it, and say how it ended. Raises CliError unless it ends as `aim`, or goes on under --no-wait.

    `request_id`: of a mutation that may find nothing to change and then answers with an older rollout.
    """
    _conduct(_Operation(settings, output, app, aim, request_id), begin, no_wait=no_wait)


def follow(settings: Settings, output: Output, app: str) -> None:
    """Watch an app's newest rollout to its end, as `carry_out` does; for programs, a record per change."""
    operation = _Operation(settings, output, app, control_pb2.ROLLOUT_STATE_DONE, "", stream=settings.structured)
    _conduct(operation, lambda connection: newest_rollout(connection, app), no_wait=False)


def _conduct(operation: "_Operation", begin: Begin, *, no_wait: bool) -> None:
    try:
        run(operation.run(begin, no_wait=no_wait))
    except KeyboardInterrupt:
        operation.detached()
    operation.conclude(no_wait=no_wait)


class _Operation:
    def __init__(
        self,
        settings: Settings,
        output: Output,
        app: str,
        aim: control_pb2.RolloutState.ValueType,
        request_id: str,
        *,
        stream: bool = False,
    ) -> None:
        self._settings = settings
        self._output = output
        self._app = app
        self._aim = aim
        self._request_id = request_id
        self._stream = stream
        self._rollout: control_pb2.Rollout | None = None
        self._unchanged = False
        self._timed_out = False
        self._culprits: list[types_pb2.WorkerStatus] = []

    async def run(self, begin: Begin, *, no_wait: bool) -> None:
        async with Connection.open(self._settings) as connection:
            self._rollout = await begin(connection)
            self._app = self._rollout.app or self._app
            # What is asked for already, but is not true yet, is waited for like any other.
            self._unchanged = bool(self._request_id) and self._rollout.id != self._request_id and self._ended()
            if not no_wait and (self._stream or not self._ended()):
                # 10 ms in which the fleet is at work already.
                from fleetctl.progress import RecordProgress, choose_progress

                with RecordProgress(self._output) if self._stream else choose_progress(self._output) as progress:
                    # The watch begins with the present state; what the mutation answered may be planned anew meanwhile.
                    if self._ended():
                        progress.update(self._rollout)
                    try:
                        async with asyncio.timeout(self._settings.operation_seconds):
                            await self._watch(connection, progress)
                    except TimeoutError:
                        self._timed_out = True
            if self._rollout.state == control_pb2.ROLLOUT_STATE_FAILED and not self._unchanged:
                self._culprits = await workers_to_blame(connection, self._rollout)

    def conclude(self, *, no_wait: bool) -> None:
        """Say how it ended; raises CliError where that is not as asked."""
        rollout = self._rollout
        if rollout is None:
            raise CliError(ExitCode.FAILED, "the controller named no rollout", "`fleetctl status` shows what happens")
        if self._unchanged:
            self._tell_unchanged(rollout)
            return
        if self._settings.structured and not self._stream:
            self._output.document({**views.outcome_view(rollout), **self._blamed()})
        elif self._settings.quiet and no_wait:
            self._output.names([rollout.id])
        if self._timed_out:
            raise still_running(rollout, self._settings.operation_seconds)
        if self._ended() and rollout.state != self._aim:
            raise not_as_asked(rollout, self._culprits)
        if not self._settings.structured and not self._settings.quiet:
            self._tell_outcome(rollout)

    def detached(self) -> NoReturn:
        """Ctrl-C."""
        if self._rollout is None:
            raise CliError(
                ExitCode.DETACHED,
                "interrupted before the controller answered; whether it begins is not known: fleetctl status shows it",
            )
        raise CliError(
            ExitCode.DETACHED,
            f"detached; {described(self._rollout)} goes on: attach again with {how_to_attach(self._app)}",
        )

    def _ended(self) -> bool:
        return self._rollout is not None and not views.under_way(self._rollout)

    async def _watch(self, connection: Connection, progress: "Progress") -> None:
        """Until the rollout ended. Raises FleetError."""
        assert self._rollout is not None  # noqa: S101 (run() has set it)
        if self._ended():
            return
        async with aclosing(watched(connection, self._rollout.id, progress.trouble)) as changes:
            async for rollout in changes:
                self._rollout = rollout
                progress.update(rollout)

    def _blamed(self) -> dict[str, object]:
        """Of a failed rollout, the workers that are not well."""
        if self._rollout is None or self._rollout.state != control_pb2.ROLLOUT_STATE_FAILED:
            return {}
        return {"ailing": [views.worker_view(worker) for worker in self._culprits]}

    def _tell_outcome(self, rollout: control_pb2.Rollout) -> None:
        if views.under_way(rollout):
            self._output.line(f"{described(rollout)} has begun; follow it with {how_to_attach(self._app)}")
        elif rollout.state == control_pb2.ROLLOUT_STATE_ABORTED:
            self._output.line(*describe_aborted(rollout))
        else:
            self._output.line(*describe_done(rollout))

    def _tell_unchanged(self, rollout: control_pb2.Rollout) -> None:
        if self._settings.structured:
            unchanged = {"rollout": rollout.id, "state": "done", "replaced": 0, "seconds": 0.0, "changed": False}
            self._output.document({**views.outcome_view(rollout), **unchanged, "message": ""})
        elif not self._settings.quiet:
            self._output.line((self._app, "bold"), " is as asked already: nothing was changed")
