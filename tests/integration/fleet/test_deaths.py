"""kill -9 of everything below `up`, one after the other, under load: what dies is back, and users see nothing of it."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.fleet.harness import Fleet, load_on, wait_for
from tests.integration.fleet.judge import assert_none_failed, journals_show

_SIZE = 6


@pytest.fixture(scope="module")
def address(fleet: Fleet, app_script: Path) -> str:
    return fleet.start_app(app_script, _SIZE)


def test_a_killed_worker_is_replaced_and_no_get_fails(fleet: Fleet, address: str) -> None:
    victim = fleet.workers()[0]
    with load_on(address, fleet.folder) as load:
        os.kill(victim["pid"], signal.SIGKILL)
        wait_for(
            lambda: len(fleet.pids()) == _SIZE and victim["pid"] not in fleet.pids(), "the killed worker's slot ready"
        )
        load.wait_for_more(100)
        summary = load.stop()

    (heir,) = [worker for worker in fleet.workers() if worker["id"] == victim["id"]]
    assert heir["generation"] == victim["generation"]
    assert heir["restarts"] == victim["restarts"] + 1
    assert "GET" not in summary["failed_by_method"], summary["details"]
    # In flight on one worker of six at 200 requests a second of 50 ms: 10 in all, of which its share; never more than all.
    assert summary["failed"] <= 10, summary["details"]


def test_half_of_the_workers_killed_at_once_fail_no_get(fleet: Fleet, address: str) -> None:
    """A dead worker has the fewest connections: it must not be chosen for every retry."""
    victims = sorted(fleet.pids())[: _SIZE // 2]
    with load_on(address, fleet.folder) as load:
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        wait_for(
            lambda: len(fleet.pids()) == _SIZE and not fleet.pids() & set(victims), "the killed workers' slots ready"
        )
        load.wait_for_more(100)
        summary = load.stop()

    assert "GET" not in summary["failed_by_method"], summary["details"]
    assert summary["failed"] <= 10, summary["details"]


@pytest.mark.parametrize(
    "words",
    [("controller",), ("agent", "host1"), ("supervisor", "host2"), ("balancer",), ("etcd",)],
    ids=lambda words: words[0],
)
def test_a_killed_daemon_is_back_and_nobody_noticed(fleet: Fleet, address: str, words: tuple[str, ...]) -> None:
    """Guards invariant 3."""
    before = fleet.pids()
    service, pid = fleet.daemon(*words)
    with load_on(address, fleet.folder) as load:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 2):
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: fleet.daemons().get(service, pid) != pid, f"{service} started again")
            wait_for(lambda: _whole(fleet), "every host online, every balancer connected, every worker ready", 60)
        load.wait_for_more(200)
        summary = load.stop()

    assert fleet.pids() == before
    assert_none_failed(summary)


def test_a_size_that_is_set_while_a_new_leader_still_waits_for_a_host_is_spread_evenly(
    fleet: Fleet, address: str
) -> None:
    """Whoever answers first is not given what belongs to the others."""
    _, agent = fleet.daemon("agent", "host1")
    service, pid = fleet.daemon("controller")
    os.kill(agent, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: fleet.daemons().get(service, pid) != pid, f"{service} started again")
        wait_for(lambda: _states(fleet.run("host", "ls", "-o", "json").output or "[]"), "the controller answers")
        with fleet.begun("set-size", "my-app", "9", "-y") as sizing:
            wait_for(lambda: fleet.ask("host", "ls")[1]["state"] == "online", "another host is there")
            os.kill(agent, signal.SIGCONT)
            assert sizing.wait(60) == 0
    finally:
        os.kill(agent, signal.SIGCONT)

    hosts = Counter(worker["host"] for worker in fleet.workers())
    fleet.do("set-size", "my-app", str(_SIZE), "-y")
    assert hosts == {"host1": 3, "host2": 3, "host3": 3}


def test_a_worker_that_dies_while_its_supervisor_is_frozen_leaves_the_lists(fleet: Fleet, address: str) -> None:
    """Guards invariant 7: whoever watches the balancers' lists does not wait for who starts it again."""
    _, supervisor = fleet.daemon("supervisor", "host1")
    victim = next(worker for worker in fleet.workers() if worker["host"] == "host1")
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.kill(victim["pid"], signal.SIGKILL)
        wait_for(lambda: victim["port"] not in _listed(fleet), "no list has it")
        assert victim["pid"] not in fleet.pids()
    finally:
        os.kill(supervisor, signal.SIGCONT)
    wait_for(lambda: _whole(fleet), "another took its place")


def test_after_all_of_that_a_soft_restart_still_fails_nothing(fleet: Fleet, address: str) -> None:
    """Guards invariants 1, 2 and 7: what was started again is whole, not just alive."""
    before = fleet.pids()
    with load_on(address, fleet.folder) as load:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 3):
            fleet.do("soft-restart", "my-app")
        summary = load.stop()

    assert_none_failed(summary)
    assert not before & fleet.pids()


def _whole(fleet: Fleet) -> bool:
    answers = [fleet.run(*command, "-o", "json") for command in (("host", "ls"), ("balancer", "ls"))]
    if any(answer.code for answer in answers):
        return False
    states = [state for answer in answers for state in _states(answer.output)]
    return states == ["online"] * 3 + ["connected"] and len(fleet.pids()) == _SIZE


def _states(output: str) -> list[str]:
    return [thing["state"] for thing in json.loads(output)]


def _listed(fleet: Fleet) -> set[int]:
    """Ports to which balancers may send requests."""
    return {endpoint["port"] for pool in fleet.ask("balancer", "upstreams") for endpoint in pool["endpoints"]}
