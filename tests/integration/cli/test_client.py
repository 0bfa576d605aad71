"""The client library and a controller that answers as told: it asks, sees and says what the command line does."""

import asyncio
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from fleet.v1 import control_pb2, types_pb2
from fleetctl import (
    ApplyFailed,
    AppSpec,
    AsyncClient,
    Client,
    DrainFailed,
    FleetError,
    InvalidSpec,
    ListenMode,
    NotFound,
    Refused,
    RolloutFailed,
    RolloutTimeout,
    StillRunning,
    StopPolicy,
    Unreachable,
    UsageError,
)
from tests.integration.cli import fake_control as fake
from tests.integration.cli.conftest import Fleetctl
from tests.integration.cli.fake_control import FakeControl, FakeController

Call = Callable[[Client], Any]
SPEC = AppSpec("a", ("sh",), "/")


@pytest.fixture
def client(fleetctl: Fleetctl) -> Iterator[Client]:
    """On the context that fleetctl has."""
    with Client() as fleet:
        yield fleet


@pytest.fixture
def fleet(control: FakeControl) -> None:
    app = fake.app(
        notices=["look"],
        rollout=fake.rollout(
            "update",
            state="failed",
            message="m",
            hosts=[control_pb2.HostProgress(host="host1", steps=2, steps_done=1, doing="d")],
            previous_revision=1,
            failed_worker=control_pb2.FailedWorker(worker=fake.worker().id, reason="it fell", last_lines=["a", "b"]),
        ),
    )
    control.answers |= {
        "GetInfo": control_pb2.GetInfoResponse(controller="c1", version="1", etcd_endpoints=["a:1"], apps=1, hosts=2),
        "ListApps": control_pb2.ListAppsResponse(apps=[app]),
        "ListWorkers": control_pb2.ListWorkersResponse(
            workers=[fake.worker("host1", 1, reason="x", last_lines=["l"]), fake.worker("host2", 1, pid=0)]
        ),
        "ListHosts": control_pb2.ListHostsResponse(hosts=[fake.host("host1"), fake.host("host2", state=2)]),
        "ListBalancers": control_pb2.ListBalancersResponse(
            balancers=[fake.balancer(), fake.balancer("lb2", connected=False)]
        ),
        "ListUpstreams": control_pb2.ListUpstreamsResponse(
            upstreams=[
                control_pb2.Upstream(
                    pool="my-app",
                    version=3,
                    endpoints=[types_pb2.Endpoint(worker=fake.worker().id, address="1.2.3.4", port=5, state=1)],
                    acknowledged={"lb1": 3},
                )
            ]
        ),
        "GetRollout": control_pb2.RolloutResponse(rollout=app.rollout),
        "GetHistory": control_pb2.GetHistoryResponse(
            revisions=[control_pb2.RevisionSummary(cause="start", good=True, differences=["a: 1 → 2"])],
            rollouts=[app.rollout],
        ),
        "StreamLogs": [
            control_pb2.StreamLogsResponse(
                entries=[
                    control_pb2.LogEntry(app="my-app", host="host1", slot=1, stream="stdout", text=b"caf\xc3\xa9 \xff")
                ]
            )
        ],
    }


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ("info", lambda fleet: fleet.info()),
        ("ls", lambda fleet: fleet.apps()),
        ("status", lambda fleet: fleet.status()),
        ("status my-app", lambda fleet: fleet.status("my-app")),
        ("ps", lambda fleet: fleet.workers()),
        ("top --once", lambda fleet: fleet.sample()),
        ("top --once --sort name", lambda fleet: next(fleet.samples(sort="name"))),
        ("host ls", lambda fleet: fleet.hosts()),
        ("balancer ls", lambda fleet: fleet.balancers()),
        ("controller ls", lambda fleet: fleet.controllers()),
        ("balancer upstreams", lambda fleet: fleet.upstreams()),
        ("history my-app", lambda fleet: fleet.history("my-app")),
        ("rollout status my-app", lambda fleet: fleet.rollout("my-app").status),
        ("env-get my-app", lambda fleet: fleet.env_get("my-app")),
        ("set-size my-app 8 --dry-run", lambda fleet: fleet.plan_size("my-app", 8)),
        ("logs my-app", lambda fleet: next(fleet.logs("my-app"))),
        ("host cordon host1", lambda fleet: fleet.cordon("host1")),
        ("host label host1 a=b c-", lambda fleet: fleet.label("host1", {"a": "b", "c": None})),
    ],
)
@pytest.mark.usefixtures("fleet")
def test_a_value_has_every_field_that_json_has(fleetctl: Fleetctl, client: Client, command: str, call: Call) -> None:
    """A field that is new in `fleetctl.views` belongs into fleetctl/client/values.py."""
    assert json.loads(msgspec.json.encode(call(client))) == json.loads(fleetctl(*command.split(), "-o", "json").out)


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ("set-size my-app +2 --host host1", lambda fleet: fleet.set_size("my-app", "+2", host="host1")),
        ("set-size my-app 2 -y", lambda fleet: fleet.set_size("my-app", 2, allow_shrinking_others=True)),
        ("set-size my-app cpu --supersede", lambda fleet: fleet.set_size("my-app", "cpu", supersede=True)),
        ("soft-restart my-app --ignore-balancer b", lambda fleet: fleet.soft_restart("my-app", ignore_balancers="b")),
        (
            "restart my-app --now --worker my-app/h/3 -y",
            lambda fleet: fleet.restart("my-app", now=True, worker="my-app/h/3"),
        ),
        ("stop my-app --now -y", lambda fleet: fleet.stop("my-app", now=True)),
        ("remove my-app -y", lambda fleet: fleet.remove("my-app")),
        ("env-set my-app B=2 A=1", lambda fleet: fleet.env_set("my-app", {"A": "1", "B": "2"})),
        ("env-unset my-app B A", lambda fleet: fleet.env_unset("my-app", ["B", "A", "A"])),
        ("rollback my-app 4", lambda fleet: fleet.rollback("my-app", 4)),
        ("rollback my-app", lambda fleet: fleet.rollback("my-app")),
        ("start my-app -i cpu --host host1", lambda fleet: fleet.start("my-app", size="cpu", hosts="host1")),
        ("host uncordon h", lambda fleet: fleet.uncordon("h")),
        ("host label h a=b c-", lambda fleet: fleet.label("h", {"a": "b", "c": None})),
        ("host remove h -y", lambda fleet: fleet.remove_host("h")),
        ("balancer remove b -y", lambda fleet: fleet.remove_balancer("b")),
        ("controller remove c -y", lambda fleet: fleet.remove_controller("c")),
        ("logs my-app --since 2m --host h", lambda fleet: list(fleet.logs("my-app", since=120, host="h"))),
        ("logs --worker my-app/h/2 --lines 7", lambda fleet: list(fleet.logs(worker="my-app/h/2", lines=7))),
    ],
)
@pytest.mark.usefixtures("fleet")
def test_a_call_asks_for_what_its_command_asks_for(
    fleetctl: Fleetctl, client: Client, control: FakeControl, command: str, call: Call
) -> None:
    assert fleetctl(*command.split(), "--no-wait" if "rollout" in command else "-q").code == 0
    asked = [request for request in control.requests if _changes(request) and not getattr(request, "dry_run", False)]
    control.requests.clear()
    call(client)
    assert _without_id(control.requests, _changes) == _without_id(asked, _changes)


