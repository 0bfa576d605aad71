"""Three controllers, three members of etcd: leaders die, hand over, stand still.

`make faults-takeover` and `make faults-changes` do it at length.
"""

import asyncio
import json
import os
import signal
from collections.abc import Iterator

import pytest

from tests.faults import changes, takeovers
from tests.faults.many_controllers import ManyControllers
from tests.integration.fleet.harness import PLAIN_SERVER, wait_for

SEED = 6


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyControllers]:
    with ManyControllers(tmp_path_factory.mktemp("fleet")) as made:
        made.start()
        made.start_app(PLAIN_SERVER, takeovers.SIZE)
        yield made


def test_another_controller_takes_over_and_no_worker_notices(fleet: ManyControllers) -> None:
    """Guards invariants 3 and 5."""
    before = fleet.leader()
    takeovers.end_leader(fleet, takeovers.End(signal.SIGKILL, after=0.0))
    assert fleet.leader() != before


def test_a_leader_that_stood_still_makes_nobody_act_once_another_leads(fleet: ManyControllers) -> None:
    """Guards invariant 4. While it stands still a worker dies, and a change is made that it does not know of."""
    pids = fleet.pids()
    old = fleet.leader()
    with fleet.frozen(old):
        wait_for(lambda: any(each["leads"] for each in fleet.controllers().values()), "another controller leads")
        new = fleet.leader()
        assert new != old
        wait_for(lambda: set(_states(fleet)) == {"online"}, "every host is with the next leader")
        wait_for(lambda: set(_balancers(fleet)) == {"connected"}, "every balancer is with the next leader")
        os.kill(min(pids), signal.SIGKILL)
        wait_for(lambda: len(fleet.pids() - {min(pids)}) == len(pids), "the killed worker was replaced")
        fleet.do("set-size", "my-app", "+1")
        after = fleet.pids()
        held = (fleet.assignments(), fleet.obeyed(), fleet.lists())
    wait_for(lambda: fleet.controllers()[old]["reachable"], "the former leader answers")
    # It has tried to renew its lease by then, and was told that it has none.
    log = fleet.data_dir / "log" / f"{old}.log"
    wait_for(lambda: "is lost" in log.read_text(), "the former leader knows that it leads no more")
    assert fleet.leader() == new
    assert (fleet.assignments(), fleet.obeyed(), fleet.lists()) == held
    assert fleet.pids() == after
    assert fleet.do("set-size", "my-app", str(takeovers.SIZE), "-y")


def test_no_change_is_lost_or_made_twice_while_leaders_die(fleet: ManyControllers) -> None:
    """Guards invariant 5."""
    fleet.do("remove", "my-app", "-y", "--now")
    changes.prepare(fleet)

    async def run() -> tuple[changes.Run, list[str]]:
        made = changes.Run(fleet)
        faults = [changes.Fault(5, changes.Victim.CONTROLLER, False), changes.Fault(12, changes.Victim.ETCD, False)]
        return made, await made.run(changes.plan_changes(SEED, 20), faults)

    made, broken = asyncio.run(run())
    assert broken == []
    assert len(made.acknowledged) == 20
    assert len(made.kills) == 2


def test_steady_state_writes_nothing_to_etcd(fleet: ManyControllers) -> None:
    """Guards invariant 9, with three controllers: they register once, and follow."""
    fleet.wait_for_all_controllers()
    before = fleet.etcd_revision()
    for _ in range(3):
        fleet.do("host", "ls")
        fleet.do("controller", "ls")
    assert fleet.etcd_revision() == before


def _states(fleet: ManyControllers) -> list[str]:
    result = fleet.run("host", "ls", "-o", "json")
    return [host["state"] for host in json.loads(result.output)] if result.code == 0 else []


def _balancers(fleet: ManyControllers) -> list[str]:
    result = fleet.run("balancer", "ls", "-o", "json")
    return [each["state"] for each in json.loads(result.output)] if result.code == 0 else []


def test_a_seed_gives_the_same_histories() -> None:
    assert changes.plan_changes(3, 100) == changes.plan_changes(3, 100)
    assert changes.plan_faults(3, 100, 9) == changes.plan_faults(3, 100, 9)
    assert takeovers.schedule(3, 20) == takeovers.schedule(3, 20)
    assert {fault.victim for fault in changes.plan_faults(3, 1000, 20)} == set(changes.Victim)
    names = [end.name for end in takeovers.schedule(3, 20)]
    assert (names.count("SIGKILL"), names.count("SIGTERM"), names.count("machine")) == (20, 4, 4)
