"""Which controller is asked, and how a failure to reach or convince one is told."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from fleet.v1 import control_pb2
from fleet_core.authority import create_authority, issue
from fleet_core.tls import Identity, Role, TlsFiles
from tests.integration.cli import fake_control as fake
from tests.integration.cli.conftest import Fleetctl
from tests.integration.cli.fake_control import FakeControl, FakeController


@pytest.fixture
def closed_address() -> Iterator[str]:
    """Bound, but nobody listens: connections are refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def strangers(tmp_path: Path) -> TlsFiles:
    create_authority(tmp_path / "other")
    return issue(tmp_path / "other", Identity(Role.OPERATOR, "eve"))


def test_the_leader_a_follower_names_is_asked(
    start_controller: Callable[..., FakeController], point_at: Callable[..., None], invoke: Fleetctl
) -> None:
    leading, following = FakeControl(), FakeControl()
    leader = start_controller(leading)
    follower = start_controller(following)
    following.fail("RestartApp", grpc.StatusCode.UNAVAILABLE, "not the leader", leader.address)
    point_at(follower.address)
    assert invoke("soft-restart", "my-app").code == 0
    (asked,), (refused,) = leading.of(control_pb2.RestartAppRequest), following.of(control_pb2.RestartAppRequest)
    assert asked.request_id == refused.request_id
    assert following.of(control_pb2.GetRolloutRequest) == []


def test_a_controller_that_is_down_is_passed_over(
    controller: FakeController, point_at: Callable[..., None], invoke: Fleetctl, closed_address: str
) -> None:
    point_at(closed_address, controller.address)
    assert invoke("ls").code == 0
    assert invoke("soft-restart", "my-app").code == 0


def test_an_election_is_waited_for(fleetctl: Fleetctl, control: FakeControl) -> None:
    refusals = iter(range(2))

    def elect(_request: object, context: grpc.ServicerContext) -> control_pb2.ListAppsResponse:
        if next(refusals, None) is not None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "c1 does not lead, and knows no leader at present")
        return control_pb2.ListAppsResponse(apps=[fake.app()])

    control.answers["ListApps"] = elect
    assert fleetctl("ls", "-q").out == "my-app\n"


def test_a_fleet_without_a_leader_is_unreachable(
    fleetctl: Fleetctl, control: FakeControl, controller: FakeController
) -> None:
    control.fail("ListApps", grpc.StatusCode.UNAVAILABLE, "c1 does not lead")
    result = fleetctl("ls", "--timeout", "2s")
    assert result.code == 3
    assert f"no controller leads at present: {controller.address} (c1 does not lead)" in result.err


def test_no_controller_is_one_line_with_every_address_and_what_to_do(
    point_at: Callable[..., None], invoke: Fleetctl, closed_address: str
) -> None:
    point_at(closed_address, "localhost:1")
    result = invoke("ls")
    assert result.code == 3
    assert result.err.count("\n") == 1
    assert f"{closed_address} (connection refused), localhost:1 (connection refused)" in result.err
    assert "fleetctl up" in result.err


def test_a_mutation_without_a_controller_exits_3(
    point_at: Callable[..., None], invoke: Fleetctl, closed_address: str
) -> None:
    point_at(closed_address)
    assert invoke("stop", "my-app", "--timeout", "500ms").code == 3


def test_an_address_on_the_command_line_keeps_the_certificates(
    controller: FakeController, point_at: Callable[..., None], invoke: Fleetctl, closed_address: str
) -> None:
    point_at(closed_address)
    assert invoke("ls", "-C", controller.address).code == 0
    assert invoke("-C", f"{closed_address},{controller.address}", "ls").code == 0


def test_another_fleets_controller_is_not_trusted(
    controller: FakeController,
    control: FakeControl,
    point_at: Callable[..., None],
    invoke: Fleetctl,
    strangers: TlsFiles,
) -> None:
    point_at(controller.address, files=strangers)
    result = invoke("ls")
    assert result.code == 3
    assert "another fleet's" in result.err
    assert control.requests == []


