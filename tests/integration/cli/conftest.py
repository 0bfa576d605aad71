"""A fake controller behind real gRPC and mutual TLS, and fleetctl pointed at it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet_core.authority import create_authority, issue
from fleet_core.contexts import Context, save_context
from fleet_core.tls import Identity, Role, TlsFiles
from fleetctl.main import run
from tests.integration.cli.fake_control import FakeControl, FakeController


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Fleetctl = Callable[..., Result]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    create_authority(folder)
    return folder


@pytest.fixture(scope="session")
def controller_files(authority: Path) -> TlsFiles:
    return issue(authority, Identity(Role.CONTROLLER, "c1"))


@pytest.fixture(scope="session")
def operator_files(authority: Path) -> TlsFiles:
    return issue(authority, Identity(Role.OPERATOR, "ada"))


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def start_controller(controller_files: TlsFiles) -> Iterator[Callable[..., FakeController]]:
    running: list[FakeController] = []

    def start(control: FakeControl, port: int | None = None) -> FakeController:
        running.append(FakeController(controller_files, control, port))
        return running[-1]

    yield start
    for controller in running:
        controller.close()


@pytest.fixture
def controller(start_controller: Callable[..., FakeController], control: FakeControl) -> FakeController:
    return start_controller(control)


@pytest.fixture
def point_at(operator_files: TlsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.delenv("NO_COLOR", raising=False)

    def point(*addresses: str, files: TlsFiles = operator_files) -> None:
        save_context("test", Context(addresses, files.authority, files.certificate, files.key), make_current=True)

    return point


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Fleetctl:
    """fleetctl in this process, without a terminal."""

    def invoked(*arguments: Any) -> Result:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return invoked


@pytest.fixture
def fleetctl(controller: FakeController, point_at: Callable[..., None], invoke: Fleetctl) -> Fleetctl:
    """fleetctl with a context that names the fake controller."""
    point_at(controller.address)
    return invoke
