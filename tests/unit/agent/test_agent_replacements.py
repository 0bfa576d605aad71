"""Who is to be replaced, on a clock the tests wind."""

import math
import time
from datetime import datetime

import pytest

from fleet_agent.cron import cron_times
from fleet_agent.process_tree import Usage
from fleet_agent.replacements import Demand, demands, failures, near_a_limit, replaceable
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
    workers = [(worker(), LIMITED)]
    assert demands(workers, using(100), {}) == {}
    assert demands(workers, using(150), {}) == {WEB: Demand(42, "memory: 150 MiB of 100 MiB")}
    assert demands(workers, using(150, pid=41), {}) == {}, "that was the process before it"
    assert demands(workers, {}, {}) == {}
    assert demands([(worker(), app())], using(150), {}) == {}


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
    assert demands([(worker(started=499.0), NIGHTLY)], {}, due) == {WEB: Demand(42, "cron time 0 3 * * *")}
    assert demands([(worker(started=500.5), NIGHTLY)], {}, due) == {}


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


def test_a_day_that_never_comes_is_never_due() -> None:
    assert cron_times("0 0 30 2 *", time.time()) == (-math.inf, math.inf)
