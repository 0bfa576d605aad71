"""Who is to be replaced, on a clock the tests wind."""

import itertools
import math
import time
from datetime import datetime

import pytest

from fleet_agent.cron import cron_times
from fleet_agent.process_tree import Usage
from fleet_agent.replacements import (
    Demand,
    Excess,
    Slot,
    demands,
    excesses,
    failures,
    in_vain,
    near_a_limit,
    replaceable,
)
from fleet_agent.supervisor.protocol import Key, Launch, Worker
from fleet_core.spec import AppSpec

WEB = Key("web", 1, 1)
MIB = 1024 * 1024


def app(**fields: object) -> AppSpec:
    return AppSpec.model_validate({"name": "web", "argv": ["x"], "cwd": "/", **fields})


def worker(state: str = "running", pid: int = 42, started: float = 100.0) -> Worker:
    return Worker(WEB, Launch(["x"], "/", {}), state, pid=pid, started_monotonic=started)


def using(mib: float, pid: int = 42) -> dict[Key, Usage]:
    return {WEB: Usage(pid, int(mib * MIB), 0.0, 0.0, 1, 1)}


LIMITED = app(limits={"memory_restart_bytes": 100 * MIB})
NIGHTLY = app(cron_restart="0 3 * * *")


def test_a_worker_above_its_memory_limit_is_demanded_as_long_as_it_is() -> None:
    def demanded(workers: list[tuple[Worker, AppSpec]], usage: dict[Key, Usage]) -> dict[Key, Demand]:
        return demands(workers, usage, {}, excesses(workers, usage, {}, 101.0))

    workers = [(worker(), LIMITED)]
    assert demanded(workers, using(100)) == {}
    assert demanded(workers, using(150)) == {WEB: Demand(42, "memory: 150 MiB of 100 MiB")}
    assert demanded(workers, using(150, pid=41)) == {}, "that was the process before it"
    assert demanded(workers, {}) == {}
    assert demanded([(worker(), app())], using(150)) == {}


def replaced_at(until: float, spec: AppSpec = LIMITED, first: int = 1) -> tuple[list[float], dict[Slot, Excess]]:
    """When each process of a slot that is above its limit from its start is demanded, looked at every second; its successor
    is there a second later."""
    known: dict[Slot, Excess] = {}
    pid, started, times = first, 0.0, []
    now = 0.0
    while now < until:
        now += 1.0
        workers = [(worker(pid=pid, started=started), spec)]
        known = excesses(workers, using(150, pid), known, now)
        if demands(workers, using(150, pid), {}, known):
            times.append(now)
            pid, started = pid + 1, now + 1.0
    return times, known


def test_a_slot_whose_processes_are_above_their_limit_from_the_start_is_replaced_ever_more_rarely() -> None:
    times, known = replaced_at(400.0)
    assert [after - before for before, after in itertools.pairwise(times)] == [11, 21, 41, 61, 61, 61, 61, 61]
    assert times[0] == 1.0, "the first at once"
    (words,) = in_vain(known, "host1")
    assert words.startswith(
        "web/host1/1 was above its memory limit 9 times in a row (150 MiB of 100 MiB) and is replaced once in 60 s at most"
    )


def test_a_slot_whose_memory_was_in_order_for_long_or_whose_limit_changed_begins_anew() -> None:
    _, known = replaced_at(40.0)
    later = [(worker(pid=9, started=640.0), LIMITED)]
    assert excesses(later, using(50, 9), known, 641.0) == {}
    assert demands(later, using(150, 9), {}, excesses(later, using(150, 9), known, 641.0))
    raised = [(worker(pid=9, started=40.0), app(limits={"memory_restart_bytes": 120 * MIB}))]
    assert demands(raised, using(150, 9), {}, excesses(raised, using(150, 9), known, 41.0))
    assert in_vain(excesses(raised, using(50, 9), known, 41.0), "host1") == []


def test_a_process_that_is_to_be_replaced_stays_so_while_its_successor_is_above_the_limit_too() -> None:
    old, new = worker(pid=1, started=0.0), worker(pid=2, started=2.0)
    new = Worker(Key("web", 1, 2), new.launch, new.state, pid=2, started_monotonic=2.0)
    both = [(old, LIMITED), (new, LIMITED)]
    usage = {**using(150, 1), new.key: Usage(2, 150 * MIB, 0.0, 0.0, 1, 1)}
    known = excesses([(old, LIMITED)], usage, {}, 1.0)
    assert demands(both, usage, {}, excesses(both, usage, known, 5.0)).keys() == {WEB}
    assert demands(both, usage, {}, excesses(both, usage, known, 15.0)).keys() == {WEB, new.key}


def test_memory_is_looked_at_often_only_near_the_limit() -> None:
    assert not near_a_limit([(worker(), LIMITED)], using(80))
    assert near_a_limit([(worker(), LIMITED)], using(81))


def test_the_agent_helps_itself_only_without_a_controller_for_long_and_far_above_the_limit() -> None:
    workers = [(worker(), LIMITED)]
    assert failures(workers, using(121), 29.0) == {}
    assert failures(workers, using(119), 300.0) == {}
    assert failures(workers, using(121), 30.0) == {WEB: Demand(42, "memory: 121 MiB of 100 MiB")}


def test_only_what_runs_and_shall_run_is_replaced() -> None:
    specs = {WEB: LIMITED}
    assert replaceable([worker("unready")], specs) == [(worker("unready"), LIMITED)]
    assert replaceable([worker("stopping"), worker("backoff", pid=0)], specs) == []
    assert replaceable([worker()], {}) == []


def test_a_cron_time_concerns_each_process_that_is_older_than_it_once() -> None:
    """The agent may have been restarted around it: it remembers nothing."""
    due = {"0 3 * * *": 500.0}
    assert demands([(worker(started=499.0), NIGHTLY)], {}, due, {}) == {WEB: Demand(42, "cron time 0 3 * * *")}
    assert demands([(worker(started=500.5), NIGHTLY)], {}, due, {}) == {}


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()


@pytest.fixture(autouse=True)
def _restore_zone() -> object:
    yield
    time.tzset()


def at(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(fold=fold).timestamp()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("now", "last", "following"),
    [
        ("2026-06-10 02:59:59", "2026-06-09 03:00", "2026-06-10 03:00"),
        ("2026-06-10 03:00:00", "2026-06-10 03:00", "2026-06-11 03:00"),
        ("2026-06-10 03:00:01", "2026-06-10 03:00", "2026-06-11 03:00"),
    ],
)
def test_cron_times_are_local_and_count_from_their_own_second(now: str, last: str, following: str) -> None:
    assert cron_times("0 3 * * *", at(now)) == (at(last), at(following))
    assert cron_times("0 3 * * *", at(now) + 0.4) == (at(last), at(following))


@pytest.mark.usefixtures("berlin")
def test_an_hour_that_comes_twice_is_due_once() -> None:
    first = at("2026-10-25 02:30")
    again = at("2026-10-25 02:45", fold=1)
    assert again - first == 4500
    assert cron_times("30 2 * * *", again)[0] == first


@pytest.mark.usefixtures("berlin")
def test_names_of_times_are_understood() -> None:
    now = at("2026-06-10 12:00")
    assert cron_times("@daily", now) == (at("2026-06-10 00:00"), at("2026-06-11 00:00"))
    assert cron_times("@hourly", now + 60) == (now, now + 3600)


def test_a_day_that_never_comes_is_never_due() -> None:
    assert cron_times("0 0 30 2 *", time.time()) == (-math.inf, math.inf)