def _changes(request: Any) -> bool:
    return "request_id" in request.DESCRIPTOR.fields_by_name or isinstance(request, control_pb2.StreamLogsRequest)


def _without_id(requests: list[Any], wanted: Callable[[Any], bool]) -> list[Any]:
    kept = []
    for request in filter(wanted, requests):
        copy = type(request)()
        copy.CopyFrom(request)
        if "request_id" in copy.DESCRIPTOR.fields_by_name:
            assert copy.request_id
            copy.ClearField("request_id")
        kept.append(copy)
    return kept


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.FAILED_PRECONDITION, Refused),
        (grpc.StatusCode.ALREADY_EXISTS, Refused),
        (grpc.StatusCode.ABORTED, Refused),
        (grpc.StatusCode.PERMISSION_DENIED, Refused),
        (grpc.StatusCode.INVALID_ARGUMENT, UsageError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Unreachable),
        (grpc.StatusCode.UNIMPLEMENTED, FleetError),
        (grpc.StatusCode.INTERNAL, FleetError),
    ],
)
def test_an_error_is_the_line_and_the_exit_code_of_the_command(
    fleetctl: Fleetctl, client: Client, control: FakeControl, code: grpc.StatusCode, kind: type[FleetError]
) -> None:
    control.fail("RestartApp", code, "no app is named x")
    with pytest.raises(FleetError) as raised:
        client.soft_restart("x")
    told = fleetctl("soft-restart", "x")
    error = raised.value
    assert type(error) is kind
    assert (error.exit_code, [f"fleetctl: {error}", *([f"  {error.hint}"] if error.hint else [])]) == (
        told.code,
        told.err.splitlines(),
    )


