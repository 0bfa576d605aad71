from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.agent.fake_controller import FakeController
from tests.integration.agent.running import RunningHost


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[FakeController]:
    fake = FakeController(tmp_path / "tls")
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()


@pytest.fixture
async def host(tmp_path: Path, controller: FakeController) -> AsyncIterator[RunningHost]:
    """Supervisor and agent, running, in session with `controller`."""
    running = RunningHost(tmp_path, controller.folder, controller.address)
    try:
        await running.start()
        await controller.until(controller.complete_reports)
        yield running
    finally:
        await running.clean_up()


@pytest.fixture
def app_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    return folder
