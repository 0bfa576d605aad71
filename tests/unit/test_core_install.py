"""Installing, as values: steps, units, and the folder of certificate files."""

from pathlib import Path

import pytest

from fleet_core.authority import create_authority, issue_into
from fleet_core.config import AgentConfig, ConfigError
from fleet_core.install.carry_out import InstallError
from fleet_core.install.certificates import files_in, read_bundle, tls_config
from fleet_core.install.steps import Account, File, Folder, RemoveAccount, RemovePath, Run, described
from fleet_core.install.units import Unit, command
from fleet_core.tls import Identity, Role
from fleet_core.toml import render


def test_a_dry_run_shows_every_command_and_every_file_but_no_private_key() -> None:
    text = described(
        [
            Account("fleet", "workers"),
            Folder(Path("/var/lib/fleet"), 0o700, "fleet"),
            File(Path("/etc/a.toml"), b'name = "a"\n', 0o640, "fleet"),
            File(Path("/etc/key.pem"), b"SECRET", 0o640, secret=True),
            Run(("systemctl", "daemon-reload")),
            RemovePath(Path("/run/a b")),
            RemoveAccount("fleet"),
        ]
    )
    assert "useradd --system" in text
    assert "install -d -m 0700 -o fleet -g fleet /var/lib/fleet" in text
    assert 'write /etc/a.toml (mode 0640, root:fleet):\n    name = "a"\n' in text
    assert "SECRET" not in text
    assert "systemctl daemon-reload\nrm -rf '/run/a b'\nuserdel fleet\n" in text


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ('say "so"', r'"say \"so\""'),
        ("back\\slash", r'"back\\slash"'),
        ("", '""'),
    ],
)
def test_words_of_a_unit_s_command_line_stand_for_themselves(word: str, written: str) -> None:
    assert command("/bin/echo", word) == f"/bin/echo {written}"


def test_a_unit_has_its_settings_in_the_order_given() -> None:
    unit = Unit("a", unit=[("After", "b"), ("After", "c")], service=[("ExecStart", "/bin/true")])
    assert unit.path == Path("/etc/systemd/system/a.service")
    assert unit.render() == (
        "[Unit]\nAfter=b\nAfter=c\n\n[Service]\nExecStart=/bin/true\n\n[Install]\nWantedBy=multi-user.target\n"
    )


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    folder = tmp_path / "authority"
    create_authority(folder)
    return folder


def test_certificate_files_say_whose_they_are(authority: Path, tmp_path: Path) -> None:
    folder = tmp_path / "web1"
    issue_into(authority, files_in(folder), Identity(Role.AGENT, "web1"))
    bundle = read_bundle(folder, Role.AGENT)
    assert bundle.identity.name == "web1"
    keys = [step for step in bundle.steps(Path("/etc/fleet/agent"), "root") if isinstance(step, File) and step.secret]
    assert [(key.path.name, key.mode) for key in keys] == [("key.pem", 0o640)]
    assert files_in(folder).key.stat().st_mode & 0o777 == 0o600


def test_certificate_files_of_another_role_or_of_two_holders_are_refused(authority: Path, tmp_path: Path) -> None:
    web, lb = tmp_path / "web1", tmp_path / "lb1"
    issue_into(authority, files_in(web), Identity(Role.AGENT, "web1"))
    issue_into(authority, files_in(lb), Identity(Role.BALANCER, "lb1"))
    with pytest.raises(InstallError, match="that of agent web1: `fleetctl cert issue balancer NAME`"):
        read_bundle(web, Role.BALANCER)
    files_in(web).key.write_bytes(files_in(lb).key.read_bytes())
    with pytest.raises(InstallError, match=r"key\.pem is not the key of cert\.pem"):
        read_bundle(web, Role.AGENT)
    with pytest.raises(InstallError, match="name the folder that `fleetctl cert issue agent NAME` made"):
        read_bundle(tmp_path / "nowhere", Role.AGENT)


def test_a_certificate_of_another_authority_is_refused(authority: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    create_authority(other)
    folder = tmp_path / "web1"
    issue_into(other, files_in(folder), Identity(Role.AGENT, "web1"))
    files_in(folder).authority.write_bytes((authority / "ca.pem").read_bytes())
    with pytest.raises(InstallError, match="cannot be used"):
        read_bundle(folder, Role.AGENT)


def test_a_rendered_configuration_is_read_back_as_it_was(tmp_path: Path) -> None:
    config = AgentConfig(
        name="web1",
        state_dir=Path("/var/lib/fleet/agent"),
        tls=tls_config(Path("/etc/fleet/agent")),
        controllers=["10.0.0.1:7400"],
        address="10.0.0.2",
        runtime_dir=Path("/run/fleet"),
        log_dir=Path("/var/log/fleet"),
        labels={"example.com/zone": 'a "b"', "tier": "web"},
        worker_user="fleet",
    )
    path = tmp_path / "agent.toml"
    path.write_text(render(config.plain()))
    assert AgentConfig.load(path) == config


def test_what_is_wrong_with_a_configuration_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agent\.toml: state_dir: must be set"):
        AgentConfig.checked({"name": "a"}, tmp_path / "agent.toml")
