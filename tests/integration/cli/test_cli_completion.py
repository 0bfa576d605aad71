"""Names that a shell completes, as the controller knows them."""

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from click.shell_completion import BashComplete

from fleet.v1 import control_pb2, types_pb2
from fleetctl.main import cli
from tests.integration.cli import fake_control as fake
from tests.integration.cli.fake_control import FakeControl, FakeController


def completed(line: str) -> list[str]:
    *words, incomplete = line.split(" ")
    found = BashComplete(cli, {}, "fleetctl", "_FLEETCTL_COMPLETE").get_completions(words, incomplete)
    return [item.value for item in found if item.type == "plain"]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell waits for half a second, which a busy machine may need: what is completed is another question."""
    monkeypatch.setattr("fleetctl.names._PATIENCE_SECONDS", 20.0)


@pytest.fixture
def fleet(controller: FakeController, control: FakeControl, point_at: Callable[..., None]) -> FakeControl:
    point_at(controller.address)
    control.answers["ListApps"] = control_pb2.ListAppsResponse(apps=[fake.app("shop"), fake.app("api")])
    control.answers["ListHosts"] = control_pb2.ListHostsResponse(hosts=[fake.host("paris"), fake.host("oslo")])
    control.answers["ListWorkers"] = control_pb2.ListWorkersResponse(
        workers=[fake.worker("oslo", 1, "shop"), fake.worker("oslo", 1, "api")]
    )
    shown = fake.app("shop")
    shown.spec.env.update({"COLOUR": "blue", "CODE": "1", "DEPTH": "3"})
    control.answers["ListApps"].apps[0].CopyFrom(shown)
    control.answers["ListBalancers"] = control_pb2.ListBalancersResponse(balancers=[fake.balancer("lb1")])
    summaries = [
        control_pb2.RevisionSummary(revision=types_pb2.Revision(number=number), current=number == 3)
        for number in (1, 2, 3)
    ]
    control.answers["GetHistory"] = control_pb2.GetHistoryResponse(revisions=summaries)
    return control


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("status ", ["api", "shop"]),
        ("stop s", ["shop"]),
        ("rollout status a", ["api"]),
        ("start s", ["shop"]),
        ("set-size shop 4 --host ", ["oslo", "paris"]),
        ("logs --host p", ["paris"]),
        ("restart --worker ", ["api/oslo/1", "shop/oslo/1"]),
        ("logs shop --worker s", ["shop/oslo/1"]),
        ("--context t", ["test"]),
        ("env-get shop CO", ["CODE", "COLOUR"]),
        ("env-unset shop D", ["DEPTH"]),
        ("env-set shop D", ["DEPTH="]),
        ("env-set a", ["api"]),
        ("rollback shop ", ["1", "2"]),
        ("history s", ["shop"]),
        ("rollout promote s", ["shop"]),
        ("rollout a", ["abort"]),
        ("host drain p", ["paris"]),
        ("host label oslo ", ["zone-", "zone="]),
        ("balancer remove l", ["lb1"]),
        ("stop shop --ignore-balancer ", ["lb1"]),
        ("start ./a.js --ready-c", ["--ready-command"]),
    ],
)
@pytest.mark.usefixtures("fleet", "patient")
def test_names_are_completed(line: str, names: list[str]) -> None:
    assert completed(line) == names


@pytest.mark.usefixtures("patient")
def test_the_controller_named_on_the_line_is_asked(
    fleet: FakeControl, controller: FakeController, point_at: Callable[..., None]
) -> None:
    point_at("127.0.0.1:1")
    assert completed(f"-C {controller.address} status ") == ["api", "shop"]
    assert completed(f"status -C {controller.address} ") == ["api", "shop"]


def test_without_a_fleet_nothing_is_completed_and_nothing_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "none.toml"))
    assert completed("status ") == []
    (tmp_path / "none.toml").write_text("[")
    assert completed("--context ") == completed("status ") == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("trouble", ["refusing", "silent"])
def test_a_shell_does_not_wait_for_a_controller_in_trouble(
    fleet: FakeControl, trouble: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if trouble == "refusing":
        fleet.fail("ListApps", grpc.StatusCode.UNAVAILABLE, "does not lead", "")
    else:
        apps = control_pb2.ListAppsResponse(apps=[fake.app("shop")])

        def late(_request: object, _context: object) -> control_pb2.ListAppsResponse:
            fleet.released.wait(20)
            return apps

        fleet.answers["ListApps"] = late
    assert completed("status ") == []
    assert capfd.readouterr() == ("", "")
