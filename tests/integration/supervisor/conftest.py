from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.supervisor.running import RunningSupervisor


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[RunningSupervisor]:
    """A supervisor that runs; whatever it started is gone afterwards."""
    running = RunningSupervisor(tmp_path)
    await running.start()
    try:
        yield running
    finally:
        await running.clean_up()


@pytest.fixture
async def folders(tmp_path: Path) -> AsyncIterator[RunningSupervisor]:
    """The same, not started yet."""
    running = RunningSupervisor(tmp_path)
    try:
        yield running
    finally:
        await running.clean_up()
