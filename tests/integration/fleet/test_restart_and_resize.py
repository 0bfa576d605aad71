"""The main job: twelve workers of an unmodified app, resized and soft-restarted under load without one failed request."""

from collections import Counter
from pathlib import Path

import pytest

from tests.integration.fleet.harness import Fleet, load_on
from tests.integration.fleet.judge import assert_none_failed, journals_show

_SIZE = 12


@pytest.fixture(scope="module")
def address(fleet: Fleet, app_script: Path) -> str:
    return fleet.start_app(app_script, _SIZE)


def test_the_workers_are_spread_evenly_and_each_is_the_unmodified_app(fleet: Fleet, address: str) -> None:
    workers = fleet.workers()

    assert Counter(worker["host"] for worker in workers) == {"host1": 4, "host2": 4, "host3": 4}
    assert len({(worker["address"], worker["port"]) for worker in workers}) == _SIZE
    (app,) = fleet.ask("ls")
    assert (app["name"], app["size"], app["ready"]) == ("my-app", _SIZE, _SIZE)


@pytest.mark.parametrize("round_number", [1, 2])
def test_a_soft_restart_fails_no_request_and_changes_every_pid(fleet: Fleet, address: str, round_number: int) -> None:
    """Guards invariants 1, 2 and 7."""
    before = fleet.pids()
    with load_on(address, fleet.folder) as load:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 5):
            outcome = fleet.ask("soft-restart", "my-app")
        load.wait_for_more(100)
        summary = load.stop()

    after = fleet.pids()
    assert_none_failed(summary)
    assert len(after) == _SIZE
    assert not before & after
    assert (outcome["state"], outcome["replaced"]) == ("done", _SIZE)
    assert {int(pid) for pid in summary["pids"]} >= after


def test_growing_and_shrinking_fails_no_request(fleet: Fleet, address: str) -> None:
    """Guards invariants 1, 2 and 7."""
    before = fleet.pids()
    with load_on(address, fleet.folder) as load:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 7):
            fleet.do("set-size", "my-app", "18", "-y")
            grown = fleet.pids()
            load.wait_for_more(100)
            fleet.do("set-size", "my-app", "12", "-y")
        load.wait_for_more(100)
        summary = load.stop()

    assert_none_failed(summary)
    assert len(grown) == 18
    assert grown > before
    assert len(fleet.pids()) == _SIZE


def test_one_host_can_be_given_more_and_the_app_floats_again(fleet: Fleet, address: str) -> None:
    fleet.do("set-size", "my-app", "6", "--host", "host1")

    assert Counter(worker["host"] for worker in fleet.workers()) == {"host1": 6, "host2": 4, "host3": 4}

    fleet.do("set-size", "my-app", str(_SIZE), "-y")

    assert Counter(worker["host"] for worker in fleet.workers()) == {"host1": 4, "host2": 4, "host3": 4}


def test_at_steady_state_etcd_is_not_written_to(fleet: Fleet, address: str) -> None:
    """Guards invariant 9; the 60 seconds of `make soak` are the full measure."""
    with load_on(address, fleet.folder) as load:
        before = fleet.etcd_revision()
        load.wait_for_more(2000, seconds=60)
        after = fleet.etcd_revision()
        summary = load.stop()

    assert after == before
    assert_none_failed(summary)