def test_wait_returns_once_the_rollout_is_done_and_events_tell_each_change_once(
    client: Client, control: FakeControl
) -> None:
    """Guards invariant 10."""
    control.answers["WatchRollout"] = [
        fake.began("restart", steps_done=0, seconds=0.1),
        fake.began("restart", steps_done=0, seconds=0.2),
        fake.began("restart", steps_done=2),
        fake.ended("done"),
    ]
    rollout = client.soft_restart("my-app")
    assert (rollout.id, rollout.app, rollout.status.state, rollout.changed) == ("r-1", "my-app", "running", True)
    assert [(event.state, event.steps_done) for event in rollout.events()] == [
        ("running", 0),
        ("running", 2),
        ("done", 4),
    ]
    assert [event.state for event in rollout.events()] == ["done"]
    done = client.soft_restart("my-app").wait(timeout=30)
    assert (done.state, done.replaced, done.under_way) == ("done", 4, False)


@pytest.mark.parametrize("state", ["failed", "aborted", "superseded"])
def test_a_rollout_that_ends_otherwise_raises_what_the_command_says(
    fleetctl: Fleetctl, client: Client, control: FakeControl, state: str
) -> None:
    """Guards invariant 10."""
    failed = control_pb2.FailedWorker(worker=fake.worker().id, reason="it exited with 3", last_lines=["boom", "bye"])
    named = {"failed_worker": failed, "message": "my-app/host1/1: it exited with 3"} if state == "failed" else {}
    control.answers["WatchRollout"] = [fake.ended(state, "update", **named)]
    with pytest.raises(RolloutFailed) as raised:
        client.env_set("my-app", {"A": "1"}).wait()
    error, told = raised.value, fleetctl("env-set", "my-app", "A=1")
    assert [f"fleetctl: {error}", *(f"  {line}" for line in (*error.details, error.hint))] == told.err.splitlines()
    assert (error.rollout.state, error.exit_code) == (state, told.code)
    if state == "failed":
        assert (error.worker, error.reason, error.last_lines) == ("my-app/host1/1", "it exited with 3", ("boom", "bye"))


def test_a_wait_ends_at_its_deadline_and_the_rollout_goes_on(
    fleetctl: Fleetctl, client: Client, control: FakeControl
) -> None:
    control.answers["WatchRollout"] = control.hold(fake.began("restart", message="draining 3"))
    rollout = client.soft_restart("my-app")
    with pytest.raises(RolloutTimeout) as raised:
        rollout.wait(timeout=1)
    assert isinstance(raised.value, TimeoutError)
    assert raised.value.rollout.message == "draining 3"
    assert fleetctl("soft-restart", "my-app", "--timeout", "1").err == f"fleetctl: {raised.value}\n"
    with pytest.raises(RolloutTimeout):
        list(rollout.events(timeout=0.2))
    for senseless in (None, "3", -1, float("nan"), True):
        with pytest.raises(UsageError, match="every wait has a deadline"):
            rollout.wait(senseless)  # type: ignore[arg-type]
    control.answers["WatchRollout"] = [fake.ended("done")]
    assert rollout.wait().state == "done"


def test_what_is_steered_is_this_rollout_and_no_other(client: Client, control: FakeControl) -> None:
    rollout = client.rollout("my-app")
    for steer in (rollout.pause, rollout.resume, rollout.promote, rollout.abort):
        steer()
    asked = control.of(control_pb2.ControlRolloutRequest)
    assert [(request.rollout, request.app, request.action) for request in asked] == [
        ("r-1", "my-app", action) for action in (1, 2, 4, 3)
    ]
    control.answers["WatchRollout"] = [fake.ended("aborted", "update")]
    assert rollout.wait().state == "aborted"
    with pytest.raises(RolloutFailed, match="was aborted"):
        client.rollout("my-app").wait()


def test_what_is_as_asked_already_is_told_by_changed(client: Client, control: FakeControl) -> None:
    control.answers["UpdateApp"] = fake.ended("failed", "update", id="r-0")
    rollout = client.env_set("my-app", {"A": "1"})
    assert not rollout.changed
    rollout.wait()


