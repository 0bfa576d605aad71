"""Configuration files: read, or refused in one line that names the file and the setting."""

from pathlib import Path

import pytest

from fleet_core.config import AgentConfig, BalancerConfig, ConfigError, ControllerConfig

_TLS = '[tls]\nauthority = "/c/ca.pem"\ncertificate = "/c/a.pem"\nkey = "/c/a.key"\n'
_AGENT = """name = "host1"
state_dir = "/s"
controllers = ["127.0.0.1:7400"]
address = "127.0.0.1"
runtime_dir = "/r"
log_dir = "/l"
"""
_CONTROLLER = 'name = "controller1"\nstate_dir = "/s"\nlisten = "127.0.0.1:7400"\netcd = ["127.0.0.1:2379"]\n'


def _file(folder: Path, text: str) -> Path:
    path = folder / "daemon.toml"
    path.write_text(text)
    return path


def test_an_agents_file_is_read_with_defaults(tmp_path: Path) -> None:
    config = AgentConfig.load(_file(tmp_path, _AGENT + _TLS))

    assert config.name == "host1"
    assert config.controllers == ["127.0.0.1:7400"]
    assert config.ports.first < config.ports.last
    assert config.tls.files().authority == Path("/c/ca.pem")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("name = ", "not TOML"),
        (_AGENT, "tls"),
        (_AGENT.replace("host1", "Host 1") + _TLS, "name"),
        (_AGENT.replace('["127.0.0.1:7400"]', "[]") + _TLS, "controllers"),
        (_AGENT + "colour = 1\n" + _TLS, "colour"),
        (_AGENT + "ports = { first = 0, last = 10 }\n" + _TLS, "ports.first"),
        (_AGENT + "ports = { first = 30000, last = 20000 }\n" + _TLS, "ports"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, word: str) -> None:
    path = _file(tmp_path, text)

    with pytest.raises(ConfigError) as raised:
        AgentConfig.load(path)

    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert word in message
    assert "\n" not in message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        ControllerConfig.load(tmp_path / "none.toml")


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "daemon.toml"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="not TOML"):
        ControllerConfig.load(path)


@pytest.mark.parametrize("interval", ["0", "-1", "61", "inf", "nan"])
def test_a_heartbeat_interval_must_make_sense(tmp_path: Path, interval: str) -> None:
    path = _file(tmp_path, _CONTROLLER + f"heartbeat_interval_seconds = {interval}\n" + _TLS)

    with pytest.raises(ConfigError, match="heartbeat_interval_seconds"):
        ControllerConfig.load(path)


def test_a_balancer_listens_everywhere_unless_it_has_an_address_of_its_own(tmp_path: Path) -> None:
    balancer = 'name = "lb1"\nstate_dir = "/s"\ncontrollers = ["127.0.0.1:7400"]\nruntime_dir = "/r"\n'

    assert BalancerConfig.load(_file(tmp_path, balancer + _TLS)).listen_address == "0.0.0.0"
    own = BalancerConfig.load(_file(tmp_path, f'{balancer}listen_address = "127.0.0.2"\n{_TLS}'))
    assert own.listen_address == "127.0.0.2"
    with pytest.raises(ConfigError, match=r"listen_address: .*'lb1\.example' is not an IP address: write one"):
        BalancerConfig.load(_file(tmp_path, f'{balancer}listen_address = "lb1.example"\n{_TLS}'))
