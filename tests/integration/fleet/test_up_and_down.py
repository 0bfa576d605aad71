"""`fleetctl up` itself: Ctrl-C leaves nothing behind, and a killed one is taken over by the next."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet.harness import Fleet, load_on, wait_for
from tests.integration.fleet.judge import assert_none_failed


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet of the test's own, not started yet."""
    with Fleet(tmp_path_factory.mktemp("up")) as fleet:
        yield fleet


def test_ctrl_c_stops_everything_and_leaves_no_process(fleet: Fleet, app_script: Path) -> None:
    fleet.start()
    fleet.start_app(app_script, 3)
    assert len(fleet.processes()) > 3

    fleet.interrupt()

    assert fleet.processes() == {}


def test_what_ctrl_c_stopped_is_there_again_after_the_next_up(fleet: Fleet, app_script: Path) -> None:
    fleet.start()
    address = fleet.start_app(app_script, 3)
    fleet.interrupt()

    fleet.start()
    wait_for(lambda: len(fleet.pids()) == 3, "three workers ready")
    with load_on(address, fleet.folder) as load:
        assert_none_failed(load.stop())


def test_up_on_the_folder_of_a_killed_up_adopts_the_workers(fleet: Fleet, app_script: Path) -> None:
    """Guards invariant 3."""
    fleet.start()
    address = fleet.start_app(app_script, 3)
    before = fleet.pids()
    with load_on(address, fleet.folder) as load:
        fleet.kill_up()
        fleet.start()
        load.wait_for_more(200)
        summary = load.stop()

    assert fleet.pids() == before
    assert_none_failed(summary)