def test_a_lost_controller_is_awaited_with_a_word_in_the_log(
    client: Client, control: FakeControl, caplog: pytest.LogCaptureFixture
) -> None:
    turns = iter([[fake.began("restart", steps_done=1)], [fake.ended("done")]])

    def watch(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        mine = next(turns)
        yield from mine
        if mine[0].rollout.steps_done == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the controller ends")

    control.answers["WatchRollout"] = watch
    with caplog.at_level(logging.WARNING, "fleetctl"):
        assert client.soft_restart("my-app").wait(timeout=30).state == "done"
    assert "the rollout does not depend on it, waiting for news" in caplog.text


def test_a_change_whose_answer_is_lost_is_asked_for_again_under_the_same_id(
    client: Client, control: FakeControl
) -> None:
    answers = iter([None, fake.began("stop")])

    def stop(_request: Any, context: grpc.ServicerContext) -> Any:
        answer = next(answers)
        if answer is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "no longer the leader")
        return answer

    control.answers["StopApp"] = stop
    client.stop("my-app")
    first, second = control.of(control_pb2.StopAppRequest)
    assert first.request_id == second.request_id


def test_a_controller_that_is_lost_is_awaited_by_looks_too(
    client: Client, controller: FakeController, start_controller: Callable[..., FakeController]
) -> None:
    """One that was never reached is not: an address may be wrong."""
    port = int(controller.address.rpartition(":")[2])
    assert client.info().controller == "c1"
    controller.close()
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(client.info)
        start_controller(FakeControl(), port)
        assert asking.result(20).controller == "c1"


def test_nobody_there_is_unreachable(client: Client, controller: FakeController, invoke: Fleetctl) -> None:
    controller.close()
    with pytest.raises(Unreachable) as raised:
        client.apps()
    assert invoke("ls").err == f"fleetctl: {raised.value}\n"


# Apps described in a program


def test_an_app_started_by_keywords_is_the_one_the_command_line_makes(
    fleetctl: Fleetctl, client: Client, control: FakeControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server.js").write_text("serve()")
    monkeypatch.chdir(tmp_path)
    words = ("--http", ":8080", "-e", "A=b", "--worker-env", "1:ROLE=first", "-i", "3", "--cron-restart", "0 3 * * *")
    assert fleetctl("start", "./server.js", "-n", "shop", *words, "--", "--fast").code == 0
    client.start(
        "shop",
        ["./server.js", "--fast"],
        http=":8080",
        env={"A": "b"},
        worker_env={1: {"ROLE": "first"}},
        size=3,
        cron_restart="0 3 * * *",
    )
    assert_same_twice(control)
    control.requests.clear()
    client.start("shop", "node server.js", cwd=tmp_path)
    (request,) = control.of(control_pb2.StartAppRequest)
    assert (request.spec.runtime, request.spec.argv[1], request.size) == (types_pb2.RUNTIME_NODE, "server.js", 0)


def assert_same_twice(control: FakeControl) -> None:
    first, second = _without_id(control.of(control_pb2.StartAppRequest), _changes)
    assert first == second


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda fleet: fleet.start("Bad_Name", ["sh"]), "name: app name 'Bad_Name' is not valid"),
        (
            lambda fleet: fleet.start("a", ["sh"], declared_port=70_000),
            "declared_port: must be a whole number <= 65535",
        ),
        (lambda fleet: fleet.start("a", ["sh"], env={"A": 1}), "env: must be text"),
        (lambda fleet: fleet.start("a", ["sh"], listen_mode="nowhere"), "listen_mode: Invalid enum value 'nowhere'"),
        (lambda fleet: fleet.start("a", ["sh", "\udcff"]), "argv: word 2 of the command is not UTF-8"),
        (
            lambda fleet: fleet.start("a", ["sh"], env={"A": "x" * 131_072}),
            "env: environment variable 'A' has 131074 bytes",
        ),
        (lambda fleet: fleet.start("a", ["sh"], http="here"), "route.http: address 'here' is not valid"),
        (
            lambda fleet: fleet.start(AppSpec("a", ("sh",), "/", declared_port=-1)),
            "declared_port: must be a whole number >= 0",
        ),
        (
            lambda fleet: fleet.update(msgspec.structs.replace(SPEC, stop=StopPolicy(grace_seconds=-1))),
            "stop.grace_seconds: must",
        ),
    ],
)
def test_a_spec_that_breaks_a_rule_is_refused_before_anybody_is_asked(
    client: Client, control: FakeControl, call: Call, complaint: str
) -> None:
    with pytest.raises(InvalidSpec) as raised:
        call(client)
    assert complaint in str(raised.value)
    assert control.requests == []


