import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleet_balancer.haproxy import binary
from fleet_balancer.haproxy.driver import HaproxyDriver


@pytest.fixture(scope="session")
def haproxy() -> binary.Binary:
    """FLEET_TEST_HAPROXY names another HAProxy to test with."""
    configured = os.environ.get("FLEET_TEST_HAPROXY")
    return binary.find(Path(configured) if configured else None)


@pytest.fixture
async def driver(tmp_path: Path, haproxy: binary.Binary) -> AsyncIterator[HaproxyDriver]:
    driver = HaproxyDriver(tmp_path, haproxy)
    yield driver
    await driver.stop(0)
