"""Operations: the request sent, the rollout watched, the outcome told. Guards invariant 10."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from fleet.v1 import control_pb2, types_pb2
from tests.integration.cli import fake_control as fake
from tests.integration.cli.conftest import Fleetctl
from tests.integration.cli.fake_control import FakeControl, FakeController


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "server.js").write_text("require('http')")
    monkeypatch.chdir(folder)
    return folder / "server.js"


def test_success_is_told_only_once_the_rollout_is_done(fleetctl: Fleetctl, control: FakeControl) -> None:
    """Guards invariant 10."""
    seen: list[str] = []

    def watch(_request: Any, _context: Any) -> Iterator[Any]:
        for done in range(4):
            seen.append(f"{done}")
            host = control_pb2.HostProgress(host="host1", steps=4, steps_done=done, doing=f"draining {done + 1}")
            yield fake.began("restart", steps_done=done, hosts=[host])
        yield fake.ended("done")

    control.answers["WatchRollout"] = watch
    result = fleetctl("soft-restart", "my-app")
    assert result.code == 0
    assert len(seen) == 4
    assert result.out.splitlines() == [
        *(f"host1: {done}/4 draining {done + 1}" for done in range(4)),
        "my-app restarted: 4 workers replaced in 2.5s",
    ]


def test_json_ends_with_one_object_and_no_progress(fleetctl: Fleetctl) -> None:
    result = fleetctl("soft-restart", "my-app", "-o", "json")
    assert {"rollout": "r-1", "state": "done", "replaced": 4, "seconds": 2.5}.items() <= json.loads(result.out).items()
    assert result.err == ""


def test_a_failed_rollout_exits_1_with_its_message_and_the_next_step(fleetctl: Fleetctl, control: FakeControl) -> None:
    """Guards invariant 10."""
    control.answers["WatchRollout"] = [fake.ended("failed", message="my-app/host1/2 was not ready within 30 s")]
    result = fleetctl("soft-restart", "my-app", "-o", "json")
    assert result.code == 1
    assert result.err.startswith("fleetctl: restart of my-app failed: my-app/host1/2 was not ready within 30 s\n")
    assert "fleetctl logs my-app" in result.err
    assert json.loads(result.out)["state"] == "failed"


def test_a_failed_rollout_shows_what_the_worker_printed_last(fleetctl: Fleetctl, control: FakeControl) -> None:
    reason = "exit code 3; given up after 2 restarts"
    control.answers["WatchRollout"] = [fake.ended("failed", message=f"worker my-app/host1/2 failed: {reason}")]
    unready = fake.worker(state=types_pb2.WORKER_STATE_UNREADY)
    failed = fake.worker(
        slot=2,
        state=types_pb2.WORKER_STATE_FAILED,
        restarts=2,
        reason=reason,
        last_lines=["starting", "  no \x1b[1mdatabase"],
    )
    control.answers["ListWorkers"] = control_pb2.ListWorkersResponse(workers=[fake.worker(slot=3), unready, failed])
    result = fleetctl("soft-restart", "my-app")
    assert result.code == 1
    assert result.err.splitlines() == [
        f"fleetctl: restart of my-app failed: worker my-app/host1/2 failed: {reason}",
        "  my-app/host1/2 is failed after 2 restarts",
        "    it printed last:",
        "      | starting",
        "      |   no database",
        "  my-app/host1/1 is unready",
        "  what was good runs on; look with `fleetctl status my-app` and `fleetctl logs --worker my-app/host1/2`",
    ]
    document = json.loads(fleetctl("soft-restart", "my-app", "-o", "json").out)
    assert [worker["id"] for worker in document["ailing"]] == ["my-app/host1/2", "my-app/host1/1"]


def test_a_failed_rollout_is_told_also_where_its_workers_cannot_be_had(
    fleetctl: Fleetctl, control: FakeControl
) -> None:
    control.answers["WatchRollout"] = [fake.ended("failed", message="worker my-app/host1/2 failed")]
    control.fail("ListWorkers", grpc.StatusCode.NOT_FOUND, "there is no app my-app")
    result = fleetctl("soft-restart", "my-app")
    assert result.code == 1
    assert "worker my-app/host1/2 failed" in result.err
    assert "no app" not in result.err


def test_a_superseded_rollout_is_no_success(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["WatchRollout"] = [fake.ended("superseded")]
    result = fleetctl("stop", "my-app")
    assert result.code == 1
    assert "superseded" in result.err


def test_no_wait_returns_at_once_and_says_how_to_follow(fleetctl: Fleetctl, control: FakeControl) -> None:
    result = fleetctl("soft-restart", "my-app", "--no-wait")
    assert result.code == 0
    assert "`fleetctl rollout status my-app --watch`" in result.out
    assert not any(isinstance(r, control_pb2.GetRolloutRequest) for r in control.requests)
    assert fleetctl("soft-restart", "my-app", "--no-wait", "-q").out == "r-1\n"
    assert json.loads(fleetctl("soft-restart", "my-app", "--no-wait", "-o", "json").out)["state"] == "running"


def test_a_rollout_that_outlasts_the_timeout_exits_6_and_says_how_to_attach(
    fleetctl: Fleetctl, control: FakeControl
) -> None:
    control.answers["WatchRollout"] = control.hold(fake.began("restart", message="waits for balancer lb1"))
    result = fleetctl("soft-restart", "my-app", "--timeout", "1s", "-o", "json")
    assert result.code == 6
    assert "(waits for balancer lb1)" in result.err
    assert "fleetctl rollout status my-app --watch" in result.err
    assert json.loads(result.out)["state"] == "running"


def test_a_detached_rollout_can_be_watched_to_its_end(fleetctl: Fleetctl, control: FakeControl) -> None:
    result = fleetctl("rollout", "status", "my-app", "--watch")
    assert (result.code, result.out) == (0, "my-app restarted: 4 workers replaced in 2.5s\n")
    control.answers["WatchRollout"] = [fake.ended("failed")]
    assert fleetctl("rollout", "status", "my-app", "--watch").code == 1


def test_the_watch_begins_again_when_its_stream_ends_early(fleetctl: Fleetctl, control: FakeControl) -> None:
    streams = iter([[fake.began("restart")], [fake.ended("done")]])
    control.answers["WatchRollout"] = lambda _request, _context: next(streams)
    assert fleetctl("soft-restart", "my-app").code == 0
    assert len(control.of(control_pb2.RestartAppRequest)) == 1


def test_the_watch_outlives_its_controller(
    fleetctl: Fleetctl,
    control: FakeControl,
    start_controller: Callable[..., FakeController],
    controller: FakeController,
) -> None:
    successor = FakeControl()

    def die(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield fake.began("restart")
        port = int(controller.address.rpartition(":")[2])

        # From another thread: a server waits for its own handlers while it closes.
        def replace() -> None:
            controller.close()
            start_controller(successor, port)

        threading.Thread(target=replace).start()
        while context.is_active():
            control.released.wait(0.02)

    control.answers["WatchRollout"] = die
    result = fleetctl("soft-restart", "my-app", "--timeout", "20s")
    assert result.code == 0, result.err
    assert "went away" in result.out
    assert successor.of(control_pb2.RestartAppRequest) == []
    assert [request.rollout for request in successor.of(control_pb2.GetRolloutRequest)] == ["r-1"]


def test_a_mutation_is_repeated_with_its_request_id(fleetctl: Fleetctl, control: FakeControl) -> None:
    """Guards invariant 5: none takes effect twice."""
    attempts: list[str] = []

    def stumble(request: Any, context: grpc.ServicerContext) -> Any:
        attempts.append(request.request_id)
        if len(attempts) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "c1 does not lead any more")
        return fake.began("stop")

    control.answers["StopApp"] = stumble
    assert fleetctl("stop", "my-app").code == 0
    assert len(attempts) == 3
    assert len(set(attempts)) == 1
    assert len(attempts[0]) == 36


def test_etcd_away_refuses_a_change_in_the_controllers_words(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.fail("StopApp", grpc.StatusCode.FAILED_PRECONDITION, "etcd cannot be reached: no quorum")
    result = fleetctl("stop", "my-app")
    assert result.code == 5
    assert result.err == "fleetctl: etcd cannot be reached: no quorum\n"
    assert len(control.requests) == 1


def test_stop_and_its_options_reach_the_controller(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["WatchRollout"] = [fake.ended("done", "stop")]
    assert fleetctl("soft-stop", "my-app", "--now", "-y").out.endswith("my-app stopped: 4 workers stopped in 2.5s\n")
    (request,) = control.of(control_pb2.StopAppRequest)
    assert (request.app, request.now) == ("my-app", True)


@pytest.mark.parametrize("command", [("remove", "my-app"), ("restart", "my-app", "--now"), ("stop", "my-app", "--now")])
def test_what_destroys_needs_yes_where_nobody_can_be_asked(
    fleetctl: Fleetctl, control: FakeControl, command: tuple[str, ...]
) -> None:
    result = fleetctl(*command)
    assert result.code == 5
    assert "--yes" in result.err
    assert control.requests == []
    assert fleetctl(*command, "--yes").code == 0


def test_restart_without_now_is_the_soft_restart(fleetctl: Fleetctl, control: FakeControl) -> None:
    for command in ("restart", "reload", "soft-restart"):
        assert fleetctl(command, "my-app").code == 0
    assert all(not request.now for request in control.of(control_pb2.RestartAppRequest))


def test_one_worker_is_restarted_by_its_name(fleetctl: Fleetctl, control: FakeControl) -> None:
    assert fleetctl("restart", "--worker", "my-app/host1/3").code == 0
    (request,) = control.of(control_pb2.RestartAppRequest)
    assert (request.app, request.host, request.slot) == ("my-app", "host1", 3)


def test_set_size_shows_the_plan_before_it_acts(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["WatchRollout"] = [fake.ended("done", "set_size", replaced=2)]
    result = fleetctl("set-size", "my-app", "5", "--host", "host1")
    assert result.code == 0
    assert result.out.splitlines()[1].split() == ["host1", "2", "4", "+2"]
    assert result.out.endswith("my-app resized: 2 workers started or stopped in 2.5s\n")
    dry, real = control.of(control_pb2.SetSizeRequest)
    assert (dry.dry_run, real.dry_run) == (True, False)
    assert (real.app, real.host, real.change.absolute) == ("my-app", "host1", 5)
    assert real.allow_shrinking_others is False


def test_set_size_with_yes_asks_once_and_shows_the_plan_it_was_answered(
    fleetctl: Fleetctl, control: FakeControl
) -> None:
    control.answers["WatchRollout"] = [fake.ended("done", "set_size", replaced=2)]
    result = fleetctl("set-size", "my-app", "5", "--host", "host1", "--yes")
    assert result.code == 0
    assert result.out.splitlines()[1].split() == ["host1", "2", "4", "+2"]
    assert result.out.endswith("my-app resized: 2 workers started or stopped in 2.5s\n")
    (request,) = control.of(control_pb2.SetSizeRequest)
    assert not request.dry_run
    assert request.allow_shrinking_others


def test_a_dry_run_changes_nothing(fleetctl: Fleetctl, control: FakeControl) -> None:
    result = fleetctl("scale", "my-app", "+2", "--dry-run", "-o", "json")
    assert json.loads(result.out) == {
        "app": "my-app",
        "size_mode": "floating",
        "plan": [{"host": "host1", "before": 2, "after": 4}, {"host": "host2", "before": 2, "after": 2}],
        "shrinking_others": [],
    }
    (request,) = control.of(control_pb2.SetSizeRequest)
    assert request.dry_run
    assert request.change.relative == 2


def test_shrinking_hosts_that_were_not_named_needs_yes(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["SetSize"] = lambda request, _context: fake.set_size(request, shrinking=("host2",))
    result = fleetctl("set-size", "my-app", "4")
    assert result.code == 5
    assert "host2" in result.err
    assert "host2" in result.out
    assert all(request.dry_run for request in control.of(control_pb2.SetSizeRequest))
    assert fleetctl("set-size", "my-app", "4", "-y").code == 0
    assert control.of(control_pb2.SetSizeRequest)[-1].allow_shrinking_others


def test_a_size_per_core_is_asked_of_the_controller(fleetctl: Fleetctl, control: FakeControl) -> None:
    assert fleetctl("set-size", "my-app", "cpu").code == 0
    assert control.of(control_pb2.SetSizeRequest)[-1].change.per_cpu


def test_start_makes_an_app_of_a_script(fleetctl: Fleetctl, control: FakeControl, script: Path) -> None:
    control.answers["WatchRollout"] = [fake.ended("done", "start")]
    result = fleetctl(
        "start", "./server.js", "-i", "4", "--http", ":8080", "--host", "host1", "--host", "host2", "-e", "A=b=c",
        "--port", "3000", "--ready-path", "/up", "--grace", "3", "--drain-timeout", "1m", "--max-surge", "0",
        "--", "-x", "--name", "y",
    )  # fmt: skip
    assert result.code == 0, result.err
    (request,) = control.of(control_pb2.StartAppRequest)
    spec = request.spec
    assert spec.name == "shop"
    assert spec.argv[0].startswith("/")
    assert spec.argv[0].endswith("/node")
    assert list(spec.argv[1:]) == [str(script), "-x", "--name", "y"]
    assert spec.cwd == str(script.parent)
    assert dict(spec.env) == {"A": "b=c"}
    assert spec.runtime == types_pb2.RUNTIME_NODE
    assert spec.listen_mode == types_pb2.LISTEN_MODE_PORT
    assert (spec.declared_port, spec.route.http, spec.ready.http_path) == (3000, ":8080", "/up")
    assert (spec.stop.grace_seconds, spec.rollout.drain_timeout_seconds) == (3, 60)
    assert (spec.rollout.max_surge, spec.rollout.max_unavailable) == (0, 1)
    assert (request.size, list(request.hosts)) == (4, ["host1", "host2"])


def test_start_of_a_known_name_starts_that_app_again(fleetctl: Fleetctl, control: FakeControl, script: Path) -> None:
    """Even with a file of that name here."""
    (script.parent / "my-app").write_text("#!/bin/sh\n")
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[fake.app()])
    assert fleetctl("start", "my-app").code == 0
    (request,) = control.of(control_pb2.StartAppRequest)
    assert request.spec == types_pb2.AppSpec(name="my-app")
    assert fleetctl("start", "./my-app").code == 0
    assert control.of(control_pb2.StartAppRequest)[-1].spec.argv[0] == "/bin/sh"


def test_a_known_app_does_not_take_a_new_spec(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[fake.app()])
    result = fleetctl("start", "my-app", "--http", ":9")
    assert result.code == 2
    assert "exists already" in result.err
    assert control.of(control_pb2.StartAppRequest) == []


def test_start_of_a_command_is_named_after_its_folder(fleetctl: Fleetctl, control: FakeControl, script: Path) -> None:
    (script.parent / "package.json").write_text('{"name": "@acme/Web_Shop"}')
    assert fleetctl("start", "npm", "--", "start").code == 0
    (request,) = control.of(control_pb2.StartAppRequest)
    assert request.spec.name == "web-shop"
    assert request.spec.argv[1:] == ["start"]
    assert request.spec.runtime == types_pb2.RUNTIME_NODE


def test_one_worker_per_core_counts_the_hosts_that_are_online(
    fleetctl: Fleetctl, control: FakeControl, script: Path
) -> None:
    control.answers["ListHosts"] = control_pb2.ListHostsResponse(
        hosts=[
            fake.host("host1", cpus=2),
            fake.host("host2", cpus=8),
            fake.host("host3", cpus=16, state=control_pb2.HOST_STATE_UNKNOWN),
        ]
    )
    assert fleetctl("start", script, "-i", "cpu").code == 0
    assert control.of(control_pb2.StartAppRequest)[-1].size == 10
    assert fleetctl("start", script, "-i", "cpu", "--host", "host1").code == 0
    assert control.of(control_pb2.StartAppRequest)[-1].size == 2


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("start", "./nope.js"), 4, "there is no file"),
        (("start", "no-such-command"), 4, "no app, no file here and no command"),
        (("start", "."), 4, "no app, no file"),
        (("start", "./"), 2, "is a folder"),
        (("start", "./server.js", "-i", "abc"), 2, "size 'abc'"),
        (("start", "./server.js", "-i", "-1"), 2, "size '-1'"),
        (("start", "./server.js", "-i", "+2"), 2, "at least 1"),
        (("start", "./server.js", "-i", "0"), 2, "at least 1"),
        (("start", "./server.js", "-n", "A_b"), 2, "app name 'A_b'"),
        (("start", "./server.js", "--http", "x"), 2, "address 'x'"),
        (("start", "./server.js", "--http", ":8080", "--no-port"), 2, "something that listens"),
        (("start", "./server.js", "--port", "1", "--no-port"), 2, "--listen none"),
        (("start", "./server.js", "-e", "A"), 2, "KEY=VALUE"),
        (("start", "./server.js", "--ready-path", "up"), 2, "must start with /"),
        (("start", "./server.js", "--grace", "99999999"), 2, "--grace"),
        (("start", "./server.js", "--cwd", "nowhere"), 2, "nowhere"),
        (("set-size", "my-app", "abc"), 2, "size 'abc'"),
        (("set-size", "my-app", "-1"), 2, "size '-1'"),
        (("set-size", "my-app", "99999999999"), 2, "size '99999999999'"),
        (("set-size", "my-app", "+0"), 2, "changes nothing"),
        (("restart",), 2, "name an app"),
        (("restart", "--worker", "a/b/0"), 2, "APP/HOST/SLOT"),
        (("restart", "x", "--worker", "a/b/1"), 2, "is not one of x"),
        (("stop", "my-app", "--timeout", "0"), 2, "more than 0"),
        (("stop", "my-app", "--timeout", "soon"), 2, "not a duration"),
        (("stop", "my-app", "-C", "localhost"), 2, "HOST:PORT"),
        (("stop", "my-app", "-o", "xml"), 2, "xml"),
        (("nonsense",), 2, "nonsense"),
        (("stop",), 2, "APP"),
    ],
)
def test_bad_input_is_one_clear_line_and_changes_nothing(
    fleetctl: Fleetctl, control: FakeControl, script: Path, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    result = fleetctl(*arguments)
    assert result.code == code, result.err
    first, *rest = result.err.splitlines()
    assert first.startswith("fleetctl: ")
    assert complaint in first
    assert all(line.startswith("  ") for line in rest)
    assert len(rest) <= 1
    assert result.out == ""
    changes = (control_pb2.StartAppRequest, control_pb2.SetSizeRequest, control_pb2.StopAppRequest)
    assert not any(isinstance(request, changes) for request in control.requests)


@pytest.mark.parametrize(
    ("ready", "said"), [(0, "nothing ran before it; look with"), (1, "what was good runs on; look with")]
)
def test_a_start_that_failed_says_whether_anything_of_it_runs(
    fleetctl: Fleetctl, control: FakeControl, ready: int, said: str
) -> None:
    control.answers["WatchRollout"] = [fake.ended("failed", "start", steps_done=ready, message="exit code 1")]
    result = fleetctl("start", "true", "-n", "my-app")
    assert result.code == 1
    assert said in result.err