@pytest.mark.parametrize(
    ("call", "kind", "complaint"),
    [
        (lambda fleet: fleet.set_size("a", -1), UsageError, "to shrink, write the number of workers to keep"),
        (lambda fleet: fleet.set_size("a", "many"), UsageError, "size 'many' is not valid"),
        (lambda fleet: fleet.start("a", size=0), UsageError, "the size to start with is at least 1"),
        (lambda fleet: fleet.start("a", "sh -c 'oh"), UsageError, "cannot be split into words"),
        (lambda fleet: fleet.start("a", ["no-such-program"]), NotFound, "no command on PATH"),
        (lambda fleet: fleet.start(AppSpec("a", ("sh",), "/"), http=":1"), UsageError, "an AppSpec says everything"),
        (lambda fleet: fleet.restart("a", worker="b/h/1"), UsageError, "is not one of a"),
        (lambda fleet: fleet.restart("a", worker="a/h/0"), UsageError, "write APP/HOST/SLOT"),
        (lambda fleet: fleet.env_set("a", {"A": 1}), UsageError, "variable 'A': 1 is not valid: both are text"),
        (lambda fleet: fleet.label("h", {"A": 1}), UsageError, "label 'A': 1 is not valid"),
        (lambda fleet: fleet.rollback("a", -1), UsageError, "numbered from 1"),
        (lambda fleet: list(fleet.logs(since=-1)), UsageError, "since -1 is not valid"),
        (lambda fleet: fleet.apply("x.yaml", timeout=None), UsageError, "every wait has a deadline"),
        (lambda fleet: fleet.env_set("a", {}), UsageError, "say what to set"),
        (lambda fleet: fleet.env_unset("a", []), UsageError, "say what to take away"),
        (lambda fleet: fleet.label("h", {}), UsageError, "say what to label"),
        (lambda fleet: list(fleet.logs(lines=-1)), UsageError, "lines -1 is not valid"),
        (lambda fleet: next(fleet.samples(interval=0)), UsageError, "too short"),
        (lambda fleet: fleet.deploy("a", "/no/such/folder"), FleetError, "cannot be read"),
        (lambda fleet: fleet.deploy("a", ".", build="", no_build=False), UsageError, "build is empty"),
        (lambda fleet: fleet.diff("/no/such/file.yaml"), UsageError, "it cannot be read"),
        (lambda fleet: fleet.apply("x.yaml", prune=True, only="a"), UsageError, "prune"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line_before_anybody_is_asked(
    client: Client, control: FakeControl, call: Call, kind: type[FleetError], complaint: str
) -> None:
    with pytest.raises(kind) as raised:
        call(client)
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)
    assert control.requests == []


# Code and files


def test_deployed_code_is_what_the_command_sends(
    fleetctl: Fleetctl, client: Client, control: FakeControl, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "server.js").write_text("serve()")
    app = fake.app()
    app.spec.cwd, app.spec.argv[:] = str(code), ["/usr/bin/node", str(code / "server.js")]
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[app])
    words = ("--build", "make 'all of it'", "--run", "node 'a b.js'", "--build-timeout", "9s")
    assert fleetctl("deploy", "my-app", code, *words).code == 0
    client.deploy("my-app", code, build="make 'all of it'", run=["node", "a b.js"], build_timeout=9)
    first, second = _without_id(control.of(control_pb2.UpdateAppRequest), _changes)
    assert first == second
    assert list(second.spec.build.command) == ["make", "all of it"]
    with_options = ("-e", "A=b", "--http", ":8080", "--cwd", code / "sub", "-i", "3", "--", "node", "server.js")
    (code / "sub").mkdir()
    assert fleetctl("deploy", "my-app", code, *with_options).code == 0
    fields = {"env": {"A": "b"}, "http": ":8080", "cwd": code / "sub"}
    client.deploy("my-app", code, ["node", "server.js"], size=3, **fields)
    *_, first, second = _without_id(control.of(control_pb2.UpdateAppRequest), _changes)
    assert first == second
    assert (second.spec.cwd, second.spec.route.http, dict(second.spec.env)["A"]) == ("sub", ":8080", "b")
    for more in ({"size": 9}, {"hosts": "elsewhere"}):
        with pytest.raises(UsageError, match="changes that"):
            client.deploy("my-app", code, **more)


def test_an_app_begins_with_its_code_and_the_upload_says_how_far_it_is(
    fleetctl: Fleetctl, client: Client, control: FakeControl, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "server.js").write_text("serve()")
    (code / "weight").write_bytes(os.urandom(1_000_000))
    options = ("-i", "4", "--host", "host1", "-e", "A=b", "--http", ":8080", "--no-build")
    assert fleetctl("deploy", "shop", code, *options, "--", "server.js", "x").code == 0
    sent = dict(control.artifacts)
    control.artifacts.clear()
    told: list[tuple[int, int]] = []
    rollout = client.deploy(
        "shop",
        code,
        ["server.js", "x"],
        size=4,
        hosts="host1",
        env={"A": "b"},
        http=":8080",
        no_build=True,
        progress=lambda there, of: told.append((there, of)),
    )
    assert rollout.changed
    first, second = _without_id(control.of(control_pb2.StartAppRequest), _changes)
    assert first == second
    assert list(second.spec.argv) == ["node", "./server.js", "x"]
    assert control.artifacts == sent
    (content,) = sent.values()
    assert [of for _, of in told] == [len(content)] * len(told)
    assert [there for there, _ in told] == sorted(there for there, _ in told)
    assert told[-1][0] == len(content)
    with pytest.raises(NotFound, match="a new one needs a command to run in the code"):
        client.deploy("other", code)
    with pytest.raises(UsageError, match="argv and run say the same"):
        client.deploy("other", code, ["a"], run="b")


def test_a_backup_is_what_the_command_writes_and_puts_back(
    fleetctl: Fleetctl, client: Client, control: FakeControl, tmp_path: Path
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    told = json.loads(fleetctl("backup", theirs, "-o", "json").out)
    backup = client.backup(ours)
    assert {**told, "file": str(ours), "taken_at": backup.taken_at} == {
        name: value for name, value in json.loads(msgspec.json.encode(backup)).items() if name in told
    }
    assert (backup.apps, backup.hosts, ours.stat().st_mode & 0o777) == (1, 0, 0o600)

    control.answers["GetInfo"] = control_pb2.GetInfoResponse(controller="c1", epoch=types_pb2.Epoch(era=4))
    said = json.loads(fleetctl("restore", ours, "-y", "-o", "json").out)
    asked = control.of(control_pb2.RestoreRequest)
    control.requests.clear()
    restored = client.restore(ours)
    assert json.loads(msgspec.json.encode(restored)) == said == {"era": 4, "records": 1, "paused_apps": ["a"]}
    assert control.of(control_pb2.RestoreRequest) == asked
    client.restore(ours, another_fleet=True)
    assert any(request.allow_another_fleet for request in control.of(control_pb2.RestoreRequest))
    for broken in (tmp_path / "none", tmp_path):
        with pytest.raises(FleetError):
            client.restore(broken)
    with pytest.raises(FleetError, match="cannot be written"):
        client.backup(tmp_path / "no" / "such")


def test_a_file_sends_the_code_it_names(client: Client, control: FakeControl, tmp_path: Path) -> None:
    (tmp_path / "server.js").write_text("serve()")
    path = tmp_path / "fleet.yaml"
    path.write_text(json.dumps({"apps": {"shop": {"script": "server.js", "code": ".", "size": 2}}}))
    (difference,) = client.diff(path)
    assert [line.partition(":")[0] for line in difference.differences] == ["size", "code"]
    assert control.artifacts == {}
    control.answers["WatchRollout"] = [fake.ended("done", "start")]
    (applied,) = client.apply(path)
    assert applied.result == "created"
    (start,) = control.of(control_pb2.StartAppRequest)
    assert start.artifact_digest in control.artifacts


def _sleeper(name: str, size: int = 2, **fields: Any) -> control_pb2.App:
    spec = AppSpec(name, ("sleep", "9"), "/srv", listen_mode=ListenMode.NONE).to_proto()
    given = {"size": size, "ready": size, "placement": {"host1": size}, "spec": spec, **fields}
    return fake.app(name, **given)


def _file(folder: Path, **sizes: int) -> Path:
    path = folder / "fleet.yaml"
    apps = {name: {"command": "sleep 9", "cwd": "/srv", "listen": "none", "size": size} for name, size in sizes.items()}
    path.write_text(json.dumps({"apps": apps}))
    return path


def test_a_file_is_compared_and_exported_as_by_the_commands(
    fleetctl: Fleetctl, client: Client, control: FakeControl, tmp_path: Path
) -> None:
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[_sleeper("a"), _sleeper("b")])
    path = _file(tmp_path, a=2, b=5, c=1)
    told = json.loads(fleetctl("diff", "-f", path, "-o", "json").out)
    assert [json.loads(msgspec.json.encode(difference)) for difference in client.diff(path)] == [
        {**entry, "message": ""} for entry in told
    ]
    assert client.export() == fleetctl("export").out
    assert client.export("b") == fleetctl("export", "b").out
    with pytest.raises(NotFound, match="no app is named x"):
        client.export(["x"])


def test_apply_waits_for_each_app_and_says_what_became_of_it(
    client: Client, control: FakeControl, tmp_path: Path
) -> None:
    """Guards invariant 10."""
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[_sleeper("a"), _sleeper("b"), _sleeper("old")])
    applied = client.apply(_file(tmp_path, a=2, b=5, c=1), prune=True)
    assert [(app.app, app.result) for app in applied] == [
        ("a", "unchanged"),
        ("b", "changed"),
        ("c", "created"),
        ("old", "removed"),
    ]
    control.answers["WatchRollout"] = [fake.ended("failed", "set_size", message="no")]
    control.answers["StartApp"] = fake.ended("done", "start")
    with pytest.raises(ApplyFailed) as raised:
        client.apply(_file(tmp_path, b=5, c=1))
    assert [(app.app, app.result) for app in raised.value.apps] == [("b", "failed"), ("c", "created")]
    control.answers["WatchRollout"] = control.hold()
    with pytest.raises(ApplyFailed) as raised:
        client.apply(_file(tmp_path, b=5, c=1), timeout=0.3)
    assert [(app.app, app.result) for app in raised.value.apps] == [("b", "failed"), ("c", "not begun")]


