"""One small fleet, on which every example runs in turn."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet.harness import Fleet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "fleet" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.fleet)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two hosts, up and running."""
    with Fleet(tmp_path_factory.mktemp("examples"), hosts=2) as running:
        running.start()
        yield running
