"""What the design promises of a fleet without a single point of failure, scene by scene, under constant load.

`make test-hosts-wide` runs it; it takes a quarter of an hour, most of it because the faults themselves last so long.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.hosts.engine import EngineError, require
from tests.hosts.links import Cut, Direction
from tests.hosts.wide_fleet import (
    APP,
    CONTROLLER_PORT,
    CONTROLLERS,
    ETCD,
    ETCD_PORT,
    HOSTS,
    PEER_PORT,
    SIZE,
    WideFleet,
)
from tests.load.tally import Failure, Tally

_REQUESTS = 150
"""After each fault, so many more must have been answered before the next."""
_GONE_SECONDS = 3.0
"""The endpoints of a host that died leave within these (DESIGN: when something dies)."""
_PARTITION_SECONDS = 120.0
_FROZEN_SECONDS = 60.0
_SHORT_SECONDS = 12.0
"""Longer than anybody waits for a word of the other: agents and balancers look for another controller, a lease expires."""

pytestmark = [
    pytest.mark.skipif(not os.environ.get("FLEET_TEST_WIDE"), reason="long: make test-hosts-wide"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WideFleet]:
    try:
        require()
    except EngineError as error:
        pytest.skip(str(error))
    with WideFleet(tmp_path_factory.mktemp("fleet")) as started:
        started.wait_until_settled()
        yield started


def more_requests(fleet: WideFleet, tally: Tally, count: int = _REQUESTS) -> None:
    goal = tally.sent.total() + count
    fleet.wait_for(lambda: tally.sent.total() >= goal, f"{count} requests")


def words(failures: list[Failure], since: float) -> list[str]:
    """Times as seconds since a moment."""
    return [
        f"{each.kind}: {each.method} {each.connection} to {each.target}, sent at {each.began - since:.3f} s, "
        f"failed at {each.at - since:.3f} s: {each.detail}"
        for each in failures
    ]


@contextmanager
def nobody_notices(fleet: WideFleet) -> Iterator[Tally]:
    """No process of the app begins or ends in the block, and no request fails. Guards invariants 3 and 7."""
    fleet.wait_until_settled()
    before, begun = fleet.workers(), {life.pid for life in fleet.lives()}
    began = time.monotonic()
    with fleet.load() as tally:
        more_requests(fleet, tally)
        yield tally
        more_requests(fleet, tally)
        fleet.wait_until_settled()
        more_requests(fleet, tally)
    assert words(tally.details, began) == []
    assert fleet.workers() == before
    assert {life.pid for life in fleet.lives()} == begun, "a process was started"


def kill(fleet: WideFleet, machine: str, unit: str) -> None:
    """SIGKILL to the main process; systemd starts it again."""
    host = fleet.machines[machine]
    pid = host.main_pid(unit)
    host.run(f"systemctl kill --kill-whom main --signal KILL {unit}")
    host.wait_for(lambda: host.main_pid(unit) not in (0, pid), f"another process of {unit}")


def test_restarts_and_kills_of_every_part_touch_no_worker_and_fail_no_request(fleet: WideFleet) -> None:
    """Guards invariant 3: a supervisor's death included, with delegated cgroups."""
    for name, pid in fleet.workers("web1").items():
        assert f"/fleet-workers.service/{APP}." in fleet.machines["web1"].run(f"cat /proc/{pid}/cgroup"), name
    with nobody_notices(fleet) as tally:
        steps: list[Callable[[], object]] = [
            lambda: fleet.machines["web1"].run("systemctl restart fleet-agent"),
            lambda: kill(fleet, fleet.leader(), "fleet-controller"),
            lambda: kill(fleet, fleet.etcd_leader(), "fleet-etcd"),
            lambda: fleet.machines["lb1"].run("systemctl restart fleet-balancer"),
            lambda: kill(fleet, "web2", "fleet-supervisor"),
            lambda: kill(fleet, "lb2", "fleet-balancer"),
            lambda: fleet.machines["web3"].run("systemctl restart fleet-supervisor fleet-agent"),
        ]
        for step in steps:
            step()
            more_requests(fleet, tally)
            fleet.wait_until_settled()


def test_an_agent_partitioned_for_two_minutes_is_missed_by_nobody(fleet: WideFleet) -> None:
    """Guards invariant 3: its host is unknown, not dead."""
    cuts = [Cut(fleet.addresses[name], CONTROLLER_PORT) for name in CONTROLLERS]
    with nobody_notices(fleet):
        cut_for(fleet, "web1", cuts, _PARTITION_SECONDS, lambda: fleet.state_of("web1") != "online")