# Drains and logs


def test_a_drain_is_waited_for_and_may_be_called_off(fleetctl: Fleetctl, client: Client, control: FakeControl) -> None:
    """Guards invariant 10."""
    left = control_pb2.WatchDrainResponse(host="host1", workers_left=1)
    control.answers["WatchDrain"] = [left, control_pb2.WatchDrainResponse(host="host1", drained=True)]
    assert [(step.state, step.workers_left) for step in client.drain("host1").events()] == [
        ("draining", 1),
        ("drained", 0),
    ]
    assert client.drain("host1").wait().state == "drained"

    control.answers["WatchDrain"] = control.hold(left)
    with pytest.raises(StillRunning, match="1 worker left on host1"):
        client.drain("host1").wait(timeout=1)

    def called_off(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield left
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "host1 is not being drained")

    control.answers["WatchDrain"] = called_off
    with pytest.raises(DrainFailed, match="was called off, by somebody's `host uncordon`, with 1 worker left there"):
        client.drain("host1").wait()


def _line(text: bytes) -> control_pb2.StreamLogsResponse:
    entry = control_pb2.LogEntry(app="my-app", host="host1", slot=1, stream="stdout", text=text)
    return control_pb2.StreamLogsResponse(entries=[entry, entry], unreachable_hosts=["host9"])


