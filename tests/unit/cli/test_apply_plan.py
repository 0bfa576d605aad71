"""What `apply` asks of the controller, and in which order."""

from typing import Any

import pytest

from fleet.v1 import control_pb2
from fleet_controller.mutations.revisions import POLICIES_OUTSIDE_A_WORKER
from fleet_core.spec import AppSpec
from fleetctl import apply_plan
from fleetctl.apply_plan import Impossible, Plan, Verdict, plan_app
from fleetctl.fleet_file.document import WantedApp
from fleetctl.fleet_file.size import PerCore, Wanted

PINNED, FLOATING = control_pb2.SIZE_MODE_PINNED, control_pb2.SIZE_MODE_FLOATING


def spec(**fields: Any) -> AppSpec:
    return AppSpec.model_validate({"name": "shop", "argv": ("node", "a.js"), "cwd": "/srv", **fields})


def app(at: dict[str, int], mode: Any = FLOATING, state: str = "RUNNING", **fields: Any) -> control_pb2.App:
    return control_pb2.App(
        name="shop",
        state=control_pb2.AppState.Value(f"APP_STATE_{state}"),
        revision=7,
        size_mode=mode,
        size=sum(at.values()),
        placement=at,
        spec=spec(**fields).to_proto(),
    )


def host(name: str, cpus: int = 4, **fields: Any) -> control_pb2.Host:
    return control_pb2.Host(name=name, cpus=cpus, **{"state": control_pb2.HOST_STATE_ONLINE, **fields})


HOSTS = [host("a"), host("b", 2), host("c", 8, state=control_pb2.HOST_STATE_UNKNOWN)]


def planned(size: Wanted, present: control_pb2.App | None, **fields: Any) -> Plan:
    return plan_app(WantedApp(spec(**fields), size), present, HOSTS)


def asked(plan: Plan) -> list[str]:
    lines = []
    for request in plan.requests:
        if isinstance(request, control_pb2.StartAppRequest):
            lines.append(f"start {request.size} on {','.join(request.hosts) or 'any'}")
        elif isinstance(request, control_pb2.UpdateAppRequest):
            lines.append(f"update {request.expected_revision}")
        else:
            assert request.allow_shrinking_others
            lines.append(f"size {request.host or 'all'} {request.change.absolute}")
    return lines


@pytest.mark.parametrize(
    ("size", "requests"),
    [
        (Wanted(), ["start 0 on any"]),
        (Wanted(3), ["start 3 on any"]),
        (Wanted(PerCore()), ["start 6 on any"]),
        (Wanted(PerCore(3)), ["start 2 on any"]),
        (Wanted(hosts={"a": 2, "b": 2, "c": 0}), ["start 4 on a,b"]),
        (Wanted(hosts={"a": 1, "b": 3, "c": 3}), ["start 6 on b,c", "size a 1"]),
        (Wanted(5, spread_over=("a", "b")), ["start 2 on b", "size a 3"]),
        (Wanted(PerCore(1), spread_over=("a", "c")), ["start 3 on a", "size c 7"]),
    ],
)
def test_a_new_app_is_started_where_the_file_wants_it(size: Wanted, requests: list[str]) -> None:
    plan = planned(size, None)
    assert (plan.verdict, asked(plan)) == (Verdict.CREATE, requests)


@pytest.mark.parametrize(
    ("size", "present"),
    [
        (Wanted(), app({"a": 3})),
        (Wanted(3), app({"a": 2, "b": 1, "c": 0})),
        (Wanted(PerCore()), app({"a": 3, "b": 3})),
        (Wanted(hosts={"a": 2, "b": 0}), app({"a": 2, "c": 0}, PINNED)),
        (Wanted(3, spread_over=("a", "b")), app({"a": 2, "b": 1}, PINNED)),
        (Wanted(0), app({}, PINNED)),
    ],
)
def test_what_is_as_the_file_says_is_left_alone(size: Wanted, present: control_pb2.App) -> None:
    assert planned(size, present) == Plan("shop", Verdict.SAME)


@pytest.mark.parametrize(
    ("size", "present", "requests"),
    [
        (Wanted(5), app({"a": 3}), ["size all 5"]),
        (Wanted(3), app({"a": 3}, PINNED), ["size all 3"]),
        (Wanted(hosts={"a": 1, "b": 4}), app({"a": 3, "b": 1, "c": 2}, PINNED), ["size b 4", "size a 1", "size c 0"]),
        (Wanted(hosts={"a": 3}), app({"a": 3}), ["size a 3"]),
    ],
)
def test_a_size_that_differs_is_changed_and_what_grows_grows_first(
    size: Wanted, present: control_pb2.App, requests: list[str]
) -> None:
    plan = planned(size, present)
    assert (plan.verdict, asked(plan), plan.replaces_workers) == (Verdict.CHANGE, requests, False)
    assert plan.differences[0].startswith("size: ")


def test_a_spec_that_differs_is_updated_from_the_revision_that_was_seen_then_the_size() -> None:
    plan = planned(Wanted(4), app({"a": 3}), env={"A": "secret"}, ready={"start_timeout_seconds": 60})
    assert asked(plan) == ["update 7", "size all 4"]
    assert plan.replaces_workers
    assert plan.differences == ("env.A: set", "ready.start_timeout: 30s → 1m", "size: 3 → 4")


