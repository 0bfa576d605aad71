"""Cordoning, draining, labelling and forgetting hosts; forgetting balancers. Guards invariant 10."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from fleet.v1 import control_pb2
from tests.integration.cli import fake_control as fake
from tests.integration.cli.conftest import Fleetctl
from tests.integration.cli.fake_control import FakeControl


@pytest.fixture
def fleet(control: FakeControl) -> FakeControl:
    """host1 runs two workers of a floating app and one of a pinned one; a stopped app is pinned to it as well."""
    control.answers["ListHosts"] = control_pb2.ListHostsResponse(hosts=[fake.host("host1"), fake.host("host2")])
    control.answers["ListApps"] = control_pb2.ListAppsResponse(
        apps=[
            fake.app("web", placement={"host1": 2, "host2": 1}),
            fake.app("db", size_mode=control_pb2.SIZE_MODE_PINNED, placement={"host1": 1}),
            fake.app(
                "old",
                state=control_pb2.APP_STATE_STOPPED,
                size_mode=control_pb2.SIZE_MODE_PINNED,
                placement={"host1": 1},
            ),
            fake.app("elsewhere", placement={"host2": 1}),
        ]
    )
    control.answers["ListWorkers"] = control_pb2.ListWorkersResponse(
        workers=[
            fake.worker("host1", 1, "web"),
            fake.worker("host1", 2, "web"),
            fake.worker("host1", 1, "db"),
            fake.worker("host2", 1, "elsewhere"),
        ]
    )
    return control


def draining(*apps: tuple[str, int, str], message: str = "") -> control_pb2.WatchDrainResponse:
    left = [control_pb2.AppDrain(app=app, workers_left=number, doing=doing) for app, number, doing in apps]
    return control_pb2.WatchDrainResponse(
        host="host1", workers_left=sum(app.workers_left for app in left), apps=left, drained=not apps, message=message
    )


def test_a_drain_shows_its_plan_and_is_done_once_nothing_is_left(fleetctl: Fleetctl, fleet: FakeControl) -> None:
    """Guards invariant 10."""
    fleet.answers["WatchDrain"] = [
        draining(("db", 1, ""), ("web", 2, "starting 3")),
        draining(("web", 1, "draining 1")),
        draining(),
    ]
    result = fleetctl("host", "drain", "host1", "--yes")
    assert result.code == 0, result.err
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines[:-1] == [
        "APP WORKERS WHAT BECOMES OF THEM",
        "db 1 stop until it is uncordoned: pinned to host1",
        "web 2 move to other hosts",
        "db: 1 left",
        "web: 2 left, starting 3",
        "web: 1 left, draining 1",
        "db: none left",
        "web: none left",
    ]
    assert lines[-1].startswith("host1 drained: no worker is left there, after ")
    assert lines[-1].endswith("it takes nothing new until `fleetctl host uncordon host1`")
    (request,) = fleet.of(control_pb2.DrainHostRequest)
    assert (request.host, request.allow_stopping_pinned) == ("host1", True)


def test_a_drain_that_stops_pinned_workers_needs_yes(fleetctl: Fleetctl, fleet: FakeControl) -> None:
    result = fleetctl("host", "drain", "host1")
    assert result.code == 5
    assert "This stops 1 worker of db, pinned to host1" in result.err
    assert "--yes" in result.err
    assert fleet.of(control_pb2.DrainHostRequest) == []


def test_a_drain_that_loses_nothing_does_not_ask(fleetctl: Fleetctl, fleet: FakeControl) -> None:
    assert fleetctl("host", "drain", "host2").code == 0
    (request,) = fleet.of(control_pb2.DrainHostRequest)
    assert not request.allow_stopping_pinned


def test_a_drain_under_way_is_followed_without_asking_again(fleetctl: Fleetctl, fleet: FakeControl) -> None:
    host = fake.host("host1", scheduling=control_pb2.HOST_SCHEDULING_DRAINING)
    fleet.answers["ListHosts"] = control_pb2.ListHostsResponse(hosts=[host])
    assert fleetctl("host", "drain", "host1").code == 0
    assert fleet.of(control_pb2.DrainHostRequest)[0].allow_stopping_pinned


def test_a_drain_may_be_left_to_itself(fleetctl: Fleetctl, fleet: FakeControl) -> None:
    result = fleetctl("host", "drain", "host1", "-y", "--no-wait")
    assert result.code == 0
    assert "`fleetctl host drain host1` follows it again" in result.out
    document = json.loads(fleetctl("host", "drain", "host1", "-y", "--no-wait", "-o", "json").out)
    assert {"host": "host1", "state": "draining", "workers_left": 3}.items() <= document.items()
    assert fleet.of(control_pb2.WatchDrainRequest) == []


def test_a_drain_for_programs_ends_with_one_object(fleetctl: Fleetctl, fleet: FakeControl) -> None:
    result = fleetctl("host", "drain", "host1", "-y", "-o", "json")
    document = json.loads(result.out)
    assert {"host": "host1", "state": "drained", "workers_left": 0, "apps": []}.items() <= document.items()
    assert document["seconds"] >= 0
    assert result.err == ""
    assert fleetctl("host", "drain", "host1", "-y", "-q").out == ""


def test_a_drain_that_outlasts_the_timeout_exits_6(fleetctl: Fleetctl, fleet: FakeControl) -> None:
    away = "host host1 is not connected: its workers may well be running"
    fleet.answers["WatchDrain"] = fleet.hold(draining(("web", 2, ""), message=away))
    result = fleetctl("host", "drain", "host1", "-y", "--timeout", "1s")
    assert result.code == 6
    assert f"2 workers left on host1 after 1s ({away}); the drain goes on" in result.err


def test_a_drain_that_is_called_off_fails(fleetctl: Fleetctl, fleet: FakeControl) -> None:
    def watch(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield draining(("web", 2, "starting 3"))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "host host1 is not being drained")

    fleet.answers["WatchDrain"] = watch
    result = fleetctl("host", "drain", "host1", "-y")
    assert result.code == 1
    assert "called off" in result.err
    assert "2 workers left" in result.err


def test_a_drain_outlives_its_controller(fleetctl: Fleetctl, fleet: FakeControl) -> None:
    answers = iter(["gone", "back"])

    def watch(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if next(answers) == "gone":
            yield draining(("web", 2, ""))
            context.abort(grpc.StatusCode.UNAVAILABLE, "c1 does not lead any more")
        yield draining()

    fleet.answers["WatchDrain"] = watch
    result = fleetctl("host", "drain", "host1", "-y")
    assert result.code == 0, result.err
    assert "the drain does not depend on it" in result.out
    assert len(fleet.of(control_pb2.DrainHostRequest)) == 1


def test_an_unknown_host_is_not_drained(fleetctl: Fleetctl, fleet: FakeControl) -> None:
    result = fleetctl("host", "drain", "host9")
    assert (result.code, result.err.splitlines()[0]) == (4, "fleetctl: no host is named host9")
    assert fleet.of(control_pb2.DrainHostRequest) == []


def test_a_host_is_cordoned_and_opened(fleetctl: Fleetctl, control: FakeControl) -> None:
    assert fleetctl("host", "cordon", "host1").out == (
        "host1 cordoned: its 2 workers run on; `fleetctl host uncordon host1` opens it again\n"
    )
    assert fleetctl("host", "uncordon", "host1").out == "host1 open: it takes new workers again\n"
    assert [request.cordoned for request in control.of(control_pb2.CordonHostRequest)] == [True, False]
    assert json.loads(fleetctl("host", "cordon", "host1", "-o", "json").out)["scheduling"] == "cordoned"


def test_opening_a_host_names_the_apps_that_could_be_spread_over_it_again_and_how(
    fleetctl: Fleetctl, control: FakeControl
) -> None:
    """What a drain moved away stays where it is."""
    elsewhere = {"host2": 3, "host3": 3}
    labelled = fake.app("labelled", placement=elsewhere, size=6)
    labelled.spec.placement.labels["disk"] = "fast"
    control.answers["ListApps"] = control_pb2.ListAppsResponse(
        apps=[
            fake.app("web", placement=elsewhere, size=6),
            fake.app("even", placement={"host1": 2, "host2": 3, "host3": 3}, size=8),
            fake.app("pinned", placement=elsewhere, size=6, size_mode=control_pb2.SIZE_MODE_PINNED),
            fake.app("stopped", placement=elsewhere, size=6, state=control_pb2.APP_STATE_STOPPED),
            labelled,
        ]
    )
    assert fleetctl("host", "uncordon", "host1").out.splitlines() == [
        "host1 open: it takes new workers again",
        "  web would be more even: `fleetctl set-size web 6` spreads it again",
    ]


def test_a_host_that_is_being_drained_stays_so_when_cordoned(fleetctl: Fleetctl, control: FakeControl) -> None:
    host = fake.host("host1", scheduling=control_pb2.HOST_SCHEDULING_DRAINING)
    control.answers["CordonHost"] = control_pb2.HostResponse(host=host)
    assert "is being drained" in fleetctl("host", "cordon", "host1").out


def test_labels_are_set_and_taken_away(fleetctl: Fleetctl, control: FakeControl) -> None:
    assert fleetctl("host", "label", "host1", "zone=a", "disk-").out == "host1 is labelled zone=a\n"
    (request,) = control.of(control_pb2.LabelHostRequest)
    assert (request.host, dict(request.set), list(request.unset)) == ("host1", {"zone": "a"}, ["disk"])
    assert fleetctl("host", "label", "host1", "zone-").out == "host1 has no labels\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("host", "label", "host1"), "KEY=VALUE|KEY-"),
        (("host", "label", "host1", "zone"), "neither KEY=VALUE nor KEY-"),
        (("host", "label", "host1", "zone="), "neither KEY=VALUE nor KEY-"),
        (("host", "label", "host1", "zone=a", "zone-"), "zone: set it or take it away"),
        (("host", "drain"), "HOST"),
    ],
)
def test_bad_input_changes_nothing(
    fleetctl: Fleetctl, control: FakeControl, arguments: tuple[str, ...], complaint: str
) -> None:
    result = fleetctl(*arguments)
    assert result.code == 2
    assert complaint in result.err.splitlines()[0]
    assert control.requests == []


@pytest.mark.parametrize("kind", ["host", "balancer"])
def test_what_is_forgotten_is_asked_about(fleetctl: Fleetctl, control: FakeControl, kind: str) -> None:
    refused = fleetctl(kind, "remove", "x1")
    assert refused.code == 5
    assert control.requests == []
    assert fleetctl(kind, "remove", "x1", "-y").out.startswith("x1 removed")
    assert json.loads(fleetctl(kind, "remove", "x1", "-y", "-o", "json").out) == {kind: "x1", "state": "removed"}
    control.fail(f"Remove{kind.title()}", grpc.StatusCode.FAILED_PRECONDITION, f"{kind} x1 is connected")
    assert fleetctl(kind, "remove", "x1", "-y").code == 5


def test_how_long_hosts_and_balancers_are_away_is_shown(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["ListHosts"] = control_pb2.ListHostsResponse(
        hosts=[
            fake.host("host1", scheduling=control_pb2.HOST_SCHEDULING_DRAINING, workers=0),
            fake.host("host2", state=control_pb2.HOST_STATE_UNKNOWN, unheard_seconds=192.4),
        ]
    )
    lines = [" ".join(line.split()) for line in fleetctl("host", "ls").out.splitlines()]
    assert lines[0].startswith("HOST STATE SCHEDULING CPUS WORKERS")
    assert lines[1].startswith("host1 online drained 2 0")
    assert lines[2].startswith("host2 unknown for 3m12s open")
    document = json.loads(fleetctl("host", "ls", "-o", "json").out)
    assert [(host["scheduling"], host["unheard_seconds"]) for host in document] == [("drained", 0.0), ("open", 192.4)]
    away = fake.balancer("lb2", connected=False, absent_seconds=65)
    control.answers["ListBalancers"] = control_pb2.ListBalancersResponse(balancers=[fake.balancer(), away])
    lines = [" ".join(line.split()) for line in fleetctl("balancer", "ls").out.splitlines()]
    assert lines[1].startswith("lb1 connected 1/1")
    assert lines[2].startswith("lb2 away for 1m05s")
    assert json.loads(fleetctl("balancer", "ls", "-o", "json").out)[1]["absent_seconds"] == 65.0
    assert "fleetctl balancer remove lb2" in fleetctl("status").out
