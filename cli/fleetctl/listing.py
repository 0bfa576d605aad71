"""`ls`, `ps` and `info`: what there is, as it is."""

import asyncio

import click
from rich.text import Text

from fleet.v1 import control_pb2, types_pb2
from fleetctl import views
from fleetctl.command import fleet_command
from fleetctl.connection import Connection
from fleetctl.names import complete_apps
from fleetctl.outcome import standing
from fleetctl.output import Column, Output, state
from fleetctl.settings import Settings
from fleetctl.usage import by_name
from fleetctl.wording import count, duration, size

NO_APPS = "no apps yet: fleetctl start ./server.js --http :8080"

_APP_COLUMNS = (
    Column("APP"),
    Column("STATE"),
    Column("READY", right=True),
    Column("REV", right=True, rank=4),
    Column("HTTP", rank=3),
    Column("HOSTS", rank=2),
    Column("ROLLOUT", rank=1),
)
WORKER_COLUMNS = (
    Column("WORKER"),
    Column("STATE"),
    Column("PID", right=True),
    Column("PORT", right=True),
    Column("REV", right=True, rank=6),
    Column("GEN", right=True, rank=5),
    Column("RESTARTS", right=True, rank=2),
    Column("UPTIME", right=True, rank=1),
    Column("MEMORY", right=True, rank=3),
    Column("CPU", right=True, rank=4),
)
# What was asked for stays the longest.
_WIDE_COLUMNS = (Column("FDS", right=True), Column("THREADS", right=True), Column("STATUS", rank=7))


@fleet_command("ls")
def ls(settings: Settings) -> None:
    """List the apps."""
    output = Output(settings)
    apps = sorted(asyncio.run(_fetch_apps(settings)), key=lambda app: app.name)
    if settings.structured:
        output.document([views.app_view(app) for app in apps])
    elif settings.quiet:
        output.names(app.name for app in apps)
    elif not apps:
        output.line(NO_APPS)
    else:
        output.table(_APP_COLUMNS, [app_row(app) for app in apps])


@fleet_command("ps")
@click.argument("app", required=False, default="", shell_complete=complete_apps)
@click.option("-w", "--wide", is_flag=True, help="Show open files and threads, and what they say of themselves.")
def ps(settings: Settings, app: str, wide: bool) -> None:  # noqa: FBT001
    """List the workers."""
    output = Output(settings)
    workers = by_name(asyncio.run(_fetch_workers(settings, app)))
    if settings.structured:
        output.document([views.worker_view(worker) for worker in workers])
    elif settings.quiet:
        output.names(views.worker_name(worker.id) for worker in workers)
    elif not workers:
        output.line(f"{app} has no workers: fleetctl status {app}" if app else "no workers: fleetctl ls shows the apps")
    elif wide:
        output.table(
            (*WORKER_COLUMNS, *_WIDE_COLUMNS), [[*worker_row(worker), *_wide_cells(worker)] for worker in workers]
        )
    else:
        output.table(WORKER_COLUMNS, [worker_row(worker) for worker in workers])


@fleet_command("info")
def info(settings: Settings) -> None:
    """Show the controller and the etcd behind it."""
    output = Output(settings)
    answer = asyncio.run(_fetch_info(settings))
    if settings.structured:
        output.document(views.info_view(answer))
        return
    view = views.info_view(answer)
    etcd = ", ".join(answer.etcd_endpoints) or "none"
    output.table(
        (Column("CONTROLLER"), Column(answer.controller)),
        [
            ("version", f"{answer.version} (protocol {answer.protocol_version})"),
            ("fleet", answer.fleet_id or "-"),
            ("epoch", view["epoch"]),
            ("etcd", Text(f"{etcd}: {answer.etcd_error}", "red") if answer.etcd_error else f"{etcd}: answers"),
            ("apps", str(answer.apps)),
            ("hosts", str(answer.hosts)),
            ("workers", str(answer.workers)),
        ],
    )
    for notice in answer.notices:
        output.paragraph(f"! {notice}", indent=0, style="bold red")


def app_row(app: control_pb2.App) -> list[str | Text]:
    wanted = 0 if app.state == control_pb2.APP_STATE_STOPPED else app.size
    missing = app.state == control_pb2.APP_STATE_RUNNING and app.ready < app.size
    hosts = sorted(f"{host}:{number}" for host, number in app.placement.items() if number)
    return [
        Text(app.name, "bold"),
        state(views.app_state(app)),
        Text(f"{app.ready}/{wanted}", "red" if missing else ""),
        str(app.revision),
        views.route_words(app.spec.route) or "-",
        " ".join(hosts) if len(hosts) <= 4 else count(len(hosts), "host"),
        rollout_cell(app),
    ]


def rollout_cell(app: control_pb2.App) -> Text:
    """The newest rollout, where it matters still: it runs, or it failed."""
    if not app.HasField("rollout"):
        return Text("-", "dim")
    kind = views.rollout_kind(app.rollout)
    if views.under_way(app.rollout):
        stands = standing(app.rollout)
        progress = f"{kind} {app.rollout.steps_done}/{app.rollout.steps}"
        return Text(f"{progress} {stands}" if stands else progress, "yellow")
    if app.rollout.state == control_pb2.ROLLOUT_STATE_FAILED:
        return Text(f"{kind} failed", "red")
    return Text("-", "dim")


def worker_row(worker: types_pb2.WorkerStatus) -> list[str | Text]:
    alive = worker.pid > 0
    dash = Text("-", "dim")
    return [
        views.worker_name(worker.id),
        state(views.worker_state(worker)),
        str(worker.pid) if alive else dash,
        str(worker.port) if worker.port else dash,
        str(worker.revision),
        str(worker.id.generation),
        Text(str(worker.restarts), "yellow" if worker.restarts else ""),
        duration(int(worker.uptime_seconds)) if alive else dash,
        size(worker.rss_bytes) if alive else dash,
        f"{worker.cpu_percent:.1f}%" if alive else dash,
    ]


def _wide_cells(worker: types_pb2.WorkerStatus) -> list[str | Text]:
    if not worker.pid:
        return [Text("-", "dim"), Text("-", "dim"), ""]
    return [str(worker.open_files), str(worker.threads), worker.status_text]


async def _fetch_apps(settings: Settings) -> list[control_pb2.App]:
    async with Connection.open(settings) as connection:
        response = await connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest())
        return list(response.apps)


async def _fetch_workers(settings: Settings, app: str) -> list[types_pb2.WorkerStatus]:
    async with Connection.open(settings) as connection:
        response = await connection.call(lambda stub: stub.ListWorkers, control_pb2.ListWorkersRequest(app=app))
        return list(response.workers)


async def _fetch_info(settings: Settings) -> control_pb2.GetInfoResponse:
    async with Connection.open(settings) as connection:
        return await connection.call(lambda stub: stub.GetInfo, control_pb2.GetInfoRequest())