def test_a_controller_does_not_trust_another_fleets_operator(
    controller: FakeController,
    control: FakeControl,
    point_at: Callable[..., None],
    invoke: Fleetctl,
    operator_files: TlsFiles,
    strangers: TlsFiles,
) -> None:
    point_at(controller.address, files=TlsFiles(operator_files.authority, strangers.certificate, strangers.key))
    result = invoke("ls")
    assert result.code == 3
    assert "may not accept your certificate" in result.err
    assert control.requests == []


def test_a_peer_that_stays_silent_is_given_up(point_at: Callable[..., None], invoke: Fleetctl) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        point_at(f"127.0.0.1:{silent.getsockname()[1]}")
        result = invoke("ls", "--timeout", "500ms")
    assert result.code == 3
    assert "no answer" in result.err


def test_a_call_has_a_deadline(fleetctl: Fleetctl, control: FakeControl) -> None:
    control.answers["ListApps"] = lambda *_: control.released.wait(10)
    result = fleetctl("ls", "--timeout", "1s")
    assert result.code == 3
    assert "did not answer in time" in result.err


def test_certificates_that_are_gone_are_named(
    controller: FakeController, point_at: Callable[..., None], invoke: Fleetctl, tmp_path: Path
) -> None:
    point_at(controller.address, files=TlsFiles(tmp_path / "ca.pem", tmp_path / "me.pem", tmp_path / "me.key"))
    result = invoke("ls")
    assert result.code == 3
    assert f"{tmp_path / 'ca.pem'} cannot be read" in result.err


def test_without_a_context_the_first_step_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, invoke: Fleetctl
) -> None:
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "none.toml"))
    result = invoke("ls")
    assert result.code == 3
    assert "fleetctl up" in result.err
    assert invoke("ls", "--context", "prod").code == 3


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 2),
        (grpc.StatusCode.NOT_FOUND, 4),
        (grpc.StatusCode.ALREADY_EXISTS, 5),
        (grpc.StatusCode.FAILED_PRECONDITION, 5),
        (grpc.StatusCode.ABORTED, 5),
        (grpc.StatusCode.PERMISSION_DENIED, 5),
        (grpc.StatusCode.INTERNAL, 1),
    ],
)
def test_the_controllers_refusals_keep_their_words_and_have_their_codes(
    fleetctl: Fleetctl, control: FakeControl, status: grpc.StatusCode, code: int
) -> None:
    control.fail("StopApp", status, "this is why")
    result = fleetctl("stop", "my-app")
    assert result.code == code
    assert result.err.splitlines()[0] == "fleetctl: this is why"


def test_an_unexpected_error_is_one_line_unless_debugging(fleetctl: Fleetctl, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("boom\nbang")

    monkeypatch.setattr("fleetctl.views.app_view", explode)
    monkeypatch.setattr("fleetctl.listing.asyncio.run", lambda coroutine: [coroutine.close(), fake.app()][1:])
    result = fleetctl("ls", "-o", "json")
    assert result.code == 1
    assert result.err.splitlines()[0] == "fleetctl: internal error: RuntimeError: boom bang"
    assert "FLEET_DEBUG=1" in result.err
    monkeypatch.setenv("FLEET_DEBUG", "1")
    with pytest.raises(RuntimeError, match="boom"):
        fleetctl("ls", "-o", "json")


@pytest.mark.parametrize(
    "words",
    [
        ("status", "\udcff"),
        ("logs", "\udcff"),
        ("env-set", "my-app", "A=\udcff"),
        ("host", "label", "h", "a=\udcff"),
        ("-C", "\udcff:1", "ls"),
        ("start", "sh", "-n", "x", "-e", "A=\udcff"),
        ("start", "sh", "-n", "x", "--", "\udcff"),
    ],
)
def test_bytes_that_are_not_utf8_are_a_mistake_of_usage(fleetctl: Fleetctl, words: tuple[str, ...]) -> None:
    """So Python hands them on (PEP 383)."""
    result = fleetctl(*words)
    assert result.code == 2
    assert "is not UTF-8" in result.err
    assert len(result.err.splitlines()) == 1
