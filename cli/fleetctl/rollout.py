"""`rollout`: how far an operation is, a way to attach to one again, and the four words that steer it."""

import click

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.command import NO_WAIT, fleet_command
from fleetctl.connection import Connection
from fleetctl.event_loop import run
from fleetctl.names import complete_apps
from fleetctl.operation import carry_out, follow, new_request_id, newest_rollout
from fleetctl.outcome import described, failed_lines, standing
from fleetctl.output import Column, Output, state
from fleetctl.settings import Settings
from fleetctl.wording import duration

_HOST_COLUMNS = (Column("HOST"), Column("DONE", right=True), Column("DOING"))


@click.group("rollout")
def rollout() -> None:
    """Follow and steer what is being done to an app."""


@fleet_command("status")
@click.argument("app", shell_complete=complete_apps)
@click.option("--watch", "-w", is_flag=True, help="Follow it to its end; the exit code is the operation's.")
def status(settings: Settings, app: str, watch: bool) -> None:  # noqa: FBT001
    """Show an app's newest rollout.

    With --watch -o json: a line for each change, the last one is how it ended.
    """
    output = Output(settings)
    if watch:
        follow(settings, output, app)
        return
    newest = run(_fetch(settings, app))
    if settings.structured:
        output.document(views.rollout_view(newest))
    elif settings.quiet:
        output.names([views.rollout_state(newest)])
    else:
        show(output, newest)


@fleet_command("pause")
@click.argument("app", shell_complete=complete_apps)
def pause(settings: Settings, app: str) -> None:
    """Begin no further step; steps under way end."""
    output = Output(settings)
    paused = run(_steer(settings, _request(app, control_pb2.ROLLOUT_ACTION_PAUSE)))
    if settings.structured:
        output.document(views.outcome_view(paused))
    elif not settings.quiet:
        output.line(
            f"{described(paused)} is paused at {paused.steps_done}/{paused.steps}: `fleetctl rollout resume {app}` goes on, "
            f"`fleetctl rollout abort {app}` goes back"
        )


@fleet_command("resume")
@click.argument("app", shell_complete=complete_apps)
@NO_WAIT
def resume(settings: Settings, app: str, no_wait: bool) -> None:  # noqa: FBT001
    """Go on with a paused rollout, and follow it.

    A worker at which it stopped gets a successor.
    """
    _go_on(settings, app, control_pb2.ROLLOUT_ACTION_RESUME, no_wait=no_wait)


@fleet_command("promote")
@click.argument("app", shell_complete=complete_apps)
@NO_WAIT
def promote(settings: Settings, app: str, no_wait: bool) -> None:  # noqa: FBT001
    """The canaries are good: go on, and follow it."""
    _go_on(settings, app, control_pb2.ROLLOUT_ACTION_PROMOTE, no_wait=no_wait)


@fleet_command("abort")
@click.argument("app", shell_complete=complete_apps)
@NO_WAIT
def abort(settings: Settings, app: str, no_wait: bool) -> None:  # noqa: FBT001
    """Go back to what ran before, and wait until it runs."""
    aborted = control_pb2.ROLLOUT_STATE_ABORTED
    _go_on(settings, app, control_pb2.ROLLOUT_ACTION_ABORT, no_wait=no_wait, aim=aborted)


for _command in (status, pause, resume, abort, promote):
    rollout.add_command(_command)


def show(output: Output, shown: control_pb2.Rollout) -> None:
    """A rollout in full."""
    stands = standing(shown)
    output.line(
        (shown.app, "bold"),
        f"  {views.rollout_kind(shown)}  ",
        (stands, "bold yellow") if stands else state(views.rollout_state(shown)),
        f"  {shown.steps_done}/{shown.steps}  {duration(shown.seconds)}  ",
        (f"revision {shown.revision}, generation {shown.generation}", "dim"),
    )
    if shown.cause:
        output.paragraph(f"why: {shown.cause}")
    if shown.message and shown.message != views.rollout_state(shown):
        output.paragraph(shown.message, style="yellow")
    if shown.HasField("failed_worker"):
        for line in failed_lines(shown.failed_worker, shown.message):
            output.line(line)
    if shown.hosts and views.under_way(shown):
        rows = [(host.host, f"{host.steps_done}/{host.steps}", host.doing or "-") for host in shown.hosts]
        output.table(_HOST_COLUMNS, rows, indent=2)


def _go_on(
    settings: Settings,
    app: str,
    action: control_pb2.RolloutAction.ValueType,
    *,
    no_wait: bool,
    aim: control_pb2.RolloutState.ValueType = control_pb2.ROLLOUT_STATE_DONE,
) -> None:
    request = _request(app, action)

    async def begin(connection: Connection) -> control_pb2.Rollout:
        return (await connection.call(lambda stub: stub.ControlRollout, request, mutation=True)).rollout

    carry_out(settings, Output(settings), app, begin, no_wait=no_wait, aim=aim)


def _request(app: str, action: control_pb2.RolloutAction.ValueType) -> control_pb2.ControlRolloutRequest:
    return control_pb2.ControlRolloutRequest(request_id=new_request_id(), app=app, action=action)


async def _steer(settings: Settings, request: control_pb2.ControlRolloutRequest) -> control_pb2.Rollout:
    async with Connection.open(settings) as connection:
        return (await connection.call(lambda stub: stub.ControlRollout, request, mutation=True)).rollout


async def _fetch(settings: Settings, app: str) -> control_pb2.Rollout:
    async with Connection.open(settings) as connection:
        return await newest_rollout(connection, app)
