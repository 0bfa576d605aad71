"""How a rollout stands and how it ended, in words. Pure."""

from collections.abc import Sequence

from fleet.v1 import control_pb2, types_pb2
from fleetctl import views
from fleetctl.ailing import headline, symptoms
from fleetctl.wording import count, duration, printable

_MOST_CULPRITS = 3
_ALL_LINES = 100
"""More than an agent sends."""

Parts = tuple[str | tuple[str, str], ...]
"""What `Output.line` takes."""


def standing(rollout: control_pb2.Rollout) -> str:
    """What sets a rollout under way apart from one that simply goes on; empty: nothing."""
    if rollout.state == control_pb2.ROLLOUT_STATE_ROLLING_BACK:
        to = f" to revision {rollout.previous_revision}" if _changes_revision(rollout) else ""
        return f"going back{to}"
    if rollout.state != control_pb2.ROLLOUT_STATE_RUNNING:
        return ""
    if rollout.paused:
        return "paused"
    return "waits for promotion" if rollout.awaits_promotion else ""


def described(rollout: control_pb2.Rollout) -> str:
    """ "update of my-app"."""
    return f"{views.rollout_kind(rollout)} of {rollout.app}"


def what_runs(rollout: control_pb2.Rollout) -> str:
    """After a rollout that failed or was aborted."""
    if "going back failed" in rollout.message:
        return "old and new workers may run side by side"
    if _never_ran(rollout):
        return f"{rollout.app} has no revision yet that ran in full"
    if _changes_revision(rollout):
        begun = not rollout.HasField("failed_worker") or rollout.failed_worker.worker.slot
        return f"revision {rollout.previous_revision} runs {'again' if begun else 'on'}"
    if rollout.state == control_pb2.ROLLOUT_STATE_ABORTED:
        return "what was before is restored" if rollout.previous_revision else "its workers were stopped"
    if rollout.kind == control_pb2.ROLLOUT_KIND_START and not rollout.steps_done:
        return "nothing ran before it"
    return "what was good runs on"


def describe_done(rollout: control_pb2.Rollout) -> Parts:
    """The last line of an operation that is done."""
    workers = count(rollout.replaced, "worker")
    replaced = f"{workers} replaced" if rollout.replaced else "no worker had to be replaced"
    verb, what = {
        control_pb2.ROLLOUT_KIND_START: ("started", f"{workers} started"),
        control_pb2.ROLLOUT_KIND_SET_SIZE: ("resized", f"{workers} started or stopped"),
        control_pb2.ROLLOUT_KIND_RESTART: ("restarted", f"{workers} replaced"),
        control_pb2.ROLLOUT_KIND_STOP: ("stopped", f"{workers} stopped"),
        control_pb2.ROLLOUT_KIND_REMOVE: ("removed", f"{workers} stopped"),
        control_pb2.ROLLOUT_KIND_UPDATE: ("updated", replaced),
        control_pb2.ROLLOUT_KIND_ROLLBACK: ("rolled back", replaced),
        control_pb2.ROLLOUT_KIND_MOVE: ("moved", f"{workers} moved"),
    }.get(rollout.kind, ("done", f"{workers} changed"))
    new = rollout.kind in (control_pb2.ROLLOUT_KIND_UPDATE, control_pb2.ROLLOUT_KIND_ROLLBACK)
    to = f" to revision {rollout.revision}" if new else ""
    return (rollout.app, "bold"), " ", (verb, "bold green"), f"{to}: {what} in {duration(rollout.seconds)}"


def describe_aborted(rollout: control_pb2.Rollout) -> Parts:
    """The last line of `rollout abort`."""
    return (
        (rollout.app, "bold"),
        " ",
        ("aborted", "bold yellow"),
        f": the {views.rollout_kind(rollout)} is undone after {duration(rollout.seconds)}, {what_runs(rollout)}",
    )


def evidence(rollout: control_pb2.Rollout, culprits: Sequence[types_pb2.WorkerStatus]) -> list[str]:
    """What is known of the worker that made a rollout fail, and of `culprits`, its workers that are not well now.

    It fits on a screen: what was printed last is shown of the first alone.
    """
    blocks: list[list[str]] = []
    failed = rollout.failed_worker
    if _never_ran(rollout):
        # That those of before are not well is no news.
        culprits = [worker for worker in culprits if worker.revision == rollout.revision]
    if rollout.HasField("failed_worker") and all(worker.id != failed.worker for worker in culprits):
        told = _symptoms(_as_status(failed), rollout.message)
        if told:
            blocks.append([f"{views.worker_name(failed.worker)} of revision {rollout.revision}:", *told])
    for worker in culprits:
        title = f"{views.worker_name(worker.id)} is {headline(worker)}"
        blocks.append([title, *_symptoms(worker, rollout.message)] if not blocks else [title])
    lines = [line for block in blocks[:_MOST_CULPRITS] for line in block]
    if len(blocks) > _MOST_CULPRITS:
        lines.append(f"and {count(len(blocks) - _MOST_CULPRITS, 'more worker')} not well")
    return lines


def next_step(rollout: control_pb2.Rollout, culprits: Sequence[types_pb2.WorkerStatus]) -> str:
    """What to do about a failed rollout."""
    app = rollout.app
    if rollout.HasField("failed_worker") and not rollout.failed_worker.worker.slot:
        return f"{what_runs(rollout)}; mend that, and say it again"
    if rollout.HasField("failed_worker"):
        logs = f"fleetctl logs --worker {views.worker_name(rollout.failed_worker.worker)}"
    elif culprits:
        logs = f"fleetctl logs --worker {views.worker_name(culprits[0].id)}"
    else:
        logs = f"fleetctl logs {app}"
    look = "history" if _changes_revision(rollout) else "status"
    return f"{what_runs(rollout)}; look with `fleetctl {look} {app}` and `{logs}`"


def failed_lines(failed: control_pb2.FailedWorker, message: str) -> list[str]:
    """What is known of a failed worker beyond `message`."""
    return _symptoms(_as_status(failed), message)


def _symptoms(worker: types_pb2.WorkerStatus, message: str) -> list[str]:
    # Its reason is most often the rollout's message, which was just read.
    told = symptoms(worker, _ALL_LINES)
    known = printable(worker.reason)
    if known and known in printable(message):
        told.remove(known)
    return [f"  {line}" for line in told]


def _as_status(failed: control_pb2.FailedWorker) -> types_pb2.WorkerStatus:
    return types_pb2.WorkerStatus(id=failed.worker, reason=failed.reason, last_lines=failed.last_lines)


def _never_ran(rollout: control_pb2.Rollout) -> bool:
    """It failed, and there was nothing good to go back to: `endings.failed` of the controller says so."""
    return "never ran in full either" in rollout.message


def _changes_revision(rollout: control_pb2.Rollout) -> bool:
    return rollout.previous_revision not in (0, rollout.revision)
