"""`history` and `rollback`: what an app was, and being that again."""

import asyncio

import click
from rich.text import Text

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.command import WholeNumber, fleet_command
from fleetctl.connection import Connection
from fleetctl.names import complete_apps, complete_revisions
from fleetctl.operation import carry_out, new_request_id
from fleetctl.outcome import standing, what_runs
from fleetctl.output import Column, Output, state
from fleetctl.rollout_options import Way, rollout_options
from fleetctl.settings import Settings
from fleetctl.wording import duration

_REVISION_COLUMNS = (
    Column("REVISION", right=True),
    Column("MADE (UTC)", rank=2),
    Column("STATE"),
    Column("CAUSE", rank=1),
)
_ROLLOUT_COLUMNS = (
    Column("ROLLOUT"),
    Column("BEGAN (UTC)", rank=3),
    Column("RESULT"),
    Column("REVISION", right=True, rank=1),
    Column("STEPS", right=True, rank=2),
    Column("TOOK", right=True),
)
_FAILED = (control_pb2.ROLLOUT_STATE_FAILED, control_pb2.ROLLOUT_STATE_ABORTED)


@fleet_command("history")
@click.argument("app", shell_complete=complete_apps)
def history(settings: Settings, app: str) -> None:
    """Show an app's revisions and what was done to it, the newest last.

    A revision is good once it was rolled out in full.
    """
    output = Output(settings)
    answer = asyncio.run(_fetch(settings, app))
    if settings.structured:
        output.document(
            {
                "app": app,
                "revisions": [views.revision_view(summary) for summary in answer.revisions],
                "rollouts": [views.rollout_view(rollout) for rollout in answer.rollouts],
            }
        )
        return
    if settings.quiet:
        output.names(str(summary.revision.number) for summary in answer.revisions)
        return
    output.table(
        _REVISION_COLUMNS,
        [_revision_row(summary) for summary in answer.revisions],
        notes=[list(summary.differences) for summary in answer.revisions],
    )
    if answer.rollouts:
        output.line()
        output.table(
            _ROLLOUT_COLUMNS,
            [_rollout_row(rollout) for rollout in answer.rollouts],
            notes=[_rollout_notes(rollout) for rollout in answer.rollouts],
        )


@fleet_command("rollback")
@click.argument("app", shell_complete=complete_apps)
@click.argument("revision", type=WholeNumber(min=1), required=False, shell_complete=complete_revisions)
@rollout_options
def rollback(settings: Settings, app: str, revision: int | None, way: Way) -> None:
    """Roll an earlier revision out again.

    Without a number: the last good one before the present one. `fleetctl history APP` shows them. An update under way is
    taken back.
    """
    request = control_pb2.RollbackAppRequest(
        request_id=new_request_id(), app=app, revision=revision or 0, options=way.options
    )

    async def begin(connection: Connection) -> control_pb2.Rollout:
        return (await connection.call(lambda stub: stub.RollbackApp, request, mutation=True)).rollout

    carry_out(settings, Output(settings), app, begin, no_wait=way.no_wait)


def _time_of_day(at: str) -> str:
    return at.replace("T", " ").removesuffix("+00:00").removesuffix("Z") or "-"


def _revision_row(summary: control_pb2.RevisionSummary) -> list[str | Text]:
    if summary.current:
        word = Text("current" if summary.good else "current, never ran in full", "green" if summary.good else "yellow")
    else:
        word = Text("good") if summary.good else Text("never ran in full", "dim")
    return [str(summary.revision.number), _time_of_day(summary.created_at), word, summary.cause or "-"]


def _rollout_row(rollout: control_pb2.Rollout) -> list[str | Text]:
    under_way = views.under_way(rollout)
    word = standing(rollout) or views.rollout_state(rollout)
    whole = rollout.state == control_pb2.ROLLOUT_STATE_DONE
    return [
        views.rollout_kind(rollout),
        _time_of_day(rollout.began_at),
        Text(word, "yellow") if under_way else state(word),
        str(rollout.revision),
        str(rollout.steps) if whole else f"{rollout.steps_done}/{rollout.steps}",
        duration(rollout.seconds),
    ]


def _rollout_notes(rollout: control_pb2.Rollout) -> list[str]:
    notes = [f"why: {rollout.cause}"] if rollout.cause else []
    if rollout.message and rollout.message != views.rollout_state(rollout):
        notes.append(rollout.message)
    if rollout.state in _FAILED:
        notes.append(what_runs(rollout))
    return notes


async def _fetch(settings: Settings, app: str) -> control_pb2.GetHistoryResponse:
    async with Connection.open(settings) as connection:
        return await connection.call(lambda stub: stub.GetHistory, control_pb2.GetHistoryRequest(app=app))
