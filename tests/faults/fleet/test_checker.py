"""The checker, on records made by hand: each invariant is seen broken, and what the design allows is not taken for it."""

from dataclasses import replace

import pytest

from tests.faults.fleet.checker import check
from tests.faults.fleet.record import Fault, Operation, Record, Sight, epochs_of
from tests.load.journal import Life, Place
from tests.load.tally import Failure, FailureKind

_END = 100.0
_HOSTS = ("web1", "web2")
_RESTART = Operation(("soft-restart", "my-app"), 50.0, 60.0, 0, "my-app restarted")


def life(
    host: str, slot: int, started: float = 0.0, ended: float = _END + 1, *, generation: int = 1, pid: int = 0
) -> Life:
    place = Place("my-app", host, slot, generation)
    return Life(pid or slot + 10 * generation, place, started, ended, listening=started + 0.2)


def four() -> list[Life]:
    return [life("web1", 1), life("web1", 2), life("web2", 1), life("web2", 2)]


def sight(at: float, **changes: object) -> Sight:
    return replace(Sight(at, 1.0, "", size=4, placement={"web1": 2, "web2": 2}), **changes)  # type: ignore[arg-type]


def record(**parts: object) -> Record:
    whole = Record(
        seed=1,
        app="my-app",
        size=4,
        surge=1,
        hosts=_HOSTS,
        addresses={"web1": "10.0.0.31", "lb1": "10.0.0.21"},
        lost_after=150.0,
        begin=10.0,
        end=_END,
        lives=four(),
        sights=[sight(11.0), sight(90.0)],
    )
    return replace(whole, **parts)  # type: ignore[arg-type]


def broken(seen: Record) -> set[int]:
    return {violation.invariant for violation in check(seen)}


def failure(began: float, *, at: float = 0.0, method: str = "POST", target: str = "10.0.0.21:80") -> Failure:
    return Failure(FailureKind.STATUS, method, at or began + 0.1, "fresh", "status 502", began, target)


def test_a_quiet_record_is_a_pass() -> None:
    assert check(record()) == []


def test_a_restart_that_replaces_start_first_is_a_pass() -> None:
    lives = []
    for number, old in enumerate(four()):
        at = 51.0 + number
        lives += [
            replace(old, last_beat=at + 0.9),
            life(old.place.host, old.place.slot, at, generation=2),
        ]
    assert check(record(lives=lives, operations=[_RESTART])) == []


def test_a_worker_stopped_before_anybody_could_call_it_ready_breaks_nothing() -> None:
    """As one of the generation before that a host begins with after a power cut, in the middle of a restart."""
    first, *others = four()
    cut = Fault("power cut", "web1", 51.0, 55.0)
    dead = [replace(worker, last_beat=51.0) for worker in (first, others[0])]
    short = life("web1", 1, 55.0, 55.3, pid=81)
    lives = [*dead, short, *others[1:], *(life("web1", slot, 56.0, generation=2) for slot in (1, 2))]
    seen = record(lives=lives, faults=[cut], operations=[replace(_RESTART, end=62.0)])
    assert 1 not in broken(seen)
    longer = [replace(short, last_beat=55.9), *(one for one in lives if one is not short)]
    assert 1 in broken(replace(seen, lives=longer))


def test_a_worker_stopped_before_its_successor_is_ready_breaks_1() -> None:
    first, *others = four()
    lives = [replace(first, last_beat=52.0), life("web1", 1, 53.0, generation=2), *others]
    assert broken(record(lives=lives, operations=[replace(_RESTART, code=1)])) == {1}


def test_two_processes_of_one_worker_and_too_many_on_a_host_break_2() -> None:
    twice = life("web1", 1, 50.0, pid=99)
    assert 2 in broken(record(lives=[*four(), twice]))
    crowd = [life("web2", slot, 50.0) for slot in (3, 4)]
    assert broken(record(lives=[*four(), *crowd])) == {2}


def test_a_worker_that_ends_without_a_reason_breaks_3_and_a_fault_elsewhere_is_none() -> None:
    first, *others = four()
    lives = [replace(first, last_beat=52.0), life("web1", 1, 52.1, pid=99), *others]
    kill_of_the_agent = Fault("kill", "web1", 51.9, 52.0, "fleet-agent")
    assert 3 in broken(record(lives=lives, faults=[kill_of_the_agent]))
    power_cut_elsewhere = Fault("power cut", "web2", 51.9, 55.0)
    assert 3 in broken(record(lives=lives, faults=[power_cut_elsewhere]))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("worker killed", "web1", 52.0, 52.0, "11"),
        Fault("power cut", "web1", 51.2, 70.0),
        Fault("reboot", "web1", 45.0, 70.0),
    ],
)
def test_a_worker_ended_from_outside_may_start_again(fault: Fault) -> None:
    first, *others = four()
    lives = [replace(first, last_beat=52.0), life("web1", 1, 53.0, pid=99), *others]
    assert check(record(lives=lives, faults=[fault])) == []


