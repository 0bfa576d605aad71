"""How a rollout ends, goes back, or is steered by a user. Pure: records in, records out, or a refusal in words."""

from collections.abc import Callable, Sequence

from fleet_controller.mutations.changes import NOT_FOUND, PRECONDITION, Refused, next_generation
from fleet_controller.planning.trial import on_trial
from fleet_controller.records import (
    AppRecord,
    AppState,
    FailedWorkerRecord,
    Previous,
    RolloutRecord,
    RolloutState,
)
from fleet_core.spec import OnFailure

GOOD_REVISIONS_KEPT = 20
REMOVALS_KEPT = 50
MOST_REMOVALS_KEPT = 1_000


def failed(
    app: AppRecord,
    rollout: RolloutRecord,
    why: str,
    worker: FailedWorkerRecord | None,
    policy: OnFailure,
    seconds: float,
) -> tuple[AppRecord, RolloutRecord]:
    """A rollout that cannot go on goes back or waits for a person, as the policy says; where there is no way back, it ends."""
    stopped = rollout.model_copy(update={"failed_worker": worker or rollout.failed_worker})
    if rollout.state is RolloutState.ROLLING_BACK:
        message = f"{rollout.message}; going back failed as well: {why}"
        return app, _ended(stopped, rollout.ends_as or RolloutState.FAILED, message, seconds)
    if policy is OnFailure.PAUSE:
        return app, stopped.model_copy(update={"paused": True, "message": why})
    if rollout.previous is None or not _replaces(app, rollout.previous):
        # A start, or a change of size: its good workers are better than none, and the others are tried again.
        return app, _ended(stopped, RolloutState.FAILED, why, seconds)
    before = rollout.previous.revision
    if before not in (app.revision, *app.good_revisions):
        why = f"{why}; revision {before} never ran in full either"
    return _back(app, stopped, rollout.previous, RolloutState.FAILED, why)


def aborted(app: AppRecord, rollout: RolloutRecord) -> tuple[AppRecord, RolloutRecord]:
    """A user ends it: the app becomes what it was before. Raises Refused."""
    if rollout.state is RolloutState.ROLLING_BACK:
        raise Refused(PRECONDITION, f"the rollout of {app.name} is going back already")
    text = "aborted"
    previous = rollout.previous
    if previous is None:
        # It began with the app: what was there before is an app without workers.
        stopped = app.model_copy(update={"state": AppState.STOPPED})
        return stopped, _going_back(rollout, RolloutState.ABORTED, text)
    # Stopped workers come back under another name: the stop of the old one stays final.
    named = next_generation(app) if app.state is not previous.state else app
    restored = named.model_copy(
        update={"state": previous.state, "size_mode": previous.size_mode, "placement": previous.placement}
    )
    return _back(restored, rollout, previous, RolloutState.ABORTED, text)


def paused(app: AppRecord, rollout: RolloutRecord) -> tuple[AppRecord, RolloutRecord]:
    """Raises Refused."""
    if rollout.paused:
        raise Refused(PRECONDITION, f"the rollout of {app.name} is paused already")
    if rollout.at_once or rollout.state is RolloutState.ROLLING_BACK:
        raise Refused(
            PRECONDITION, f"this rollout of {app.name} cannot be paused: it stops workers at once or goes back"
        )
    return app, rollout.model_copy(update={"paused": True})


def resumed(app: AppRecord, rollout: RolloutRecord) -> tuple[AppRecord, RolloutRecord]:
    """Go on; a worker at which it stopped gets a successor. Raises Refused."""
    if not rollout.paused:
        raise Refused(PRECONDITION, f"the rollout of {app.name} is not paused")
    going = rollout.model_copy(update={"paused": False, "message": "", "failed_worker": None})
    stopped_at = rollout.failed_worker
    if stopped_at is None:
        return app, going
    successor = next_generation(app)
    _, host, slot = stopped_at.worker.split("/")
    floors = dict(app.slot_floors)
    if int(slot):  # else no worker was started: the code is tried again
        floors[f"{host}/{slot}"] = successor.generation
    return successor.model_copy(update={"slot_floors": floors}), going.model_copy(
        update={"generation": successor.generation}
    )


