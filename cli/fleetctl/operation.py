"""Operations: a mutation, then its rollout watched until what was asked for is true.

The request id makes repeating the mutation safe, and watching changes nothing, so both outlive the loss of a controller.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import NoReturn

from fleet.v1 import control_pb2, types_pb2
from fleetctl import views
from fleetctl.ailing import culprits, headline, symptoms
from fleetctl.connection import Connection
from fleetctl.errors import CliError, ExitCode, UnavailableError
from fleetctl.output import Output
from fleetctl.progress import Progress, choose_progress
from fleetctl.settings import Settings
from fleetctl.wording import count, duration, printable

_PAUSE_SECONDS = 0.5
_SYMPTOMS_SECONDS = 3.0
_MOST_CULPRITS = 3

Begin = Callable[[Connection], Awaitable[control_pb2.Rollout]]


def new_request_id() -> str:
    return str(uuid.uuid4())


def carry_out(settings: Settings, output: Output, app: str, begin: Begin, *, no_wait: bool) -> None:
    """Begin the operation, watch it, and say how it ended. Raises CliError unless it is done, or goes on under --no-wait."""
    operation = _Operation(settings, output, app)
    try:
        asyncio.run(operation.run(begin, no_wait=no_wait))
    except KeyboardInterrupt:
        operation.detached()
    operation.conclude(no_wait=no_wait)


class _Operation:
    def __init__(self, settings: Settings, output: Output, app: str) -> None:
        self._settings = settings
        self._output = output
        self._app = app
        self._rollout: control_pb2.Rollout | None = None
        self._timed_out = False
        self._culprits: list[types_pb2.WorkerStatus] = []

    async def run(self, begin: Begin, *, no_wait: bool) -> None:
        async with Connection.open(self._settings) as connection:
            self._rollout = await begin(connection)
            self._app = self._rollout.app or self._app
            if not no_wait and not self._ended():
                with choose_progress(self._output) as progress:
                    progress.update(self._rollout)
                    try:
                        async with asyncio.timeout(self._settings.operation_seconds):
                            await self._watch(connection, progress)
                    except TimeoutError:
                        self._timed_out = True
            if self._rollout.state == control_pb2.ROLLOUT_STATE_FAILED:
                self._culprits = culprits(await self._workers(connection), self._rollout.message)

    def conclude(self, *, no_wait: bool) -> None:
        """Say how it ended; raises CliError where that is not as asked."""
        rollout = self._rollout
        if rollout is None:
            raise CliError(ExitCode.FAILED, "the controller named no rollout", "`fleetctl status` shows what happens")
        if self._settings.structured:
            self._output.document({**views.outcome_view(rollout), **self._blamed()})
        elif self._settings.quiet and no_wait:
            self._output.names([rollout.id])
        if self._timed_out:
            raise CliError(
                ExitCode.STILL_RUNNING,
                f"{self._what()} is still running after {duration(self._settings.operation_seconds)}"
                f"{self._waiting_for()}; it goes on: attach again with {self._attach()}",
            )
        if rollout.state == control_pb2.ROLLOUT_STATE_FAILED:
            raise CliError(
                ExitCode.FAILED,
                f"{self._what()} failed: {printable(rollout.message) or 'no reason was given'}",
                self._next_step(),
                self._symptoms(),
            )
        if rollout.state == control_pb2.ROLLOUT_STATE_SUPERSEDED:
            raise CliError(
                ExitCode.FAILED,
                f"{self._what()} was superseded by a newer operation on {self._app}",
                f"follow that one: {self._attach()}",
            )
        if not self._settings.structured and not self._settings.quiet:
            self._tell_outcome(rollout)

    def detached(self) -> NoReturn:
        """Ctrl-C."""
        if self._rollout is None:
            raise CliError(
                ExitCode.DETACHED,
                "interrupted before the controller answered; whether it begins is not known: fleetctl status shows it",
            )
        raise CliError(ExitCode.DETACHED, f"detached; {self._what()} goes on: attach again with {self._attach()}")

    def _ended(self) -> bool:
        return self._rollout is not None and self._rollout.state != control_pb2.ROLLOUT_STATE_RUNNING

    async def _watch(self, connection: Connection, progress: Progress) -> None:
        """Until the rollout ended; a lost controller is awaited. Raises CliError."""
        assert self._rollout is not None  # noqa: S101 (run() has set it)
        request = control_pb2.GetRolloutRequest(rollout=self._rollout.id)
        while not self._ended():
            try:
                async with aclosing(connection.stream(lambda stub: stub.WatchRollout, request)) as responses:
                    async for response in responses:
                        self._rollout = response.rollout
                        progress.update(response.rollout)
                        if self._ended():
                            return
            except UnavailableError as error:
                progress.trouble(
                    f"{error.message.partition(';')[0]}; the rollout does not depend on it, waiting for news"
                )
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _workers(self, connection: Connection) -> list[types_pb2.WorkerStatus]:
        """As they are now; nothing where they cannot be had: the failure itself is what has to be told."""
        request = control_pb2.ListWorkersRequest(app=self._app)
        try:
            async with asyncio.timeout(_SYMPTOMS_SECONDS):
                return list((await connection.call(lambda stub: stub.ListWorkers, request)).workers)
        except (CliError, TimeoutError):
            return []

    def _symptoms(self) -> list[str]:
        lines: list[str] = []
        for worker in self._culprits[:_MOST_CULPRITS]:
            # Its reason is most often the rollout's message, which was just read.
            told = symptoms(worker)
            known = printable(worker.reason)
            if self._rollout is not None and known and known in printable(self._rollout.message):
                told.remove(known)
            lines += [f"{views.worker_name(worker.id)} is {headline(worker)}", *(f"  {line}" for line in told)]
        if len(self._culprits) > _MOST_CULPRITS:
            lines.append(f"and {count(len(self._culprits) - _MOST_CULPRITS, 'more worker')} not well")
        return lines

    def _next_step(self) -> str:
        if not self._culprits:
            return f"what was good runs on; look with `fleetctl status {self._app}` and `fleetctl logs {self._app}`"
        first = views.worker_name(self._culprits[0].id)
        return f"what was good runs on; look with `fleetctl status {self._app}` and `fleetctl logs --worker {first}`"

    def _blamed(self) -> dict[str, object]:
        """Of a failed rollout, the workers that are not well."""
        if self._rollout is None or self._rollout.state != control_pb2.ROLLOUT_STATE_FAILED:
            return {}
        return {"ailing": [views.worker_view(worker) for worker in self._culprits]}

    def _what(self) -> str:
        kind = views.rollout_kind(self._rollout) if self._rollout is not None else "rollout"
        return f"{kind} of {self._app}"

    def _waiting_for(self) -> str:
        message = printable(self._rollout.message) if self._rollout is not None else ""
        return f" ({message})" if message else ""

    def _attach(self) -> str:
        return f"`fleetctl rollout status {self._app} --watch`"

    def _tell_outcome(self, rollout: control_pb2.Rollout) -> None:
        if rollout.state == control_pb2.ROLLOUT_STATE_RUNNING:
            self._output.line(f"{self._what()} has begun; follow it with {self._attach()}")
        else:
            self._output.line(*describe_done(rollout))


def describe_done(rollout: control_pb2.Rollout) -> tuple[str | tuple[str, str], ...]:
    """The last line of an operation that is done."""
    workers = count(rollout.replaced, "worker")
    verb, what = {
        control_pb2.ROLLOUT_KIND_START: ("started", f"{workers} started"),
        control_pb2.ROLLOUT_KIND_SET_SIZE: ("resized", f"{workers} started or stopped"),
        control_pb2.ROLLOUT_KIND_RESTART: ("restarted", f"{workers} replaced"),
        control_pb2.ROLLOUT_KIND_STOP: ("stopped", f"{workers} stopped"),
        control_pb2.ROLLOUT_KIND_REMOVE: ("removed", f"{workers} stopped"),
    }.get(rollout.kind, ("done", f"{workers} changed"))
    return (rollout.app, "bold"), " ", (verb, "bold green"), f": {what} in {duration(rollout.seconds)}"


async def newest_rollout(connection: Connection, app: str) -> control_pb2.Rollout:
    """Raises CliError, also when the app never had one."""
    response = await connection.call(lambda stub: stub.GetRollout, control_pb2.GetRolloutRequest(app=app))
    if not response.HasField("rollout"):
        raise CliError(ExitCode.NOT_FOUND, f"{app} had no rollout yet", f"`fleetctl status {app}` shows how it is")
    return response.rollout
