"""Fleets for tests. Starting one takes seconds, so the tests of a module share it, and each app it runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet.harness import EXPRESS_SERVER, PLAIN_SERVER, Fleet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.fleet)
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three hosts, up and running."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as running:
        running.start()
        yield running


@pytest.fixture(scope="module")
def app_script() -> Path:
    """The Express example where `npm ci` was run, as `make test` does; else the same on Node alone."""
    return EXPRESS_SERVER if (EXPRESS_SERVER.parent / "node_modules").is_dir() else PLAIN_SERVER
