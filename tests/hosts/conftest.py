"""Hosts are made once for all tests here; without a Docker engine the tests are skipped, and say why."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.engine import EngineError, require
from tests.hosts.fleet import HostFleet

# It would fetch an image to clean up after us; each of our containers has an owner that ends it.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "hosts" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session")
def hosts() -> Iterator[HostFleet]:
    """One controller with etcd and a balancer, two hosts with workers, and an app of four workers."""
    try:
        require()
    except EngineError as error:
        pytest.skip(str(error))
    if shutil.which("node") is None:
        pytest.skip("there is no node on PATH")
    with HostFleet() as fleet:
        fleet.wait_until_settled()
        yield fleet