def test_a_lower_epoch_obeyed_after_a_higher_one_breaks_4() -> None:
    log = [
        "web1 fleet-agent[1]: fleet-agent: INFO: session with controller 10.0.0.11:7400, epoch 1.7",
        "web1 fleet-agent[1]: fleet-agent: INFO: session with controller 10.0.0.12:7400, epoch 1.9",
    ]
    assert broken(record(epochs=epochs_of("web1", log))) == set()
    (found,) = check(record(epochs=epochs_of("web1", [*log, log[0]])))
    assert found.invariant == 4
    assert found.evidence == (log[1], log[0])
    balancer = ["INFO subscribed, epoch 2.3", "INFO subscribed, epoch 1.9"]
    assert broken(record(epochs=epochs_of("lb1", balancer))) == {4}


def test_an_acknowledged_change_that_is_gone_breaks_5_and_one_that_was_refused_may_be_there_or_not() -> None:
    done = Operation(("env-set", "my-app", "NUMBER=1"), 20.0, 25.0, 0, "updated")
    refused = Operation(("env-set", "my-app", "NUMBER=2"), 30.0, 31.0, 5, "not confirmed")
    base = {"operations": [done, refused], "lives": []}
    for value in ("1", "2"):
        assert check(record(**base, sights=[sight(90.0, variable=value, revision=2)])) == []
    assert broken(record(**base, sights=[sight(90.0, variable="", revision=1)])) == {5}
    assert broken(record(**base, sights=[sight(90.0, variable="1", revision=9)])) == {5}


def test_what_does_not_settle_or_runs_unreported_breaks_6() -> None:
    assert broken(record(sights=[sight(90.0, difference="not settled: 3/4")])) == {6}
    unreported = sight(90.0, running={"web1": [11, 12, 13]}, reported={"my-app/web1/1": 11, "my-app/web1/2": 12})
    assert broken(record(sights=[unreported])) == {6}


def test_a_failed_request_breaks_7_unless_a_fault_took_its_host_before_that_was_known() -> None:
    assert broken(record(failures=[failure(52.0)])) == {7}
    cut = Fault("power cut", "web1", 50.0, 60.0)
    lives = [life("web1", 1, ended=50.0), life("web1", 2, ended=50.0), *four()[2:]]
    assert check(record(lives=lives, faults=[cut], failures=[failure(52.9, at=57.9)])) == []
    assert broken(record(lives=lives, faults=[cut], failures=[failure(53.1, at=58.1)])) == {7}


def test_a_killed_worker_excuses_the_posts_it_had_and_no_get() -> None:
    first, *others = four()
    lives = [replace(first, last_beat=52.0), life("web1", 1, 53.0, pid=99), *others]
    faults = [Fault("worker killed", "web1", 52.0, 52.0, "11")]
    assert check(record(lives=lives, faults=faults, failures=[failure(51.98)])) == []
    assert broken(record(lives=lives, faults=faults, failures=[failure(51.98, method="GET")])) == {7}


def test_a_balancers_own_machine_excuses_its_clients_while_it_is_away() -> None:
    cut = Fault("power cut", "lb1", 50.0, 60.0)
    assert check(record(faults=[cut], failures=[failure(55.0)])) == []
    assert broken(record(faults=[cut], failures=[failure(55.0, target="10.0.0.22:80")])) == {7}


def test_a_stranger_that_was_ended_breaks_8() -> None:
    assert broken(record(sights=[sight(90.0, strangers={"web1": True, "web2": False})])) == {8}


def test_writes_while_nothing_happens_break_9() -> None:
    assert broken(record(sights=[sight(90.0, writes=1)])) == {9}


def test_an_answer_that_is_not_true_breaks_10() -> None:
    assert broken(record(operations=[_RESTART])) == {10}
    assert broken(record(operations=[replace(_RESTART, code=1, output="Traceback (most recent call last)")])) == {10}
    assert broken(record(operations=[replace(_RESTART, code=1, output="")])) == {10}
    assert broken(record(operations=[replace(_RESTART, code=None)])) == {10}
    assert check(record(operations=[replace(_RESTART, code=6, output="still running")])) == []
