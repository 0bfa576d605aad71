"""Revisions that are broken, each in its own way: the rollout stops at the first worker and goes back, and users see nothing."""

import pytest

from tests.integration.fleet.harness import MOODY_SERVER, Fleet, load_on
from tests.integration.fleet.judge import assert_none_failed, journals_show

_SIZE = 6


@pytest.fixture(scope="module")
def address(fleet: Fleet) -> str:
    policies = ("--ready-path", "/healthz", "--start-timeout", "4s", "--bake-time", "6s")
    return fleet.start_app(MOODY_SERVER, _SIZE, *policies)


@pytest.mark.parametrize(
    ("mood", "reason", "last_words"),
    [
        ("crash", "exit code 3", "cannot boot: the configuration names no database"),
        ("silent", "nothing listens", "thinking"),
        ("sick", "GET /healthz answered 500", ""),
        ("dies", "exit code 7", "out of luck"),
    ],
)
def test_a_broken_revision_stops_at_the_first_worker_and_goes_back(
    fleet: Fleet, address: str, mood: str, reason: str, last_words: str
) -> None:
    """Guards invariants 1, 7 and 10."""
    before = fleet.pids()
    (app,) = fleet.ask("ls")
    with load_on(address, fleet.folder) as load:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 3):
            result = fleet.run("env-set", "my-app", f"MOOD={mood}", "LIFE_MS=2000")
        load.wait_for_more(100)
        summary = load.stop()

    assert result.code == 1, result.output + result.errors
    assert reason in result.errors
    assert last_words in result.errors
    assert_none_failed(summary)
    assert fleet.pids() == before
    (after,) = fleet.ask("ls")
    assert (after["revision"], after["ready"]) == (app["revision"], _SIZE)


def test_a_good_revision_is_rolled_out_and_back_again(fleet: Fleet, address: str) -> None:
    """Guards invariants 1, 2 and 7."""
    before = fleet.pids()
    with load_on(address, fleet.folder) as load:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 3):
            fleet.do("env-set", "my-app", "COLOUR=blue")
            assert fleet.ask("env-get", "my-app")["COLOUR"] == "blue"
            there = fleet.pids()
            fleet.do("rollback", "my-app")
        load.wait_for_more(100)
        summary = load.stop()

    assert_none_failed(summary)
    assert "COLOUR" not in fleet.ask("env-get", "my-app")
    assert not before & there
    assert not there & fleet.pids()


def test_a_worker_killed_every_second_fails_no_get_while_a_revision_is_rolled_out(fleet: Fleet, address: str) -> None:
    with load_on(address, fleet.folder) as load, fleet.workers_killed_every(1.0) as killed:
        result = fleet.run("soft-restart", "my-app")
        load.wait_for_more(100)
        summary = load.stop()

    assert result.code == 0, result.output + result.errors
    assert killed
    assert "GET" not in summary["failed_by_method"], summary["details"]
    # 200 requests a second of 50 ms are 10 in flight in all: those on one worker of six are at most all of them.
    assert summary["failed"] <= 10 * len(killed), summary["details"]
