"""How rollouts end, go back, and are steered."""

import pytest

from fleet_controller.mutations import endings, operations, revisions
from fleet_controller.mutations.changes import PRECONDITION, Ask, Change, Refused
from fleet_controller.planning.placement import HostFact
from fleet_controller.records import (
    AppRecord,
    AppState,
    FailedWorkerRecord,
    RevisionRecord,
    RolloutKind,
    RolloutRecord,
    RolloutState,
)
from fleet_core.spec import AppSpec, OnFailure

FIRST = AppSpec(name="app", argv=("app",), cwd="/")
SECOND = FIRST.model_copy(update={"env": {"COLOUR": "blue"}})
REVISIONS = [RevisionRecord.of(FIRST, 1)]
BEFORE = AppRecord(
    name="app", placement={"host1": 2}, generation=3, floor=2, generations={2: 1, 3: 1}, good_revisions=(1,)
)


def updated(app: AppRecord = BEFORE, ask: Ask | None = None) -> Change:
    change = revisions.update(ask or Ask("r2"), app, SECOND, REVISIONS)
    assert change is not None
    return change


def failed(change: Change, policy: OnFailure = OnFailure.ROLLBACK) -> tuple[AppRecord, RolloutRecord]:
    worker = FailedWorkerRecord(worker="app/host1/1", generation=change.app.generation, reason="exit code 1")
    return endings.failed(change.app, change.rollout, "it does not boot", worker, policy, 1.0)


def test_a_failed_update_goes_back_and_lets_the_old_workers_stay() -> None:
    app, rollout = failed(updated())
    assert (app.revision, app.generation, app.floor) == (1, 5, 2)
    assert [generation for generation in (2, 3, 4, 5) if app.accepts("host1", 1, generation)] == [2, 3, 5]
    assert (rollout.state, rollout.message) == (RolloutState.ROLLING_BACK, "it does not boot")
    assert rollout.failed_worker is not None
    assert rollout.failed_worker.reason == "exit code 1"


def test_a_way_back_to_what_never_ran_says_so() -> None:
    never = BEFORE.model_copy(update={"good_revisions": ()})
    app, rollout = failed(updated(never))
    assert (app.revision, rollout.state) == (1, RolloutState.ROLLING_BACK)
    assert rollout.message == "it does not boot; revision 1 never ran in full either"


def test_once_everything_is_back_the_rollout_has_failed_and_the_revision_is_not_good() -> None:
    app, rollout = endings.done(*failed(updated()), 2.0)
    assert (rollout.state, rollout.message, rollout.seconds) == (RolloutState.FAILED, "it does not boot", 2.0)
    assert app.good_revisions == (1,)


def test_a_way_back_that_fails_ends_and_says_both() -> None:
    app, rollout = failed(updated())
    again, ended = endings.failed(app, rollout, "the old one neither", None, OnFailure.ROLLBACK, 3.0)
    assert again == app
    assert ended.state is RolloutState.FAILED
    assert ended.message == "it does not boot; going back failed as well: the old one neither"


def test_a_failed_restart_lets_the_old_workers_stay() -> None:
    app, rollout = failed(operations.restart(Ask("r2"), BEFORE, None, at_once=False))
    assert (app.floor, app.revision, app.rejected) == (BEFORE.floor, 1, frozenset())
    assert rollout.state is RolloutState.ROLLING_BACK


def test_a_change_of_size_that_fails_keeps_what_came_up() -> None:
    plan = operations.SizePlan({"host1": 5}, BEFORE.size_mode, ())
    app, rollout = failed(operations.set_size(Ask("r2"), BEFORE, plan))
    assert app.placement == {"host1": 5}
    assert rollout.state is RolloutState.FAILED


def test_what_took_the_place_of_an_update_goes_back_past_it() -> None:
    """The revision was never proven: a change of size on top of it does not prove it either."""
    first = updated()
    plan = operations.SizePlan({"host1": 5}, BEFORE.size_mode, ())
    second = operations.set_size(Ask("r3", (first.rollout,), supersede=True), first.app, plan)
    app, rollout = failed(second)
    assert (app.revision, app.floor, app.placement) == (1, 2, {"host1": 5})
    assert rollout.state is RolloutState.ROLLING_BACK


def test_a_policy_may_ask_for_a_person_instead() -> None:
    app, rollout = failed(updated(), OnFailure.PAUSE)
    assert (app.revision, rollout.state, rollout.paused) == (2, RolloutState.RUNNING, True)
    resumed_app, resumed = endings.resumed(app, rollout)
    assert (resumed.paused, resumed.failed_worker) == (False, None)
    assert not resumed_app.accepts("host1", 1, app.generation), "the worker that failed gets a successor"
    assert resumed_app.accepts("host1", 2, app.generation)


def test_an_aborted_operation_leaves_the_app_as_it_was() -> None:
    plan = operations.SizePlan({"host1": 5}, BEFORE.size_mode, ())
    change = operations.set_size(Ask("r2"), BEFORE, plan)
    app, rollout = endings.aborted(change.app, change.rollout)
    assert (app.placement, rollout.state) == (BEFORE.placement, RolloutState.ROLLING_BACK)
    _, ended = endings.done(app, rollout, 1.0)
    assert ended.state is RolloutState.ABORTED


