"""Variables, history, rollback, and steering a rollout. Guards invariant 10."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from fleet.v1 import control_pb2, types_pb2
from tests.integration.cli import fake_control as fake
from tests.integration.cli.conftest import Fleetctl
from tests.integration.cli.fake_control import FakeControl

_FAILED = control_pb2.FailedWorker(
    worker=types_pb2.WorkerId(app="my-app", host="host1", slot=2, generation=7),
    reason="exit code 3",
    last_lines=["starting", "no database"],
)


@pytest.fixture
def app(control: FakeControl) -> control_pb2.App:
    shown = fake.app()
    shown.spec.env.update({"COLOUR": "blue", "AUTHOR": "a=b"})
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[shown])
    return shown


@pytest.mark.usefixtures("app")
def test_variables_are_shown_with_their_values(fleetctl: Fleetctl) -> None:
    assert fleetctl("env-get", "my-app").out == "AUTHOR=a=b\nCOLOUR=blue\n"
    assert fleetctl("env-get", "my-app", "COLOUR").out == "COLOUR=blue\n"
    assert json.loads(fleetctl("env-get", "my-app", "-o", "json").out) == {"AUTHOR": "a=b", "COLOUR": "blue"}
    assert fleetctl("env-get", "my-app", "-q").out == "AUTHOR\nCOLOUR\n"
    missing = fleetctl("env-get", "my-app", "NOPE", "COLOUR")
    assert (missing.code, missing.out) == (4, "")
    assert "my-app does not set NOPE" in missing.err


def test_setting_variables_is_an_update_that_is_watched(
    fleetctl: Fleetctl, control: FakeControl, tmp_path: Path
) -> None:
    (tmp_path / "settings").write_text("export COLOUR=red\nDEPTH='3 m'\n")
    control.answers["WatchRollout"] = [fake.ended("done", "update", revision=2)]
    result = fleetctl("env-set", "my-app", "COLOUR=green", "EMPTY=", "--env-file", tmp_path / "settings")
    assert (result.code, result.out) == (0, "my-app updated to revision 2: 4 workers replaced in 2.5s\n")
    (request,) = control.of(control_pb2.UpdateAppRequest)
    assert dict(request.environment.set) == {"COLOUR": "green", "EMPTY": "", "DEPTH": "3 m"}
    assert (request.app, request.cause) == ("my-app", "env-set COLOUR DEPTH EMPTY")
    (watched,) = control.of(control_pb2.GetRolloutRequest)
    assert watched.rollout == request.request_id


def test_variables_are_taken_away(fleetctl: Fleetctl, control: FakeControl) -> None:
    assert fleetctl("env-unset", "my-app", "B", "A", "B").code == 0
    (request,) = control.of(control_pb2.UpdateAppRequest)
    assert (list(request.environment.unset), request.cause) == (["B", "A"], "env-unset A B")


@pytest.mark.parametrize("newest", ["done", "failed"])
def test_a_change_that_changes_nothing_is_no_rollout(fleetctl: Fleetctl, control: FakeControl, newest: str) -> None:
    control.answers["UpdateApp"] = fake.ended(newest, "start", id="older")
    result = fleetctl("env-set", "my-app", "A=1")
    assert (result.code, result.out) == (0, "my-app is as asked already: nothing was changed\n")
    document = json.loads(fleetctl("env-set", "my-app", "A=1", "-o", "json").out)
    assert {"state": "done", "replaced": 0, "changed": False}.items() <= document.items()


def test_a_change_that_is_being_rolled_out_already_is_waited_for(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["UpdateApp"] = fake.began("update", id="older")
    control.answers["WatchRollout"] = [fake.ended("failed", "update", id="older")]
    assert fleetctl("env-set", "my-app", "A=1").code == 1
    (watched,) = control.of(control_pb2.GetRolloutRequest)
    assert watched.rollout == "older"


def test_a_revision_that_failed_is_told_with_its_worker_and_what_runs_again(
    fleetctl: Fleetctl, control: FakeControl
) -> None:
    message = "worker my-app/host1/2 failed: exit code 3"

    def watch(_request: Any, _context: Any) -> Iterator[Any]:
        back = control_pb2.HostProgress(host="host1", steps=1, doing="stopping 2")
        fields: dict[str, Any] = {"revision": 3, "previous_revision": 2, "message": message, "failed_worker": _FAILED}
        yield fake.began("update", state="rolling_back", hosts=[back], **fields)
        yield fake.ended("failed", "update", **fields)

    control.answers["WatchRollout"] = watch
    result = fleetctl("env-set", "my-app", "A=1")
    assert result.code == 1
    assert result.out.splitlines() == [
        "host1: 0/1 stopping 2",
        f"my-app: going back to revision 2: {message}",
    ]
    assert result.err.splitlines() == [
        f"fleetctl: update of my-app failed: {message}",
        "  my-app/host1/2 of revision 3:",
        "    it printed last:",
        "      | starting",
        "      | no database",
        "  revision 2 runs again; look with `fleetctl history my-app` and `fleetctl logs --worker my-app/host1/2`",
    ]
    document = json.loads(fleetctl("env-set", "my-app", "A=1", "-o", "json").out)
    assert document["failed_worker"]["id"] == "my-app/host1/2"
    assert document["failed_worker"]["last_lines"] == ["starting", "no database"]
    assert document["previous_revision"] == 2


@pytest.mark.parametrize(
    "command",
    [
        ("soft-restart", "my-app"),
        ("restart", "my-app", "--now", "-y"),
        ("stop", "my-app"),
        ("remove", "my-app", "-y"),
        ("set-size", "my-app", "4"),
        ("start", "true", "-n", "other"),
        ("env-set", "my-app", "A=1"),
        ("env-unset", "my-app", "A"),
        ("rollback", "my-app"),
    ],
)
def test_every_operation_may_take_anothers_place_and_leave_balancers_out(
    fleetctl: Fleetctl, control: FakeControl, command: tuple[str, ...]
) -> None:
    assert fleetctl(*command, "--no-wait").code == 0
    assert fleetctl(
        *command, "--no-wait", "--supersede", "--ignore-balancer", "lb1", "--ignore-balancer", "lb2"
    ).code == 0  # fmt: skip
    asked = [request.options for request in control.requests if hasattr(request, "options")]
    assert not asked[0].supersede
    assert not asked[0].ignore_balancers
    assert asked[-1].supersede
    assert list(asked[-1].ignore_balancers) == ["lb1", "lb2"]


def test_a_rollout_that_is_in_the_way_refuses_in_the_controllers_words(
    fleetctl: Fleetctl, control: FakeControl
) -> None:
    control.fail("UpdateApp", grpc.StatusCode.FAILED_PRECONDITION, "a restart of my-app is under way: … --supersede")
    result = fleetctl("env-set", "my-app", "A=1")
    assert (result.code, result.err) == (5, "fleetctl: a restart of my-app is under way: … --supersede\n")


def test_an_earlier_revision_is_rolled_out_again(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["WatchRollout"] = [fake.ended("done", "rollback", revision=1)]
    assert fleetctl("rollback", "my-app").out == "my-app rolled back to revision 1: 4 workers replaced in 2.5s\n"
    assert fleetctl("rollback", "my-app", "1").code == 0
    assert [request.revision for request in control.of(control_pb2.RollbackAppRequest)] == [0, 1]


def history() -> control_pb2.GetHistoryResponse:
    return control_pb2.GetHistoryResponse(
        revisions=[
            control_pb2.RevisionSummary(
                revision=types_pb2.Revision(number=1, spec_digest="d1"),
                created_at="2026-11-26T21:30:39+00:00",
                cause="start",
                good=True,
                current=True,
            ),
            control_pb2.RevisionSummary(
                revision=types_pb2.Revision(number=2, spec_digest="d2"),
                created_at="2026-11-26T21:31:00+00:00",
                cause="env-set A",
                differences=["env.A: changed", "cwd: /a → /b"],
            ),
        ],
        rollouts=[
            fake.rollout(
                "start", state="done", revision=1, steps_done=4, seconds=1.6, began_at="2026-11-26T21:30:39+00:00"
            ),
            fake.rollout(
                "update",
                state="failed",
                revision=2,
                previous_revision=1,
                steps_done=1,
                seconds=3,
                cause="env-set A",
                message="worker my-app/host1/1 failed",
            ),
            fake.rollout("restart", revision=1, previous_revision=1, steps_done=1, paused=True),
        ],
    )


def test_history_tells_what_the_app_was_and_what_was_done_to_it(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["GetHistory"] = history()
    lines = [" ".join(line.split()) for line in fleetctl("history", "my-app").out.splitlines()]
    assert lines == [
        "REVISION MADE (UTC) STATE CAUSE",
        "1 2026-11-26 21:30:39 current start",
        "2 2026-11-26 21:31:00 never ran in full env-set A",
        "env.A: changed",
        "cwd: /a → /b",
        "",
        "ROLLOUT BEGAN (UTC) RESULT REVISION STEPS TOOK",
        "start 2026-11-26 21:30:39 done 1 4 1.6s",
        "update - failed 2 1/4 3s",
        "why: env-set A",
        "worker my-app/host1/1 failed",
        "revision 1 runs again",
        "restart - paused 1 1/4 0s",
    ]
    assert fleetctl("history", "my-app", "-q").out == "1\n2\n"


def test_history_for_programs(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["GetHistory"] = history()
    document = json.loads(fleetctl("history", "my-app", "-o", "json").out)
    assert document["app"] == "my-app"
    assert document["revisions"][1] == {
        "revision": 2,
        "created_at": "2026-11-26T21:31:00+00:00",
        "cause": "env-set A",
        "differences": ["env.A: changed", "cwd: /a → /b"],
        "good": False,
        "current": False,
        "artifact_digest": None,
        "spec_digest": "d2",
    }
    assert [rollout["state"] for rollout in document["rollouts"]] == ["done", "failed", "running"]


def test_a_pause_returns_at_once_and_says_what_ends_it(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["ControlRollout"] = fake.began("update", paused=True, steps_done=1)
    result = fleetctl("rollout", "pause", "my-app")
    assert result.code == 0
    assert result.out == (
        "update of my-app is paused at 1/4: `fleetctl rollout resume my-app` goes on, "
        "`fleetctl rollout abort my-app` goes back\n"
    )
    assert control.of(control_pb2.GetRolloutRequest) == []


@pytest.mark.parametrize(
    ("word", "action"),
    [("resume", control_pb2.ROLLOUT_ACTION_RESUME), ("promote", control_pb2.ROLLOUT_ACTION_PROMOTE)],
)
def test_what_goes_on_is_watched_to_its_end(
    fleetctl: Fleetctl, control: FakeControl, word: str, action: control_pb2.RolloutAction.ValueType
) -> None:
    control.answers["WatchRollout"] = [fake.ended("done", "update", revision=2)]
    result = fleetctl("rollout", word, "my-app")
    assert (result.code, result.out) == (0, "my-app updated to revision 2: 4 workers replaced in 2.5s\n")
    assert "has begun" in fleetctl("rollout", word, "my-app", "--no-wait").out
    assert {request.action for request in control.of(control_pb2.ControlRolloutRequest)} == {action}


def test_an_abort_is_done_once_what_ran_before_runs_again(fleetctl: Fleetctl, control: FakeControl) -> None:
    """Guards invariant 10: the same end is success for who aborts, and failure for who was aborted."""
    fields: dict[str, Any] = {"revision": 3, "previous_revision": 2, "message": "aborted"}
    control.answers["ControlRollout"] = fake.began("update", state="rolling_back", **fields)
    control.answers["WatchRollout"] = [fake.ended("aborted", "update", **fields)]
    result = fleetctl("rollout", "abort", "my-app")
    assert result.code == 0
    assert result.out == "my-app aborted: the update is undone after 2.5s, revision 2 runs again\n"
    assert json.loads(fleetctl("rollout", "abort", "my-app", "-o", "json").out)["state"] == "aborted"
    watching = fleetctl("env-set", "my-app", "A=1")
    assert watching.code == 1
    assert watching.err.splitlines() == [
        "fleetctl: update of my-app was aborted, by somebody's `rollout abort`: revision 2 runs again",
        "  `fleetctl history my-app` shows what was done",
    ]


def test_an_abort_that_cannot_go_back_fails(fleetctl: Fleetctl, control: FakeControl) -> None:
    message = "aborted; going back failed as well: worker my-app/host1/1 failed"
    control.answers["WatchRollout"] = [fake.ended("failed", "update", message=message)]
    result = fleetctl("rollout", "abort", "my-app")
    assert result.code == 1
    assert "old and new workers may run side by side" in result.err


def test_waiting_for_a_person_says_what_to_type_and_ends_at_the_timeout(
    fleetctl: Fleetctl, control: FakeControl
) -> None:
    ready = "the canaries are ready: `fleetctl rollout promote my-app` goes on"
    control.answers["WatchRollout"] = control.hold(fake.began("update", awaits_promotion=True, message=ready))
    result = fleetctl("env-set", "my-app", "A=1", "--timeout", "1s")
    assert result.code == 6
    assert result.out == f"my-app: {ready}\n"
    assert f"update of my-app still waits for promotion after 1s ({ready})" in result.err
    paused = "paused (exit code 3): `fleetctl rollout resume my-app` goes on"
    control.answers["WatchRollout"] = control.hold(fake.began("update", paused=True, message=paused))
    result = fleetctl("env-set", "my-app", "A=1", "--timeout", "1s")
    assert result.code == 6
    assert "update of my-app is paused after 1s" in result.err


def test_a_watch_for_programs_is_a_line_for_each_change(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["WatchRollout"] = [
        fake.began("update", seconds=1, steps_done=1),
        fake.began("update", seconds=2, steps_done=1),
        fake.began("update", seconds=3, steps_done=2, paused=True),
        fake.ended("done", "update"),
    ]
    result = fleetctl("rollout", "status", "my-app", "--watch", "-o", "json")
    assert result.code == 0
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [(line["state"], line["steps_done"], line["paused"]) for line in lines] == [
        ("running", 1, False),
        ("running", 2, True),
        ("done", 4, False),
    ]


def test_a_watch_of_what_ended_is_one_line_and_its_exit_code(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["GetRollout"] = fake.ended("failed", "update", message="x", failed_worker=_FAILED)
    result = fleetctl("rollout", "status", "my-app", "--watch", "-o", "json")
    assert result.code == 1
    assert json.loads(result.out)["failed_worker"]["reason"] == "exit code 3"


def test_rollout_status_shows_the_failed_worker(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["GetRollout"] = fake.began(
        "update", paused=True, message="paused (exit code 3): …", failed_worker=_FAILED, cause="env-set A"
    )
    lines = fleetctl("rollout", "status", "my-app").out.splitlines()
    assert lines[0].split()[:3] == ["my-app", "update", "paused"]
    assert lines[1:] == [
        "  why: env-set A",
        "  paused (exit code 3): …",
        "  it printed last:",
        "    | starting",
        "    | no database",
    ]


def test_status_shows_a_paused_rollout_and_what_ends_it(fleetctl: Fleetctl, control: FakeControl) -> None:
    shown = fake.app(rollout=fake.rollout("update", steps_done=1, paused=True), notices=["balancer lb1 refuses"])
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[shown])
    out = fleetctl("status", "my-app").out
    assert "! balancer lb1 refuses" in out
    assert "my-app  update  paused  1/4" in out
    assert "fleetctl rollout resume my-app" in out
    assert "update 1/4 paused" in fleetctl("ls").out


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("env-set", "my-app"), 2, "say what to set"),
        (("env-set", "my-app", "A"), 2, "'A' is not KEY=VALUE"),
        (("env-set", "my-app", "--env-file", "nope"), 2, "'nope' does not exist"),
        (("env-set", "my-app", "--env-file", "bad"), 2, "--env-file bad: line 1 is not KEY=VALUE"),
        (("env-set", "my-app", "--env-file", "binary"), 2, "--env-file binary: is not UTF-8"),
        (("env-unset", "my-app"), 2, "KEY"),
        (("env-get",), 2, "APP"),
        (("rollback", "my-app", "0"), 2, "0 is not in the range"),
        (("rollback", "my-app", "last"), 2, "'last' is not a valid"),
        (("rollout", "halt", "my-app"), 2, "halt"),
        (("start", "true", "--canary-time", "1m"), 2, "--canary N"),
        (("start", "true", "--max-surge", "0", "--max-unavailable", "0"), 2, "no worker could ever be replaced"),
        (("start", "true", "--on-failure", "shrug"), 2, "shrug"),
        (("start", "true", "--host-label", "zone"), 2, "KEY=VALUE"),
        (("start", "true", "--host-label", "zone=/"), 2, "--host-label"),
    ],
)
def test_bad_input_is_one_clear_line_and_changes_nothing(
    fleetctl: Fleetctl,
    control: FakeControl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").write_text("nonsense")
    (tmp_path / "binary").write_bytes(b"A=\xff")
    result = fleetctl(*arguments)
    assert result.code == code, result.err
    first, *rest = result.err.splitlines()
    assert complaint in first
    assert all(line.startswith("  ") for line in rest)
    assert result.out == ""
    assert all(isinstance(request, control_pb2.ListAppsRequest) for request in control.requests)


def test_the_policies_of_rollouts_and_hosts_reach_the_controller(fleetctl: Fleetctl, control: FakeControl) -> None:
    assert fleetctl(
        "start", "true", "--canary", "2", "--canary-time", "1m", "--on-failure", "pause", "--progress-deadline", "5m",
        "--bake-time", "3s", "--max-surge", "2", "--max-unavailable", "1", "--parallel-hosts", "3", "--host-label",
        "zone=a", "--host-label", "disk=ssd", "--lost-after", "0",
    ).code == 0  # fmt: skip
    spec = control.of(control_pb2.StartAppRequest)[0].spec
    policy = spec.rollout
    assert (policy.canary, policy.canary_seconds, policy.on_failure) == (2, 60, types_pb2.ON_FAILURE_PAUSE)
    assert (policy.progress_deadline_seconds, policy.bake_seconds) == (300, 3)
    assert (policy.max_surge, policy.max_unavailable, policy.parallel_hosts) == (2, 1, 3)
    assert dict(spec.placement.labels) == {"zone": "a", "disk": "ssd"}
    assert spec.placement.lost_after_seconds == 0
