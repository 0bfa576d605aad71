"""What fleet-agent says when it cannot start: one line, exit code 1, no traceback."""

import os
import socket
from pathlib import Path

import pytest

from fleet_agent.identity import host_uid, lock_state_dir
from fleet_agent.main import main
from tests.integration.agent.running import RunningHost


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return RunningHost(tmp_path, tmp_path / "tls", "127.0.0.1:1").config


def refused(capfd: pytest.CaptureFixture[str], config: Path) -> str:
    assert main(["run", "--config", str(config)]) == 1
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("fleet-agent: ")
    return lines[0]


def test_no_configuration(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refused(capfd, tmp_path / "nothing.toml")


def test_a_second_agent_on_one_state_folder(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state_dir = config.parent / "state"
    state_dir.mkdir()
    lock = lock_state_dir(state_dir)
    try:
        assert "another fleet-agent uses" in refused(capfd, config)
    finally:
        os.close(lock)


def test_a_certificate_that_is_missing(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (config.parent / "tls" / "agent-host1.pem").unlink()
    assert "agent-host1.pem" in refused(capfd, config)


@pytest.mark.parametrize("name", ["assignment.json", "ports.json"])
def test_a_damaged_state_file(config: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    state_dir = config.parent / "state"
    state_dir.mkdir()
    (state_dir / name).write_text("half a fi")
    assert name in refused(capfd, config)


def test_a_hosts_uid_is_minted_once(tmp_path: Path) -> None:
    assert host_uid(tmp_path) == host_uid(tmp_path)


async def test_it_tells_the_service_manager_that_it_is_ready_with_nobody_to_talk_to(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        running = RunningHost(tmp_path, tmp_path / "tls", "127.0.0.1:1")
        await running.start_agent()
        try:
            assert manager.recv(100) == b"READY=1"
            assert await running.end_agent() == 0
            assert manager.recv(100) == b"STOPPING=1"
        finally:
            await running.clean_up()


@pytest.mark.parametrize("content", ["", "{broken", "host1"])
def test_a_damaged_uid_is_refused_and_not_taken_for_another_hosts(tmp_path: Path, content: str) -> None:
    (tmp_path / "host-uid").write_text(content)
    with pytest.raises(ValueError, match="is damaged: write back the uid"):
        host_uid(tmp_path)
