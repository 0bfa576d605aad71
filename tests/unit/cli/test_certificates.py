"""`fleet-controller init`, `fleetctl cert issue` and `cert use`: files only, no controller."""

from pathlib import Path

import pytest

from fleet_controller.main import main as fleet_controller
from fleet_core.contexts import load_contexts
from fleet_core.install.certificates import files_in, read_bundle
from fleet_core.tls import Role
from fleetctl.main import run


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config" / "config.toml"
    monkeypatch.setenv("FLEET_CONFIG", str(path))
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def authority(tmp_path: Path, config: Path) -> Path:
    folder = tmp_path / "authority"
    arguments = ["--controllers", "10.0.0.1:7400", "--authority", str(folder), "--operator", "ada"]
    assert fleet_controller(["init", *arguments]) == 0
    return folder


def test_init_makes_an_authority_and_an_operator_and_keeps_the_authority_when_repeated(authority: Path) -> None:
    assert (authority / "ca.key").stat().st_mode & 0o777 == 0o600
    first = (authority / "ca.pem").read_bytes()
    name, context = load_contexts().choose(None)
    assert (name, context.controllers) == ("default", ("10.0.0.1:7400",))
    assert read_bundle(context.key.parent, Role.OPERATOR).identity.name == "ada"
    again = ["--controllers", "10.0.0.1:7400,10.0.0.2:7400", "--authority", str(authority), "--operator", "ada"]
    assert fleet_controller(["init", *again]) == 0
    assert (authority / "ca.pem").read_bytes() == first
    assert load_contexts().choose(None)[1].controllers == ("10.0.0.1:7400", "10.0.0.2:7400")


def test_an_issued_folder_holds_what_an_install_takes(
    authority: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cert", "issue", "agent", "web1", "--authority", str(authority)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "agent-web1"
    assert read_bundle(tmp_path / "agent-web1", Role.AGENT).identity.name == "web1"
    assert files_in(tmp_path / "agent-web1").key.stat().st_mode & 0o777 == 0o600


def test_an_issued_operator_uses_the_fleet_from_elsewhere(authority: Path, tmp_path: Path) -> None:
    assert run(["cert", "issue", "operator", "bob", "--out", "bob", "--authority", str(authority)]) == 0
    assert run(["cert", "use", "bob", "-C", "10.0.0.1:7400", "--context", "production"]) == 0
    name, context = load_contexts().choose(None)
    assert (name, context.certificate) == ("production", tmp_path / "bob" / "cert.pem")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["agent", "Web 1"], 2, "agent name 'Web 1' is not valid"),
        (["pilot", "web1"], 2, "'pilot' is not one of"),
        (["etcd", "e1", "--address", "10.0.0.1:2379"], 2, "neither an address nor a DNS name"),
        (["agent", "web1", "--out", "config"], 5, "config is there already"),
        (["agent", "web1", "--authority", "nowhere"], 1, "fleet-controller init"),
    ],
)
def test_what_cannot_be_issued_is_said_in_a_line(
    authority: Path, arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [] if "--authority" in arguments else ["--authority", str(authority)]
    assert run(["cert", "issue", *arguments, *options]) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_only_an_operator_s_certificate_can_be_used_and_only_with_an_address(
    authority: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cert", "issue", "agent", "web1", "--authority", str(authority)]) == 0
    assert run(["cert", "use", "agent-web1", "-C", "10.0.0.1:7400"]) == 1
    assert "that of agent web1" in capsys.readouterr().err
    assert run(["cert", "use", "agent-web1"]) == 2
    assert "-C ADDR[,ADDR]" in capsys.readouterr().err
