"""Hosts that are cordoned, drained, relabelled, lost and back: workers follow, under load, and no request fails."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from fleet.v1 import control_pb2
from tests.integration.fleet.control import Control
from tests.integration.fleet.harness import Fleet, load_on, wait_for
from tests.integration.fleet.judge import assert_none_failed, journals_show

_SIZE = 9
_EVEN = {"host1": 3, "host2": 3, "host3": 3}


@pytest.fixture(scope="module")
def address(fleet: Fleet, app_script: Path) -> str:
    return fleet.start_app(app_script, _SIZE)


@pytest.fixture(scope="module")
def control(fleet: Fleet) -> Control:
    return Control(fleet)


@pytest.fixture(autouse=True)
def even(fleet: Fleet, control: Control, address: str) -> None:
    """Each test begins with every host open, without labels, and three workers on each."""
    wait_for(control.settled, "the move of the test before is done")
    control.place()  # first: a host that loses a label the app still asks for loses its workers
    for host in _EVEN:
        control.uncordon(host)
        control.unlabel(host, "disk")
    if _spread(fleet) != _EVEN:
        fleet.do("set-size", "my-app", str(_SIZE), "-y")
    assert _spread(fleet) == _EVEN


def _spread(fleet: Fleet) -> dict[str, int]:
    """Every process there is, ready or not."""
    return dict(Counter(worker["host"] for worker in fleet.ask("ps", "my-app") if worker["pid"]))


@contextmanager
def _frozen(pid: int) -> Iterator[None]:
    """SIGSTOP, so that nobody starts it again; whatever happens it goes on afterwards."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_drain_moves_a_host_s_workers_start_first_and_ends_when_none_is_left(
    fleet: Fleet, control: Control, address: str
) -> None:
    """Guards invariants 1, 2 and 7."""
    before = {worker["pid"]: worker["host"] for worker in fleet.workers()}
    with load_on(address, fleet.folder) as load:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 6):
            control.drain("host2")
            messages = control.watch_drain("host2")
        load.wait_for_more(100)
        summary = load.stop()

    assert_none_failed(summary)
    assert messages[-1].drained
    assert [message.workers_left for message in messages] == sorted(
        (message.workers_left for message in messages), reverse=True
    )
    spread = _spread(fleet)
    assert spread.keys() == {"host1", "host3"}
    assert sorted(spread.values()) == [4, 5]
    stayed = {pid for pid, host in before.items() if host != "host2"}
    assert stayed < fleet.pids()
    wait_for(control.settled, "the move is done")
    rollout = control.app().rollout
    assert (rollout.kind, rollout.cause) == (control_pb2.ROLLOUT_KIND_MOVE, "host host2 is drained")


def test_a_drain_that_is_called_off_leaves_what_moved_where_it_is(fleet: Fleet, control: Control, address: str) -> None:
    drained = fleet.ask("host", "drain", "host1")
    assert (drained["state"], drained["workers_left"]) == ("drained", 0)
    spread, pids = _spread(fleet), fleet.pids()
    assert "host1" not in spread
    fleet.do("host", "uncordon", "host1")
    with pytest.raises(grpc.aio.AioRpcError, match="is not being drained"):
        control.watch_drain("host1")
    fleet.do("soft-restart", "my-app", "--worker", fleet.workers()[0]["id"])  # a whole operation later
    assert _spread(fleet) == spread
    assert len(fleet.pids() & pids) == _SIZE - 1


def test_a_cordoned_host_keeps_its_workers_through_a_restart_and_gets_no_more(
    fleet: Fleet, control: Control, address: str
) -> None:
    control.cordon("host3")
    before = fleet.pids()
    fleet.do("soft-restart", "my-app")
    assert not before & fleet.pids()
    assert _spread(fleet) == _EVEN
    fleet.do("set-size", "my-app", "+4", "-y")
    assert _spread(fleet) == {"host1": 5, "host2": 5, "host3": 3}


def test_workers_follow_the_labels_their_app_asks_for(fleet: Fleet, control: Control, address: str) -> None:
    for host in _EVEN:
        control.label(host, disk="fast")
    control.place(disk="fast")
    assert _spread(fleet) == _EVEN
    with load_on(address, fleet.folder) as load:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 6):
            control.label("host2", disk="slow")
            wait_for(lambda: "host2" not in _spread(fleet), "host2 left", 60)
            wait_for(control.settled, "the move is done")
        summary = load.stop()
    assert_none_failed(summary)
    assert control.app().rollout.cause == "host host2 lacks disk=fast"