def test_what_differs_is_told_in_the_words_of_the_file() -> None:
    present = app({"a": 1}, env={"A": "1", "B": "2"}, placement={"labels": {"zone": "a"}}, log={"json_lines": True})
    wanted = {"env": {"A": "3", "C": "4"}, "route": {"http": ":80"}, "restart": {"stop_exit_codes": (3, 4)}}
    assert planned(Wanted(), present, argv=("node", "b.js"), **wanted).differences == (
        "command: node a.js → node b.js",
        "env.A: changed",
        "env.B: unset",
        "env.C: set",
        "restart.stop_exit_codes: none → 3 4",
        "route.http: none → :80",
        "log.json: true → false",
        "placement.labels.zone: a → unset",
    )


def test_a_change_outside_the_workers_replaces_none() -> None:
    assert apply_plan.POLICIES_OUTSIDE_A_WORKER == POLICIES_OUTSIDE_A_WORKER
    assert not planned(Wanted(), app({"a": 1}), route={"http": ":80"}).replaces_workers
    assert planned(Wanted(), app({"a": 1}), log={"timestamps": True}).replaces_workers


def test_a_stopped_app_is_started_again_with_what_the_file_says() -> None:
    stopped = app({"a": 3}, state="STOPPED")
    assert planned(Wanted(3), stopped).verdict is Verdict.START
    assert asked(planned(Wanted(), stopped)) == ["start 0 on any"]
    assert asked(planned(Wanted(5), stopped, env={"A": "1"})) == ["update 7", "start 5 on any"]
    assert not planned(Wanted(5), stopped, env={"A": "1"}).replaces_workers
    assert asked(planned(Wanted(0), stopped)) == ["size all 0"]


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(Impossible, match="it is being removed"):
        planned(Wanted(1), app({"a": 1}, state="REMOVING"))
    with pytest.raises(Impossible, match="at least one worker"):
        planned(Wanted(0), None)
    with pytest.raises(Impossible, match="no host is named z"):
        planned(Wanted(PerCore(), spread_over=("z",)), None)
    with pytest.raises(Impossible, match="no host that would take it is online"):
        planned(Wanted(PerCore()), None, placement={"labels": {"zone": "a"}})


def test_deployed_code_keeps_its_command_and_folder_under_a_file_that_names_the_machines_paths() -> None:
    size = Wanted(2)
    deployed = {"argv": ("node", "./a.js"), "cwd": "."}
    for argv in (("node", "a.js"), ("node", "/srv/a.js"), ("node", "./a.js")):
        assert planned(size, app({"a": 2}, **deployed), argv=argv).verdict is Verdict.SAME
    changed = planned(size, app({"a": 2}, **deployed), env={"COLOUR": "red"})
    assert changed.differences == ("env.COLOUR: set",)
    (request,) = changed.requests
    assert isinstance(request, control_pb2.UpdateAppRequest)
    assert (list(request.spec.argv), request.spec.cwd) == (["node", "./a.js"], ".")
    with pytest.raises(Impossible, match="fleetctl deploy shop --run"):
        planned(size, app({"a": 2}, **deployed), argv=("node", "b.js"))


OLD, NEW = "0f" * 32, "1a" * 32


def deployed(digest: str = OLD, **fields: Any) -> control_pb2.App:
    present = app({"a": 2}, cwd=".", **fields)
    present.artifact_digest = digest
    return present


def with_code(present: control_pb2.App | None, digest: str, size: Wanted | None = None, **fields: Any) -> Plan:
    return plan_app(WantedApp(spec(cwd=".", **fields), size or Wanted(2)), present, HOSTS, digest)


def test_a_new_app_begins_with_its_code() -> None:
    """It is one request: nothing is ever started without the code."""
    plan = with_code(None, NEW, Wanted(hosts={"a": 2, "b": 1, "c": 2}))
    assert plan.differences == ("size: none → a:2 b:1 c:2", "code: none → sha256:1a1a1a1a1a1a")
    start = plan.requests[0]
    assert isinstance(start, control_pb2.StartAppRequest)
    assert start.artifact_digest == NEW
    assert asked(plan) == ["start 4 on a,c", "size b 1"]


def test_other_code_is_a_difference_and_replaces_workers() -> None:
    plan = with_code(deployed(), NEW, env={"A": "b"})
    assert plan.differences == ("code: sha256:0f0f0f0f0f0f → sha256:1a1a1a1a1a1a", "env.A: set")
    assert plan.replaces_workers
    (update,) = plan.requests
    assert isinstance(update, control_pb2.UpdateAppRequest)
    assert (update.artifact_digest, update.spec.cwd, update.expected_revision) == (NEW, ".", 7)


def test_the_same_code_changes_nothing() -> None:
    assert with_code(deployed(), OLD).verdict is Verdict.SAME


def test_an_app_that_lay_on_the_hosts_is_given_code_of_its_own() -> None:
    plan = with_code(app({"a": 2}, argv=("node", "/srv/a.js")), NEW)
    assert plan.differences == (
        "code: none → sha256:1a1a1a1a1a1a",
        "command: node /srv/a.js → node a.js",
        "cwd: /srv → .",
    )


def test_a_stopped_app_gets_its_code_before_it_is_started() -> None:
    plan = with_code(deployed(state="STOPPED"), NEW)
    assert asked(plan) == ["update 7", "start 2 on any"]
    assert not plan.replaces_workers


def test_a_file_without_code_leaves_an_apps_code_alone() -> None:
    plan = plan_app(WantedApp(spec(cwd="/home/me", argv=("node", "/home/me/a.js")), Wanted(2)), deployed(), HOSTS)
    assert plan.verdict is Verdict.SAME