def test_an_aborted_stop_starts_workers_of_another_name() -> None:
    """The stop of a worker is final, so its successor must be another one."""
    change = operations.stop(Ask("r2"), BEFORE, at_once=False, remove=False)
    app, _ = endings.aborted(change.app, change.rollout)
    assert app.state is AppState.RUNNING
    assert app.generation > BEFORE.generation


def test_an_aborted_first_start_leaves_an_app_without_workers() -> None:
    facts = {"host1": HostFact("host1", 2, online=True)}
    change = operations.start_new(Ask("r1"), FIRST, 2, (), facts, {})
    app, _ = endings.aborted(change.app, change.rollout)
    assert app.state is AppState.STOPPED


def test_only_a_trial_can_be_promoted() -> None:
    restart = operations.restart(Ask("r2"), BEFORE, None, at_once=False)
    with pytest.raises(Refused, match="nothing of app waits to be promoted"):
        endings.promoted(restart.app, restart.rollout)
    change = updated()
    assert endings.promoted(change.app, change.rollout)[1].promoted


def test_what_is_paused_is_not_promoted_behind_the_pause() -> None:
    """Promoted while it waits at a broken worker, a rollout would skip its canaries once that one is tried again."""
    for paused in (endings.paused(updated().app, updated().rollout), failed(updated(), OnFailure.PAUSE)):
        with pytest.raises(Refused, match="is paused: `fleetctl rollout resume app` goes on"):
            endings.promoted(*paused)


def test_revisions_that_failed_again_and_again_are_forgotten_like_others() -> None:
    app, known, past = BEFORE, list(REVISIONS), ()
    for number in range(2, 60):
        spec = FIRST.model_copy(update={"env": {"NUMBER": str(number)}})
        change = revisions.update(Ask(f"r{number}", past), app, spec, known)
        assert change is not None
        assert change.revision is not None
        known = [record for record in (*known, change.revision) if record.number not in change.forgotten_revisions]
        app, ended = endings.done(*failed(change), 1.0)
        past = (ended,)
    assert len(known) <= revisions.REVISIONS_KEPT + 5
    assert not app.accepts("host1", 1, 4), "a worker of the first that failed may still be on a host that is away"


def test_what_is_not_paused_is_not_resumed_and_what_is_paused_not_paused_again() -> None:
    change = updated()
    with pytest.raises(Refused, match="not paused"):
        endings.resumed(change.app, change.rollout)
    paused = endings.paused(change.app, change.rollout)
    with pytest.raises(Refused, match="paused already"):
        endings.paused(*paused)


def test_a_rollout_that_ended_cannot_be_steered() -> None:
    change = updated()
    _, ended = endings.done(change.app, change.rollout, 1.0)
    with pytest.raises(Refused, match="no rollout of app is under way") as refused:
        endings.running_rollout(change.app, ended, "")
    assert refused.value.kind == PRECONDITION


def test_a_second_operation_is_refused_unless_it_says_that_it_takes_the_place_of_the_first() -> None:
    first = operations.restart(Ask("r2"), BEFORE, None, at_once=False)
    with pytest.raises(Refused, match="a restart of app is under way"):
        updated(first.app, Ask("r3", (first.rollout,)))
    second = updated(first.app, Ask("r3", (first.rollout,), supersede=True))
    assert second.superseded is not None
    assert second.superseded.state is RolloutState.SUPERSEDED


@pytest.mark.parametrize("remove", [False, True])
def test_a_stop_and_a_removal_need_no_such_word(remove: bool) -> None:
    first = operations.restart(Ask("r2"), BEFORE, None, at_once=False)
    stop = operations.stop(Ask("r3", (first.rollout,)), first.app, at_once=False, remove=remove)
    assert stop.superseded is not None


def removals(count: int) -> list[RolloutRecord]:
    return [
        RolloutRecord(
            id=f"r{n}", app=f"app{n}", kind=RolloutKind.REMOVE, state=RolloutState.DONE, revision=1, generation=1
        )
        for n in range(count)
    ]


def test_old_removals_are_forgotten_but_not_of_apps_a_host_may_still_run() -> None:
    """Guards invariant 6: a host that returns is told to stop what was removed while it was away, however many came after."""
    assert endings.forgotten_removals(removals(50), lambda _: False) == []
    assert endings.forgotten_removals(removals(53), lambda _: False) == ["r0", "r1", "r2"]
    assert endings.forgotten_removals(removals(53), lambda app: app == "app1") == ["r0", "r2"]


def test_of_removals_that_a_lost_host_holds_only_so_many_are_kept() -> None:
    forgotten = endings.forgotten_removals(removals(endings.MOST_REMOVALS_KEPT + 2), lambda _: True)
    assert forgotten == ["r0", "r1"]


def test_what_was_done_before_it_failed_is_remembered() -> None:
    change = updated()
    stopped = change.rollout.model_copy(update={"host_steps_done": {"host1": 1}})
    _, ended = endings.done(*endings.failed(change.app, stopped, "it dies", None, OnFailure.ROLLBACK, 1.0), 2.0)
    assert (ended.state, ended.host_steps_done, ended.replaced) == (RolloutState.FAILED, {"host1": 1}, 0)


def test_a_rollout_counts_what_it_replaced_and_not_its_steps() -> None:
    """Guards invariant 10: a rollback of an update that had only begun leaves most workers alone."""
    change = updated()
    _, ended = endings.done(change.app, change.rollout, 2.0, replaced=0)
    assert (ended.state, ended.steps, ended.replaced) == (RolloutState.DONE, 2, 0)