def test_a_lost_host_s_workers_are_started_elsewhere_and_retired_when_it_is_back(
    fleet: Fleet, control: Control, address: str
) -> None:
    """Guards invariants 1, 3 and 7: nothing on the lost host is stopped before enough others serve."""
    control.place(lost_after_seconds=2)
    before = {worker["pid"]: worker["host"] for worker in fleet.workers()}
    on_lost = {pid for pid, host in before.items() if host == "host3"}
    with load_on(address, fleet.folder) as load:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 6):
            with _frozen(fleet.daemon("agent", "host3")[1]):
                wait_for(
                    lambda: control.app().placement.keys() == {"host1", "host2"}, "the lost host's share moved", 60
                )
                wait_for(control.settled, "the move is done though the host is away", 60)
                assert control.app().rollout.cause == "host host3 was lost for 2 s"
                assert all(Path(f"/proc/{pid}").exists() for pid in on_lost)
                load.wait_for_more(200)
            wait_for(lambda: "host3" not in _spread(fleet), "the host that is back gave up what was replaced", 60)
        load.wait_for_more(100)
        summary = load.stop()

    assert_none_failed(summary)
    spread = _spread(fleet)
    assert sorted(spread.values()) == [4, 5]
    assert set(before) - on_lost < fleet.pids()
    assert not on_lost & fleet.pids()


def test_while_two_of_three_hosts_are_lost_nothing_moves_and_the_brake_is_named(
    fleet: Fleet, control: Control, address: str
) -> None:
    control.place(lost_after_seconds=2)
    before = fleet.pids()
    with _frozen(fleet.daemon("agent", "host2")[1]), _frozen(fleet.daemon("agent", "host3")[1]):
        wait_for(lambda: "2 of 3 hosts are lost" in " ".join(control.app().notices), "the brake is named", 30)
        away = {host["name"] for host in fleet.ask("host", "ls") if host["unheard_seconds"] > 0}
        assert away == {"host2", "host3"}
    wait_for(lambda: not control.app().notices, "every host is back", 30)
    assert fleet.pids() == before
    assert control.app().rollout.kind == control_pb2.ROLLOUT_KIND_UPDATE  # the policy's, of this test


def test_a_removal_ends_with_the_removal_of_a_lost_host_and_its_workers_go_when_the_host_comes_back(
    fleet: Fleet, control: Control, address: str
) -> None:
    """Guards invariants 3 and 6: what is named as the way out is one, also for who was wrong about the host."""
    fleet.do("start", "-n", "doomed", "-i", "3", "--listen", "none", "--", "sleep", "1000")
    left = {worker["pid"] for worker in fleet.workers("doomed") if worker["host"] == "host3"}
    assert left
    with _frozen(fleet.daemon("agent", "host3")[1]):
        wait_for(lambda: any(host["unheard_seconds"] > 0 for host in fleet.ask("host", "ls")), "host3 is lost", 30)
        fleet.do("remove", "doomed", "-y", "--no-wait")
        wait_for(lambda: "fleetctl host remove host3" in control.app("doomed").rollout.message, "the way out", 30)
        control.drain("host3")
        wait_for(lambda: control.app().placement.keys() == {"host1", "host2"}, "the others' share moved", 60)
        fleet.do("host", "remove", "host3", "-y")
        wait_for(lambda: [app["name"] for app in fleet.ask("ls")] == ["my-app"], "the removal ended", 30)
        assert all(Path(f"/proc/{pid}").exists() for pid in left)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), "its workers are gone", 30)
    wait_for(lambda: "host3" not in _spread(fleet), "the host gave up what had moved", 30)


def test_a_pinned_app_rests_on_a_drained_host_and_comes_back(fleet: Fleet, control: Control, address: str) -> None:
    fleet.do("set-size", "my-app", "2", "--host", "host2", "-y")
    with pytest.raises(grpc.aio.AioRpcError, match="pinned to host2"):
        control.drain("host2")
    control.drain("host2", allow_stopping_pinned=True)
    assert control.watch_drain("host2")[-1].drained
    assert _spread(fleet) == {"host1": 3, "host3": 3}
    assert "fleetctl host uncordon host2" in control.app().notices[0]
    control.uncordon("host2")
    wait_for(lambda: _spread(fleet) == {"host1": 3, "host2": 2, "host3": 3}, "its workers are back", 30)
