"""How a rollout stands and how it ended, in words."""

from typing import Any

import pytest
from rich.text import Text

from fleet.v1 import control_pb2, types_pb2
from fleetctl import views
from fleetctl.advice import app_advice
from fleetctl.listing import rollout_cell
from fleetctl.outcome import describe_aborted, describe_done, evidence, next_step, standing, what_runs


def rollout(kind: str = "update", state: str = "running", **fields: Any) -> control_pb2.Rollout:
    return control_pb2.Rollout(
        app="my-app",
        kind=control_pb2.RolloutKind.Value(f"ROLLOUT_KIND_{kind.upper()}"),
        state=control_pb2.RolloutState.Value(f"ROLLOUT_STATE_{state.upper()}"),
        **{"revision": 3, "previous_revision": 2, "steps": 4, "seconds": 2.5, **fields},
    )


def failed_worker(**fields: Any) -> control_pb2.FailedWorker:
    worker = types_pb2.WorkerId(app="my-app", host="host1", slot=2, generation=7)
    return control_pb2.FailedWorker(worker=worker, **fields)


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (rollout(), ""),
        (rollout(paused=True, awaits_promotion=True), "paused"),
        (rollout(awaits_promotion=True), "waits for promotion"),
        (rollout(state="rolling_back"), "going back to revision 2"),
        (rollout("restart", state="rolling_back", previous_revision=3), "going back"),
        (rollout("start", state="rolling_back", previous_revision=0), "going back"),
        (rollout(state="done"), ""),
    ],
)
def test_a_rollout_that_does_not_simply_go_on_says_so(shown: control_pb2.Rollout, words: str) -> None:
    assert standing(shown) == words
    cell = rollout_cell(control_pb2.App(rollout=shown)).plain
    assert words in cell
    assert views.under_way(shown) == (cell != "-")


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (rollout(state="failed"), "revision 2 runs again"),
        (rollout(state="aborted"), "revision 2 runs again"),
        (rollout("restart", state="failed", previous_revision=3), "what was good runs on"),
        (rollout("start", state="failed", previous_revision=0), "nothing ran before it"),
        (rollout("start", state="failed", previous_revision=0, steps_done=1), "what was good runs on"),
        (rollout("start", state="aborted", previous_revision=0), "its workers were stopped"),
        (rollout("set_size", state="aborted", previous_revision=3), "what was before is restored"),
        (
            rollout(state="failed", message="worker x failed; going back failed as well: y"),
            "old and new workers may run side by side",
        ),
    ],
)
def test_what_runs_after_a_failure_is_said(shown: control_pb2.Rollout, words: str) -> None:
    assert what_runs(shown) == words


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (rollout(state="done", replaced=4), "my-app updated to revision 3: 4 workers replaced in 2.5s"),
        (rollout(state="done"), "my-app updated to revision 3: no worker had to be replaced in 2.5s"),
        (rollout("rollback", "done", replaced=1), "my-app rolled back to revision 3: 1 worker replaced in 2.5s"),
        (rollout("move", "done", replaced=2), "my-app moved: 2 workers moved in 2.5s"),
        (rollout("restart", "done", replaced=2), "my-app restarted: 2 workers replaced in 2.5s"),
    ],
)
def test_what_was_done_is_one_line(shown: control_pb2.Rollout, line: str) -> None:
    assert Text.assemble(*describe_done(shown)).plain == line


def test_an_abort_says_what_runs_again() -> None:
    line = Text.assemble(*describe_aborted(rollout(state="aborted"))).plain
    assert line == "my-app aborted: the update is undone after 2.5s, revision 2 runs again"


def test_the_worker_that_failed_is_shown_though_it_is_gone() -> None:
    lines = [f"line {number}" for number in range(20)]
    shown = rollout(
        state="failed",
        message="worker my-app/host1/2 failed: exit code 3",
        failed_worker=failed_worker(reason="exit code 3", last_lines=lines),
    )
    assert evidence(shown, []) == [
        "my-app/host1/2 of revision 3:",
        "  it printed last:",
        *(f"    | {line}" for line in lines),
    ]
    assert next_step(shown, []) == (
        "revision 2 runs again; look with `fleetctl history my-app` and `fleetctl logs --worker my-app/host1/2`"
    )


def test_a_failed_worker_that_is_there_still_is_told_once() -> None:
    failed = failed_worker(reason="exit code 3", last_lines=["no database"])
    shown = rollout("start", "failed", previous_revision=0, message="x", failed_worker=failed)
    worker = types_pb2.WorkerStatus(
        id=failed.worker, state=types_pb2.WORKER_STATE_FAILED, restarts=2, last_lines=["no database"]
    )
    assert evidence(shown, [worker]) == [
        "my-app/host1/2 is failed after 2 restarts",
        "  it printed last:",
        "    | no database",
    ]


def test_where_no_revision_ever_ran_those_of_before_are_no_news() -> None:
    why = "worker my-app/host1/2 failed; revision 2 never ran in full either"
    shown = rollout(state="failed", message=why, failed_worker=failed_worker(last_lines=["second try"]))
    before = types_pb2.WorkerStatus(id=failed_worker().worker, revision=2, last_lines=["first try"])
    before.id.generation += 1
    assert evidence(shown, [before]) == ["my-app/host1/2 of revision 3:", "  it printed last:", "    | second try"]
    assert next_step(shown, [before]).startswith("my-app has no revision yet that ran in full; look with ")


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (rollout(paused=True), "fleetctl rollout resume my-app"),
        (rollout(awaits_promotion=True), "fleetctl rollout promote my-app"),
        (rollout(state="rolling_back"), "fleetctl rollout status my-app --watch"),
        (rollout(state="failed"), "revision 2 runs again; what was tried: `fleetctl history my-app`"),
        (rollout("restart", "failed", previous_revision=3), "fleetctl soft-restart my-app"),
    ],
)
def test_the_next_command_is_named(shown: control_pb2.Rollout, words: str) -> None:
    app = control_pb2.App(name="my-app", state=control_pb2.APP_STATE_RUNNING, size=1, ready=1, rollout=shown)
    (advice,) = app_advice(app, [])
    assert words in advice


@pytest.mark.parametrize(
    ("scheduling", "state", "workers", "word"),
    [
        ("OPEN", "ONLINE", 2, "open"),
        ("CORDONED", "ONLINE", 0, "cordoned"),
        ("DRAINING", "ONLINE", 1, "draining"),
        ("DRAINING", "ONLINE", 0, "drained"),
        ("DRAINING", "UNKNOWN", 0, "draining"),
    ],
)
def test_a_host_is_drained_once_nothing_lives_there(scheduling: str, state: str, workers: int, word: str) -> None:
    host = control_pb2.Host(
        scheduling=control_pb2.HostScheduling.Value(f"HOST_SCHEDULING_{scheduling}"),
        state=control_pb2.HostState.Value(f"HOST_STATE_{state}"),
        workers=workers,
    )
    assert views.scheduling(host) == word