_LINKS = {
    "agent and controllers": ("web2", CONTROLLERS, CONTROLLER_PORT),
    "balancer and controllers": ("lb2", CONTROLLERS, CONTROLLER_PORT),
    "controller and etcd": ("ctl1", ETCD, ETCD_PORT),
    "the other controller and etcd": ("ctl2", ETCD, ETCD_PORT),
    "a member of etcd and the others": ("ctl1", ETCD, PEER_PORT),
}


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("link", _LINKS)
def test_a_link_cut_for_seconds_touches_no_worker(fleet: WideFleet, link: str, direction: Direction) -> None:
    """Guards invariants 3 and 6."""
    machine, peers, port = _LINKS[link]
    cuts = [Cut(fleet.addresses[peer], port, direction) for peer in peers]
    with nobody_notices(fleet):
        cut_for(fleet, machine, cuts, _SHORT_SECONDS)


def cut_for(
    fleet: WideFleet, machine: str, cuts: list[Cut], seconds: float, noticed: Callable[[], bool] | None = None
) -> None:
    end = time.monotonic() + seconds
    fleet.machines[machine].cut(cuts)
    try:
        if noticed is not None:
            fleet.wait_for(noticed, f"{machine} to be missed")
        # The fault itself lasts so long: nothing ends it earlier.
        time.sleep(max(0.0, end - time.monotonic()))
    finally:
        fleet.machines[machine].mend()


def test_a_reboot_of_a_host_fails_no_request(fleet: WideFleet) -> None:
    """Guards invariant 7."""
    fleet.wait_until_settled()
    before = fleet.workers()
    began = time.monotonic()
    with fleet.load() as tally:
        more_requests(fleet, tally)
        fleet.machines["web1"].reboot()
        fleet.wait_until_settled()
        more_requests(fleet, tally)
    assert words(tally.details, began) == []
    after = fleet.workers()
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] == before[name]} == {name for name in after if "/web1/" not in name}


def test_a_power_cut_costs_three_seconds_of_requests_and_floating_sizes_are_refilled(fleet: WideFleet) -> None:
    """Guards invariants 3 and 6."""
    fleet.start("floating", 3, route=":81", lost_after=20)
    fleet.wait_until_settled()
    before = fleet.workers()
    kept = {name: pid for name, pid in before.items() if "/web3/" not in name}
    machine = fleet.machines["web3"]
    with fleet.load() as tally:
        more_requests(fleet, tally)
        cut = time.monotonic()
        machine.power_cut()
        try:
            fleet.wait_for(lambda: fleet.state_of("web3") != "online", "web3 to be missed")
            fleet.wait_for(lambda: len(elsewhere(fleet.workers(app="floating"))) == 3, "the floating app's refill", 90)
            assert elsewhere(fleet.workers()) == kept
        finally:
            machine.power_on()
        fleet.wait_until_settled(120)
        more_requests(fleet, tally)
    late = [failure for failure in tally.details if failure.began > cut + _GONE_SECONDS]
    assert words(late, cut) == []
    after = fleet.workers()
    assert after.keys() == before.keys()
    assert elsewhere(after) == kept
    fleet.fleetctl("remove", "floating", "--yes")


def elsewhere(workers: dict[str, int]) -> dict[str, int]:
    """Those that are not web3's."""
    return {name: pid for name, pid in workers.items() if "/web3/" not in name}


def test_a_host_frozen_for_a_minute_and_thawed_has_its_workers_still(fleet: WideFleet) -> None:
    """Guards invariant 3."""
    fleet.wait_until_settled()
    before, begun = fleet.workers(), {life.pid for life in fleet.lives()}
    with fleet.load() as tally:
        more_requests(fleet, tally)
        frozen = time.monotonic()
        fleet.machines["web2"].freeze()
        try:
            fleet.wait_for(lambda: fleet.state_of("web2") != "online", "web2 to be missed")
            time.sleep(max(0.0, frozen + _FROZEN_SECONDS - time.monotonic()))
        finally:
            fleet.machines["web2"].thaw()
        fleet.wait_until_settled()
        more_requests(fleet, tally)
    late = [failure for failure in tally.details if failure.began > frozen + _GONE_SECONDS]
    assert words(late, frozen) == []
    assert fleet.workers() == before
    assert {life.pid for life in fleet.lives()} == begun, "a process was started"


def test_a_leading_controller_frozen_with_its_machine_and_thawed_later_makes_nobody_act(fleet: WideFleet) -> None:
    """Guards invariants 3, 4 and 5."""
    fleet.wait_until_settled()
    old = fleet.leader()
    with fleet.load() as tally:
        more_requests(fleet, tally)
        began = time.monotonic()
        fleet.machines[old].freeze()
        try:
            fleet.wait_for(lambda: fleet.try_fleetctl("info")[0] == 0, "another controller to lead")
            assert fleet.leader() != old
            fleet.fleetctl("soft-restart", APP)
            after = fleet.workers()
        finally:
            fleet.machines[old].thaw()
        fleet.wait_until_settled()
        more_requests(fleet, tally)
    assert words(tally.details, began) == []
    assert len(after) == SIZE
    assert fleet.workers() == after, f"{old} made somebody act"
    assert set(HOSTS) == {name.split("/")[1] for name in after}
