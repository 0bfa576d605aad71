"""`host drain`: what would move, a question where something would be lost, and the wait until nothing is left."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NoReturn

import click

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.client.drains import called_off, how_to_look, still_draining, watched_drain
from fleetctl.command import fleet_command
from fleetctl.connection import Connection
from fleetctl.drain_progress import DrainProgress, choose_drain_progress
from fleetctl.errors import CliError, ExitCode
from fleetctl.event_loop import run
from fleetctl.names import complete_hosts
from fleetctl.operation import new_request_id
from fleetctl.output import Column, Output
from fleetctl.settings import Settings
from fleetctl.wording import count, duration

_COLUMNS = (Column("APP"), Column("WORKERS", right=True), Column("WHAT BECOMES OF THEM"))


@fleet_command("drain")
@click.argument("host", shell_complete=complete_hosts)
@click.option("--no-wait", is_flag=True, help="Return at once; the drain goes on.")
def drain(settings: Settings, host: str, no_wait: bool) -> None:  # noqa: FBT001
    """Move a host's workers to others, start-first, and wait until none is left.

    It takes nothing new until `fleetctl host uncordon HOST`. Workers of apps that are pinned to it have nowhere to go: they
    stop until then, which is asked about first.
    """
    output = Output(settings)
    plan = run(_plan(settings, host))
    if not settings.structured and not settings.quiet and plan.moves:
        output.table(_COLUMNS, [(move.app, str(move.workers), move.fate(host)) for move in plan.moves])
    stopping = [move for move in plan.moves if move.pinned]
    if stopping and not plan.under_way:
        named = ", ".join(f"{count(move.workers, 'worker')} of {move.app}" for move in stopping)
        output.confirm(f"This stops {named}, pinned to {host}: nothing replaces them until it is uncordoned. Go on?")
    drainer = _Drainer(settings, output, host, plan)
    try:
        run(drainer.run(allow_stopping_pinned=bool(stopping), no_wait=no_wait))
    except KeyboardInterrupt:
        drainer.detached()
    drainer.conclude(no_wait=no_wait)


@dataclass(frozen=True, slots=True)
class _Move:
    app: str
    workers: int
    pinned: bool

    def fate(self, host: str) -> str:
        return f"stop until it is uncordoned: pinned to {host}" if self.pinned else "move to other hosts"


@dataclass(frozen=True, slots=True)
class _Plan:
    moves: tuple[_Move, ...]
    under_way: bool
    """It is being drained already, and what that stops was agreed to then."""


class _Drainer:
    def __init__(self, settings: Settings, output: Output, host: str, plan: _Plan) -> None:
        self._settings = settings
        self._output = output
        self._host = host
        self._workers = sum(move.workers for move in plan.moves)
        self._latest: control_pb2.WatchDrainResponse | None = None
        self._began = time.monotonic()
        self._asked = False
        self._timed_out = False
        self._called_off = False

    async def run(self, *, allow_stopping_pinned: bool, no_wait: bool) -> None:
        request = control_pb2.DrainHostRequest(
            request_id=new_request_id(), host=self._host, allow_stopping_pinned=allow_stopping_pinned
        )
        async with Connection.open(self._settings) as connection:
            await connection.call(lambda stub: stub.DrainHost, request, mutation=True)
            self._asked = True
            if no_wait:
                return
            with choose_drain_progress(self._output) as view:
                try:
                    async with asyncio.timeout(self._settings.operation_seconds):
                        await self._watch(connection, view)
                except TimeoutError:
                    self._timed_out = True

    def conclude(self, *, no_wait: bool) -> None:
        """Say how far it came; raises CliError unless the host is drained, or --no-wait."""
        latest = self._latest or control_pb2.WatchDrainResponse(host=self._host, workers_left=self._workers)
        seconds = time.monotonic() - self._began
        if self._settings.structured:
            self._output.document({**views.drain_view(latest), "seconds": round(seconds, 3)})
        if self._called_off:
            raise called_off(latest)
        if self._timed_out:
            raise still_draining(latest, self._settings.operation_seconds)
        if self._settings.structured or self._settings.quiet:
            return
        if no_wait:
            self._output.line(f"the drain of {self._host} has begun: {how_to_look(self._host)}")
        else:
            self._output.line(
                (self._host, "bold"),
                " ",
                ("drained", "bold green"),
                f": no worker is left there, after {duration(seconds)}; it takes nothing new until "
                f"`fleetctl host uncordon {self._host}`",
            )

    def detached(self) -> NoReturn:
        """Ctrl-C."""
        if not self._asked:
            text = (
                "interrupted before the controller answered; whether it drains is not known: fleetctl host ls shows it"
            )
            raise CliError(ExitCode.DETACHED, text)
        raise CliError(ExitCode.DETACHED, f"detached; the drain of {self._host} goes on: {how_to_look(self._host)}")

    async def _watch(self, connection: Connection, view: DrainProgress) -> None:
        """Until nothing is left or it is called off. Raises FleetError."""
        async with aclosing(watched_drain(connection, self._host, view.trouble)) as changes:
            async for drain in changes:
                self._latest = drain
                view.update(drain)
        self._called_off = self._latest is None or not self._latest.drained


def _moves(host: str, workers: Counter[str], apps: Sequence[control_pb2.App]) -> tuple[_Move, ...]:
    """What lives on the host or is wanted there."""
    running = [app for app in apps if app.state == control_pb2.APP_STATE_RUNNING]
    wanted = {app.name: app.placement.get(host, 0) for app in running}
    pinned = {app.name for app in running if app.size_mode == control_pb2.SIZE_MODE_PINNED and wanted[app.name]}
    names = sorted({name for name, number in (*workers.items(), *wanted.items()) if number})
    return tuple(_Move(name, max(workers[name], wanted.get(name, 0)), name in pinned) for name in names)


async def _plan(settings: Settings, name: str) -> _Plan:
    """Raises CliError, also for a host nobody knows."""
    async with Connection.open(settings) as connection:
        hosts, apps, workers = await asyncio.gather(
            connection.call(lambda stub: stub.ListHosts, control_pb2.ListHostsRequest()),
            connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest()),
            connection.call(lambda stub: stub.ListWorkers, control_pb2.ListWorkersRequest()),
        )
    host = next((host for host in hosts.hosts if host.name == name), None)
    if host is None:
        raise CliError(ExitCode.NOT_FOUND, f"no host is named {name}", "`fleetctl host ls` shows the hosts")
    live = Counter(worker.id.app for worker in workers.workers if worker.id.host == name and worker.pid)
    moves = _moves(name, live, list(apps.apps))
    return _Plan(moves, host.scheduling == control_pb2.HOST_SCHEDULING_DRAINING)
