"""Every daemon's event loop shows the service manager that it turns (sd_notify(3), WATCHDOG=1)."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_core import service_manager
from fleet_core.watchdog import show_life

_SECONDS = 20.0


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end; it waits for a sign every 0.2 s."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind(str(tmp_path / "notify.sock"))
        endpoint.settimeout(_SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify.sock"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield endpoint


def until_signs_of_life(manager: socket.socket, count: int) -> None:
    while count:
        count -= manager.recv(4096) == b"WATCHDOG=1"


async def test_an_event_loop_shows_that_it_turns(manager: socket.socket) -> None:
    living = asyncio.create_task(show_life())
    await asyncio.to_thread(until_signs_of_life, manager, 3)
    living.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await living


def test_the_supervisor_shows_that_it_turns(manager: socket.socket, tmp_path: Path) -> None:
    folders = ("--runtime-dir", str(tmp_path / "run"), "--log-dir", str(tmp_path / "log"))
    supervisor = subprocess.Popen([sys.executable, "-m", "fleet_agent.supervisor.main", "run", *folders])
    try:
        until_signs_of_life(manager, 3)
    finally:
        supervisor.terminate()
        assert supervisor.wait(_SECONDS) == 0


def test_a_watchdog_meant_for_another_process_is_not_fed(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert service_manager.watchdog_seconds() == 0.2
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert service_manager.watchdog_seconds() is None
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert service_manager.watchdog_seconds() == 0.2
    monkeypatch.delenv("WATCHDOG_USEC")
    assert service_manager.watchdog_seconds() is None