def test_leaving_the_loop_ends_the_stream_at_the_controller(client: Client, control: FakeControl) -> None:
    ended = threading.Event()

    def stream(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(ended.set)
        yield from control.hold(_line(b"a"))(_request, context)

    control.answers["StreamLogs"] = stream
    for line in client.logs("my-app", follow=True):
        assert (line.worker, line.text) == ("my-app/host1/1", "a")
        break
    assert ended.wait(10)


def test_following_silent_workers_outlives_a_controller(client: Client, control: FakeControl) -> None:
    """What was asked for at first is asked for again as long as nothing came; then only what is new."""
    turns = iter([[], [], [_line(b"a")], [_line(b"b")]])

    def stream(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from next(turns)
        context.abort(grpc.StatusCode.UNAVAILABLE, "the controller ends")

    control.answers["StreamLogs"] = stream
    lines = client.logs("my-app", follow=True, lines=7, timeout=60)
    assert [next(lines).text for _ in range(4)] == ["a", "a", "b", "b"]
    lines.close()
    assert [request.lines for request in control.of(control_pb2.StreamLogsRequest)][:4] == [7, 7, 7, 0]


def test_following_ends_quietly_at_its_deadline_and_reading_does_not(
    client: Client, control: FakeControl, caplog: pytest.LogCaptureFixture
) -> None:
    control.answers["StreamLogs"] = control.hold(_line(b"a"))
    with caplog.at_level(logging.WARNING, "fleetctl"):
        assert len(list(client.logs(follow=True, timeout=1))) == 2
    assert "1 host could not be asked: host9" in caplog.text
    with pytest.raises(StillRunning, match="did not send all lines"):
        list(client.logs(timeout=1))


# Threads, loops, ends


def test_many_threads_use_one_client(client: Client, control: FakeControl) -> None:
    control.answers["WatchRollout"] = [fake.began("restart", steps_done=1), fake.ended("done")]
    with ThreadPoolExecutor(16) as threads:
        done = list(threads.map(lambda _: client.soft_restart("my-app").wait(timeout=30).state, range(48)))
    assert done == ["done"] * 48
    assert len({request.request_id for request in control.of(control_pb2.RestartAppRequest)}) == 48


@pytest.mark.usefixtures("fleet")
async def test_both_clients_work_beside_a_running_loop_and_beside_each_other(fleetctl: Fleetctl) -> None:
    with Client() as blocking:
        async with AsyncClient() as fleet:
            awaited, blocked = await asyncio.gather(fleet.apps(), asyncio.to_thread(blocking.apps))
            assert awaited == blocked == blocking.apps()
            assert [line.text async for line in fleet.logs()] == [line.text for line in blocking.logs()] == ["café �"]


def test_ctrl_c_ends_the_wait_and_not_the_client(client: Client, control: FakeControl) -> None:
    main = threading.main_thread().ident
    watching = threading.Event()

    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        watching.set()
        yield from control.hold(fake.began("restart"))(request, context)

    def interrupt() -> None:
        assert watching.wait(10)
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)

    control.answers["WatchRollout"] = watch
    rollout = client.soft_restart("my-app")
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        rollout.wait(timeout=60)
    thread.join()
    control.answers["WatchRollout"] = [fake.ended("done")]
    assert rollout.wait().state == "done"


def test_closing_ends_what_other_threads_wait_for(fleetctl: Fleetctl, control: FakeControl) -> None:
    watching = threading.Event()

    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        watching.set()
        yield from control.hold(fake.began("restart"))(request, context)

    control.answers["WatchRollout"] = watch
    with Client() as fleet, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(fleet.soft_restart("my-app").wait, 60)
        assert watching.wait(10)
        fleet.close()
        with pytest.raises(RuntimeError, match="closed meanwhile"):
            waiting.result(10)
    with pytest.raises(RuntimeError, match="this client is closed"):
        fleet.apps()
    fleet.close()


async def test_a_closed_asynchronous_client_says_so(fleetctl: Fleetctl) -> None:
    async with AsyncClient() as fleet:
        await fleet.apps()
    with pytest.raises(RuntimeError, match="this client is closed"):
        await fleet.apps()


def test_an_asynchronous_client_belongs_to_one_loop(fleetctl: Fleetctl) -> None:
    fleet = AsyncClient()
    asyncio.run(fleet.apps())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(fleet.apps())


def test_a_client_that_is_dropped_ends_its_thread_and_is_complained_of(fleetctl: Fleetctl) -> None:
    fleet = Client()
    fleet.apps()
    lines = fleet.logs(follow=True)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "fleetctl-client")
    dropping = [fleet]
    del fleet
    with pytest.warns(ResourceWarning, match="unclosed Client"):
        dropping.clear()
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="this client is closed"):
        next(lines)


