"""An app's revisions: new ones, earlier ones again, and what differs."""

import pytest

from fleet_controller.mutations import endings, revisions
from fleet_controller.mutations.changes import INVALID, NOT_FOUND, PRECONDITION, Ask, Change, Refused
from fleet_controller.records import AppRecord, RevisionRecord, RolloutState
from fleet_core.route import RoutePolicy
from fleet_core.spec import AppSpec, RolloutPolicy

SPEC = AppSpec(name="app", argv=("app",), cwd="/", env={"COLOUR": "red", "SIZE": "4"})
APP = AppRecord(name="app", placement={"host1": 2}, good_revisions=(1,))
FIRST = RevisionRecord.of(SPEC, 1)


def updated(spec: AppSpec, app: AppRecord = APP, *known: RevisionRecord) -> Change:
    change = revisions.update(Ask("r"), app, spec, known or (FIRST,))
    assert change is not None
    return change


def test_a_change_of_the_environment_replaces_every_worker() -> None:
    change = updated(revisions.with_environment(SPEC, {"COLOUR": "blue"}, ["SIZE"]))
    assert change.revision is not None
    assert change.revision.number == 2
    assert change.revision.app_spec.env == {"COLOUR": "blue"}
    assert (change.app.floor, change.app.generations[2], change.rollout.steps) == (2, 2, 2)


def test_a_change_of_policies_outside_the_worker_replaces_none() -> None:
    spec = SPEC.model_copy(update={"rollout": RolloutPolicy(canary=1), "route": RoutePolicy(http=":80")})
    change = updated(spec)
    assert (change.app.revision, change.app.floor, change.rollout.steps) == (2, 1, 0)


def test_what_changes_nothing_is_no_revision() -> None:
    assert revisions.update(Ask("r"), APP, SPEC, [FIRST]) is None


@pytest.mark.parametrize(
    ("to_set", "to_unset", "kind"), [({"COLOUR": "x"}, ["COLOUR"], INVALID), ({}, ["NOPE"], NOT_FOUND)]
)
def test_a_contradiction_and_an_unknown_variable_are_refused(
    to_set: dict[str, str], to_unset: list[str], kind: str
) -> None:
    with pytest.raises(Refused) as refused:
        revisions.with_environment(SPEC, to_set, to_unset)
    assert refused.value.kind == kind


def test_a_rollback_goes_to_the_last_good_revision_before_the_present_one() -> None:
    change = updated(SPEC.model_copy(update={"env": {}}))
    assert change.revision is not None
    app, _ = endings.done(change.app, change.rollout, 1.0)
    assert app.good_revisions == (1, 2)
    back = revisions.rollback(Ask("r2"), app, 0, [FIRST, change.revision])
    assert (back.app.revision, back.app.generation, back.app.floor) == (1, 3, 3)
    app, _ = endings.done(back.app, back.rollout, 1.0)
    assert app.good_revisions == (2, 1), "the next rollback goes to the one that ran before"


def test_a_rollback_in_the_middle_of_an_update_leaves_what_was_not_replaced_yet() -> None:
    change = updated(SPEC.model_copy(update={"env": {}}))
    assert change.revision is not None
    back = revisions.rollback(Ask("r2", (change.rollout,)), change.app, 0, [FIRST, change.revision])
    assert [g for g in (1, 2, 3) if back.app.accepts("host1", 1, g)] == [1, 3]
    assert back.superseded is not None
    assert back.superseded.state is RolloutState.SUPERSEDED


def test_there_is_no_way_back_before_the_first_good_revision() -> None:
    with pytest.raises(Refused, match="no earlier revision that ran") as refused:
        revisions.rollback(Ask("r"), APP, 0, [FIRST])
    assert refused.value.kind == PRECONDITION
    with pytest.raises(Refused, match="at revision 1 already"):
        revisions.rollback(Ask("r"), APP, 1, [FIRST])
    with pytest.raises(Refused, match="no revision 9"):
        revisions.rollback(Ask("r"), APP, 9, [FIRST])


def test_old_revisions_are_forgotten_and_those_one_may_go_back_to_are_not() -> None:
    known = [RevisionRecord.of(SPEC, number) for number in range(1, 41)]
    app = AppRecord(name="app", placement={"host1": 1}, revision=40, generations={1: 40}, good_revisions=(1, 2, 3, 40))
    change = updated(SPEC.model_copy(update={"env": {}}), app, *known)
    assert len(known) + 1 - len(change.forgotten_revisions) == revisions.REVISIONS_KEPT + 3
    assert not {3, 40, 41} & set(change.forgotten_revisions)
    assert change.app.good_revisions == (3, 40)


def test_differences_name_fields_and_hide_the_values_of_variables() -> None:
    after = RevisionRecord.of(
        SPEC.model_copy(
            update={"env": {"COLOUR": "secret"}, "argv": ("app", "-v"), "rollout": RolloutPolicy(canary=2)}
        ),
        2,
    )
    lines = revisions.differences(FIRST, after)
    assert lines == ["argv: app → app -v", "env.COLOUR: changed", "env.SIZE: unset", "rollout.canary: unset → 2"]
