"""`soft-restart`, `restart`, `stop` and `remove`."""

import click

from fleet.v1 import control_pb2
from fleet_core.ids import SlotId
from fleetctl.command import fleet_command
from fleetctl.connection import Connection
from fleetctl.names import complete_apps, complete_workers
from fleetctl.operation import carry_out, new_request_id
from fleetctl.output import Output
from fleetctl.rollout_options import Way, rollout_options
from fleetctl.settings import Settings

_WORKER = click.option(
    "--worker", metavar="APP/HOST/SLOT", shell_complete=complete_workers, default="", help="Only this worker."
)


@fleet_command("soft-restart")
@click.argument("app", required=False, default="", shell_complete=complete_apps)
@_WORKER
@rollout_options
def soft_restart(settings: Settings, app: str, worker: str, way: Way) -> None:
    """Replace an app's workers one by one, losing no request.

    On each host a new worker becomes ready beside the old one, the balancers send requests to it, the old one ends what it
    has, and only then it is stopped.
    """
    _restart(settings, app, worker, now=False, way=way)


@fleet_command("restart")
@click.argument("app", required=False, default="", shell_complete=complete_apps)
@click.option("--now", is_flag=True, help="Stop and start at once, without draining: requests in flight fail.")
@_WORKER
@rollout_options
def restart(settings: Settings, app: str, now: bool, worker: str, way: Way) -> None:  # noqa: FBT001
    """Restart an app: softly, all at once, or one worker.

    Without --now this is soft-restart.
    """
    _restart(settings, app, worker, now=now, way=way)


@fleet_command("stop")
@click.argument("app", shell_complete=complete_apps)
@click.option("--now", is_flag=True, help="Skip draining: requests in flight fail.")
@rollout_options
def stop(settings: Settings, app: str, now: bool, way: Way) -> None:  # noqa: FBT001
    """Drain and stop an app's workers; the app stays.

    `fleetctl start APP` starts it again, in its size.
    """
    output = Output(settings)
    if now:
        output.confirm(f"Stop every worker of {app} at once, failing the requests in flight?")
    request = control_pb2.StopAppRequest(request_id=new_request_id(), app=app, now=now, options=way.options)

    async def begin(connection: Connection) -> control_pb2.Rollout:
        return (await connection.call(lambda stub: stub.StopApp, request, mutation=True)).rollout

    carry_out(settings, output, app, begin, no_wait=way.no_wait)


@fleet_command("remove")
@click.argument("app", shell_complete=complete_apps)
@click.option("--now", is_flag=True, help="Skip draining: requests in flight fail.")
@rollout_options
def remove(settings: Settings, app: str, now: bool, way: Way) -> None:  # noqa: FBT001
    """Stop an app and forget it."""
    output = Output(settings)
    output.confirm(f"Stop {app} on every host and forget it?")
    request = control_pb2.RemoveAppRequest(request_id=new_request_id(), app=app, now=now, options=way.options)

    async def begin(connection: Connection) -> control_pb2.Rollout:
        return (await connection.call(lambda stub: stub.RemoveApp, request, mutation=True)).rollout

    carry_out(settings, output, app, begin, no_wait=way.no_wait)


def _restart(settings: Settings, app: str, worker: str, *, now: bool, way: Way) -> None:
    output = Output(settings)
    request = control_pb2.RestartAppRequest(request_id=new_request_id(), app=app, now=now, options=way.options)
    if worker:
        slot = parse_worker(worker, app)
        app = request.app = slot.app
        request.host, request.slot = slot.host, slot.slot
    elif not app:
        raise click.UsageError("name an app, or one worker with --worker APP/HOST/SLOT", click.get_current_context())
    if now:
        output.confirm(f"Restart {worker or f'every worker of {app}'} at once, failing the requests in flight?")

    async def begin(connection: Connection) -> control_pb2.Rollout:
        return (await connection.call(lambda stub: stub.RestartApp, request, mutation=True)).rollout

    carry_out(settings, output, app, begin, no_wait=way.no_wait)


def parse_worker(text: str, app: str) -> SlotId:
    """The slot --worker names; `app`, where given too, must agree. Raises click.UsageError."""
    context = click.get_current_context()
    try:
        slot = SlotId.parse(text)
    except ValueError as error:
        raise click.UsageError(str(error), context) from error
    if app and slot.app != app:
        raise click.UsageError(f"worker {text} is not one of {app}", context)
    return slot