def promoted(app: AppRecord, rollout: RolloutRecord) -> tuple[AppRecord, RolloutRecord]:
    """The canaries are good. Raises Refused."""
    if not on_trial(app, rollout):
        raise Refused(PRECONDITION, f"nothing of {app.name} waits to be promoted")
    if rollout.paused:
        raise Refused(
            PRECONDITION,
            f"the rollout of {app.name} is paused: `fleetctl rollout resume {app.name}` goes on, and then it can be promoted",
        )
    return app, rollout.model_copy(update={"promoted": True})


def done(
    app: AppRecord, rollout: RolloutRecord, seconds: float, replaced: int | None = None
) -> tuple[AppRecord, RolloutRecord]:
    """End a rollout that reached its aim, or went back; generations nothing can run any more are forgotten.

    `replaced`: workers it replaced, started or stopped; None: one a step.
    """
    kept = {
        generation: revision
        for generation, revision in app.generations.items()
        if generation >= app.floor and generation not in app.rejected
    }
    update: dict[str, object] = {
        "generations": kept,
        "rejected": frozenset(generation for generation in app.rejected if generation >= app.floor),
    }
    if rollout.state is RolloutState.ROLLING_BACK:
        ended = _ended(rollout, rollout.ends_as or RolloutState.FAILED, rollout.message, seconds)
        return app.model_copy(update=update), ended
    if app.state is AppState.RUNNING and app.size:
        others = tuple(number for number in app.good_revisions if number != app.revision)
        update["good_revisions"] = (*others, app.revision)[-GOOD_REVISIONS_KEPT:]
    ended = _ended(rollout, RolloutState.DONE, "", seconds)
    return app.model_copy(update=update), ended.model_copy(
        update={"replaced": rollout.steps if replaced is None else replaced}
    )


def forgotten_removals(removals: Sequence[RolloutRecord], may_run: Callable[[str], bool]) -> list[str]:
    """Ids of the rollouts of removed apps that need not be remembered any more; `removals`: the oldest first.

    A host that was away during the removal may still run the app, and is only told to stop what is known to be removed: so the
    oldest are kept, up to a bound, for as long as some host `may_run` them.
    """
    surplus = max(0, len(removals) - REMOVALS_KEPT)
    beyond = max(0, len(removals) - MOST_REMOVALS_KEPT)
    return [record.id for index, record in enumerate(removals[:surplus]) if index < beyond or not may_run(record.app)]


def running_rollout(app: AppRecord, rollout: RolloutRecord | None, wanted: str) -> RolloutRecord:
    """The rollout a user means to steer; `wanted`: its id, or empty. Raises Refused."""
    if rollout is None or not rollout.state.under_way:
        raise Refused(PRECONDITION, f"no rollout of {app.name} is under way: `fleetctl history {app.name}` shows them")
    if wanted and rollout.id != wanted:
        raise Refused(NOT_FOUND, f"rollout {wanted} of {app.name} is not under way: {rollout.id} is")
    return rollout


def back_to(app: AppRecord, previous: Previous) -> AppRecord:
    """What the app's workers were: those of the generations since then may not stay, unless they run the same revision."""
    returning = app if app.revision == previous.revision else next_generation(app, previous.revision)
    since = {
        generation
        for generation, revision in app.generations.items()
        if generation > previous.generation and revision != previous.revision
    }
    return returning.model_copy(
        update={
            "floor": previous.floor,
            "slot_floors": previous.slot_floors,
            "rejected": previous.rejected | since,
        }
    )


def _replaces(app: AppRecord, previous: Previous) -> bool:
    return (app.revision, app.floor, app.slot_floors) != (previous.revision, previous.floor, previous.slot_floors)


def _back(
    app: AppRecord, rollout: RolloutRecord, previous: Previous, ends_as: RolloutState, message: str
) -> tuple[AppRecord, RolloutRecord]:
    returning = back_to(app, previous)
    return returning, _going_back(rollout, ends_as, message)


def _going_back(rollout: RolloutRecord, ends_as: RolloutState, message: str) -> RolloutRecord:
    return rollout.model_copy(
        update={"state": RolloutState.ROLLING_BACK, "paused": False, "ends_as": ends_as, "message": message}
    )


def _ended(rollout: RolloutRecord, state: RolloutState, message: str, seconds: float) -> RolloutRecord:
    return rollout.model_copy(update={"state": state, "paused": False, "message": message, "seconds": seconds})
