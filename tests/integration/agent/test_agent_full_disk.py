"""The host's disk is full: workers run on, the agent says so, and goes on once there is space."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fleet_core.spec import AppSpec
from tests.integration.agent.fake_controller import FakeController, target
from tests.integration.agent.running import RunningHost
from tests.integration.full_disk import SmallDisk, needs_mounts, small_disk

pytestmark = needs_mounts

PRINTER = AppSpec.model_validate(
    {
        "name": "printer",
        "argv": ["sh", "-c", "while echo a line; do sleep 0.02; done"],
        "cwd": "/",
        "listen_mode": "none",
        "ready": {"min_uptime_seconds": 0.1},
    }
)


@pytest.fixture
def state_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "state") as disk:
        yield disk


@pytest.fixture
def log_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "log") as disk:
        yield disk


@pytest.fixture
async def host_on_small_disks(
    tmp_path: Path, state_disk: SmallDisk, log_disk: SmallDisk, controller: FakeController
) -> AsyncIterator[RunningHost]:
    running = RunningHost(tmp_path, controller.folder, controller.address)
    assert running.log_dir == log_disk.folder
    assert running.state_dir == state_disk.folder
    try:
        await running.start()
        await controller.until(controller.complete_reports)
        yield running
    finally:
        await running.clean_up()


def _notices(controller: FakeController) -> list[str]:
    return list(controller.heartbeats[-1].notices) if controller.heartbeats else []


async def test_a_full_disk_stops_nothing_is_said_and_heals(
    controller: FakeController, host_on_small_disks: RunningHost, state_disk: SmallDisk, log_disk: SmallDisk
) -> None:
    """Guards invariants 3, 4 and 6."""
    controller.assign(target(PRINTER, 1), specs=(PRINTER,))
    before = await controller.until_state(("printer", 1, 1), "READY")
    state_disk.fill()
    controller.assign(target(PRINTER, 1), target(PRINTER, 2), specs=(PRINTER,))
    await controller.until(lambda: any("(state_dir) cannot be written" in notice for notice in _notices(controller)))
    assert ("printer", 2, 1) not in controller.workers, "nothing is done that is not durable"
    sessions = len(controller.hellos)

    log_disk.fill()
    await controller.until(lambda: any("(log_dir) cannot be written" in notice for notice in _notices(controller)))
    state_disk.free()
    await controller.until_state(("printer", 2, 1), "READY")
    assert len(controller.hellos) == sessions, "it kept its session"
    assert json.loads((host_on_small_disks.state_dir / "assignment.json").read_text())["sequence"] == 2

    log_disk.free()
    await controller.until(lambda: _notices(controller) == [])
    log = host_on_small_disks.log_dir / "printer" / "1.out.log"
    size = log.stat().st_size
    await controller.until(lambda: log.stat().st_size > size)
    after = await controller.until_state(("printer", 1, 1), "READY")
    assert (after.pid, after.restarts) == (before.pid, 0)


async def test_an_agent_on_a_full_disk_has_a_session_with_a_new_leader_and_obeys_it_once_it_can(
    controller: FakeController, host_on_small_disks: RunningHost, state_disk: SmallDisk
) -> None:
    """Guards invariant 4: what is not durable is not obeyed, and what is said is heard."""
    controller.assign(target(PRINTER, 1), specs=(PRINTER,))
    await controller.until_state(("printer", 1, 1), "READY")
    state_disk.fill()
    await controller.stop()
    address = controller.address
    controller.epoch = type(controller.epoch)(1, 20)
    controller.workers.clear()
    controller.heartbeats.clear()
    await controller.start(address)
    await controller.until_state(("printer", 1, 1), "READY")
    await controller.until(lambda: bool(controller.heartbeats))
    controller.assign(target(PRINTER, 1), target(PRINTER, 2), specs=(PRINTER,))
    await controller.until(lambda: any("(state_dir) cannot be written" in notice for notice in _notices(controller)))
    assert ("printer", 2, 1) not in controller.workers
    state_disk.free()
    await controller.until_state(("printer", 2, 1), "READY")
