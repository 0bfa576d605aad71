"""`status`: how things are, why, and what to do next."""

import asyncio

import click
from rich.text import Text

from fleet.v1 import control_pb2, types_pb2
from fleetctl import rollout, views
from fleetctl.advice import app_advice, fleet_advice
from fleetctl.ailing import headline, is_ailing, is_done, symptoms, worst_first
from fleetctl.client.overview import Overview, overview, overview_view
from fleetctl.command import fleet_command
from fleetctl.connection import Connection
from fleetctl.listing import NO_APPS, app_row, worker_row
from fleetctl.names import complete_apps
from fleetctl.output import Column, Output, state
from fleetctl.settings import Settings
from fleetctl.wording import count

_APP_COLUMNS = (
    Column("APP"),
    Column("STATE"),
    Column("READY", right=True),
    Column("REV", right=True, rank=3),
    Column("HTTP", rank=2),
    Column("HOSTS", rank=1),
    Column("ROLLOUT"),
)
_WORKER_COLUMNS = (
    Column("WORKER"),
    Column("STATE"),
    Column("PID", right=True, rank=1),
    Column("PORT", right=True, rank=2),
    Column("REV", right=True, rank=6),
    Column("GEN", right=True, rank=5),
    Column("RESTARTS", right=True),
    Column("UPTIME", right=True),
    Column("MEMORY", right=True, rank=4),
    Column("CPU", right=True, rank=3),
)
_OLD_NEWS = (control_pb2.ROLLOUT_STATE_DONE, control_pb2.ROLLOUT_STATE_ABORTED)
_MOST_AILING = 5
_MOST_REASONS = 10


@fleet_command("status")
@click.argument("app", required=False, default="", shell_complete=complete_apps)
def status(settings: Settings, app: str) -> None:
    """Show how the fleet or one app is, and what to do next."""
    output = Output(settings)
    fleet = asyncio.run(_fetch(settings, app))
    if settings.structured:
        output.document(overview_view(fleet))
    elif settings.quiet:
        output.names(f"{shown.name} {views.app_state(shown)} {shown.ready}/{shown.size}" for shown in fleet.apps)
    elif app:
        _show_app(output, fleet, fleet.apps[0])
    else:
        _show_fleet(output, fleet)


def _show_fleet(output: Output, fleet: Overview) -> None:
    online = sum(host.state == control_pb2.HOST_STATE_ONLINE for host in fleet.hosts)
    connected = sum(balancer.connected for balancer in fleet.balancers)
    live = sum(worker.pid > 0 for worker in fleet.workers)
    output.line(
        _of(online, len(fleet.hosts), "host", "online"),
        ", ",
        _of(connected, len(fleet.balancers), "balancer", "connected"),
        f", {count(live, 'worker')}",
    )
    _show_notices(output, fleet)
    output.line()
    if fleet.apps:
        output.table(_APP_COLUMNS, [app_row(app) for app in fleet.apps])
    else:
        output.line(NO_APPS)
    advice = [
        f"{app.name}: {text}"
        for app in fleet.apps
        for text in (*app.notices, *_worth_saying(app, fleet.workers_of(app)))
    ]
    _show_steps(output, [*advice, *fleet_advice(fleet.hosts, fleet.balancers)])


def _show_notices(output: Output, fleet: Overview) -> None:
    for notice in fleet.notices:
        output.paragraph(f"! {notice}", indent=0, style="bold red")


def _worth_saying(app: control_pb2.App, workers: list[types_pb2.WorkerStatus]) -> list[str]:
    """In the overview a stopped app is no news."""
    return [] if app.state == control_pb2.APP_STATE_STOPPED else app_advice(app, workers)


def _show_app(output: Output, fleet: Overview, app: control_pb2.App) -> None:
    workers = fleet.workers_of(app)
    _show_notices(output, fleet)
    missing = app.state == control_pb2.APP_STATE_RUNNING and app.ready < app.size
    where = f"on {route}" if (route := views.route_words(app.spec.route)) else "without a route"
    output.line(
        (app.name, "bold"),
        "  ",
        state(views.app_state(app)),
        "  ",
        (f"{app.ready} of {app.size} ready", "bold red" if missing else ""),
        f"  {where}  ",
        (f"revision {app.revision}, generation {app.generation}, {views.size_mode(app.size_mode)}", "dim"),
    )
    if app.spec.argv:
        output.line((f"{' '.join(app.spec.argv)}  in {app.spec.cwd}", "dim"))
    for notice in app.notices:
        output.paragraph(f"! {notice}", indent=0, style="yellow")
    if app.HasField("rollout") and app.rollout.state not in _OLD_NEWS:
        output.line()
        rollout.show(output, app.rollout)
    output.line()
    if workers:
        output.table(_WORKER_COLUMNS, [worker_row(worker) for worker in workers])
    else:
        output.line("no workers")
    _show_ailing(output, [worker for worker in worst_first(workers) if not is_done(worker)])
    reasons = [worker for worker in workers if worker.reason and (is_done(worker) or not is_ailing(worker))]
    if reasons:
        output.line()
        output.line(("why these last ended", "bold"))
        for worker in reasons[:_MOST_REASONS]:
            output.paragraph(f"{views.worker_name(worker.id)}: {worker.reason}")
        _tell_more(output, len(reasons) - _MOST_REASONS)
    _show_steps(output, [*app_advice(app, workers), *fleet_advice(fleet.hosts, fleet.balancers)])


def _show_ailing(output: Output, workers: list[types_pb2.WorkerStatus]) -> None:
    if not workers:
        return
    output.line()
    output.line(("not well", "bold red"))
    for worker in workers[:_MOST_AILING]:
        output.line("  ", (views.worker_name(worker.id), "bold"), "  ", (headline(worker), "red"))
        for line in symptoms(worker):
            if line.startswith(" "):  # printed by the worker: as it is
                output.line(f"    {line}")
            else:
                output.paragraph(line, indent=4)
    _tell_more(output, len(workers) - _MOST_AILING)


def _tell_more(output: Output, number: int) -> None:
    if number > 0:
        output.line((f"  and {count(number, 'more worker')}: -o json shows all", "dim"))


def _show_steps(output: Output, steps: list[str]) -> None:
    if not steps:
        return
    output.line()
    output.line(("next", "bold"))
    for step in steps:
        output.paragraph(step)


def _of(number: int, total: int, noun: str, word: str) -> Text:
    return Text(f"{number} of {count(total, noun)} {word}", "" if number == total else "red")


async def _fetch(settings: Settings, app: str) -> Overview:
    async with Connection.open(settings) as connection:
        return await overview(connection, app)