# Which fleet


def test_a_fleet_is_named_by_addresses_and_certificates_or_by_a_context(
    fleetctl: Fleetctl, controller: FakeController, operator_files: Any, tmp_path: Path
) -> None:
    for path, name in zip(
        (operator_files.authority, operator_files.certificate, operator_files.key), ("ca", "cert", "key"), strict=True
    ):
        (tmp_path / f"{name}.pem").write_bytes(path.read_bytes())
    for fleet in (
        Client([controller.address], certificates=tmp_path),
        Client(controller.address, certificates=str(tmp_path)),
        Client.from_context("test"),
        Client(controllers=f"127.0.0.1:1,{controller.address}"),
    ):
        with fleet:
            assert fleet.info().controller == "c1"


@pytest.mark.parametrize(
    ("arguments", "kind", "complaint"),
    [
        ({"controllers": "nowhere"}, UsageError, "'nowhere' is not HOST:PORT"),
        ({"certificates": "/x"}, UsageError, "name its controllers"),
        ({"controllers": "a:1", "certificates": "/x", "context": "test"}, UsageError, "exclude each other"),
        ({"controllers": "a:1", "certificates": "/x"}, Unreachable, "/x/ca.pem cannot be read"),
        ({"context": "other"}, Unreachable, "context 'other' is not in"),
        ({"call_timeout": 0}, UsageError, "call_timeout 0 is not valid"),
    ],
)
def test_a_fleet_that_cannot_be_named_is_told_at_once(
    fleetctl: Fleetctl, arguments: dict[str, Any], kind: type[FleetError], complaint: str
) -> None:
    for made in (Client, AsyncClient):
        with pytest.raises(kind, match=complaint):
            made(**arguments)


def test_a_call_has_a_deadline(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["ListApps"] = lambda _request, _context: time.sleep(1) or control_pb2.ListAppsResponse()
    with Client(call_timeout=0.3) as fleet, pytest.raises(Unreachable, match="did not answer in time"):
        fleet.apps()
