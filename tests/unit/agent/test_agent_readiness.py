"""Readiness on a clock the tests wind."""

import dataclasses
import math

import pytest

from fleet_agent.readiness import (
    Course,
    Failed,
    Finding,
    Ready,
    Rule,
    Unready,
    Verdict,
    begin,
    heed,
    judge,
    silence_finding,
    uptime_finding,
)
from fleet_agent.supervisor.protocol import Key, Launch, Worker
from fleet_core.spec import AppSpec, ReadyMethod

RULE = Rule(ReadyMethod.LISTEN, "10.0.0.1", 20_001, "", (), 30.0, 1.0, 5.0, 5.0, 3)
GOOD = Finding(good=True)
SILENT = Finding(good=False, seen="nothing listens on port 20001")


def worker(state: str = "starting", started: float = 100.0) -> Worker:
    return Worker(Key("web", 1, 1), Launch(["x"], "/", {}), state, pid=42, started_monotonic=started)


def judge_all(course: Course, *findings: tuple[Finding, float], rule: Rule = RULE) -> tuple[Course, list[Verdict]]:
    verdicts: list[Verdict] = []
    for finding, now in findings:
        course, verdict = judge(rule, course, finding, now)
        if verdict is not None:
            verdicts.append(verdict)
    return course, verdicts


def test_a_starting_worker_is_looked_at_every_20_ms_and_ready_once() -> None:
    course = begin(RULE, worker(), 100.0)
    assert course.next_check == 100.0
    course, verdicts = judge_all(course, (SILENT, 100.0))
    assert course.next_check == 100.02
    course, verdicts = judge_all(course, (GOOD, 100.3), (GOOD, 105.3))
    assert verdicts == [Ready()]
    assert course.next_check == 110.0, "ready workers are looked at together"


def test_a_slow_starter_is_looked_at_less_often() -> None:
    course, _ = judge_all(begin(RULE, worker(), 100.0), (SILENT, 115.0))
    assert round(course.next_check - 115.0, 3) == 0.1


def test_a_timeout_is_a_failure_that_says_what_was_seen_and_is_said_once() -> None:
    _, verdicts = judge_all(
        begin(RULE, worker(), 100.0), (SILENT, 129.9), (SILENT, 130.0), (SILENT, 131.0), (GOOD, 132.0)
    )
    assert verdicts == [Failed("not ready within 30 s: nothing listens on port 20001")]


def test_the_start_deadline_counts_from_the_start_not_from_the_agents() -> None:
    course = begin(RULE, worker(started=100.0), 129.0)
    assert judge_all(course, (SILENT, 130.5))[1] == [Failed("not ready within 30 s: nothing listens on port 20001")]


def test_one_failure_less_than_the_threshold_changes_nothing() -> None:
    course = begin(RULE, worker("running"), 200.0)
    assert course.next_check == 205.0
    _, verdicts = judge_all(course, (SILENT, 205.0), (SILENT, 210.0), (GOOD, 215.0), (SILENT, 220.0), (SILENT, 225.0))
    assert verdicts == []


def test_an_unready_worker_is_ready_again_at_its_first_good_check_and_never_fails_its_start() -> None:
    course = begin(RULE, worker("running"), 200.0)
    course, verdicts = judge_all(course, (SILENT, 205.0), (SILENT, 210.0), (SILENT, 215.0))
    assert verdicts == [Unready("nothing listens on port 20001")]
    assert course.next_check == 216.0
    _, verdicts = judge_all(course, (SILENT, 400.0), (GOOD, 401.0))
    assert verdicts == [Ready()]


def test_a_worker_that_was_unready_when_the_agent_restarted_is_not_failed_by_its_start_deadline() -> None:
    course = begin(RULE, worker("unready"), 500.0)
    assert judge_all(course, (SILENT, 500.0), (GOOD, 501.0))[1] == [Unready(SILENT.seen), Ready()]


def test_alive_long_enough_is_ready_where_there_is_nothing_else() -> None:
    rule = dataclasses.replace(RULE, method=ReadyMethod.UPTIME, port=0)
    course = begin(rule, worker(), 100.0)
    assert course.next_check == 101.0
    assert not uptime_finding(rule, course, 100.9).good
    assert uptime_finding(rule, course, 101.0).good
    course, verdicts = judge_all(course, (uptime_finding(rule, course, 101.0), 101.0), rule=rule)
    assert (verdicts, course.next_check) == ([Ready()], math.inf), "nothing can take it back"


@pytest.mark.parametrize("method", [ReadyMethod.NOTIFY, ReadyMethod.MESSAGE])
def test_a_worker_that_speaks_for_itself_is_only_held_to_its_start_timeout(method: ReadyMethod) -> None:
    rule = dataclasses.replace(RULE, method=method)
    course = begin(rule, worker(), 100.0)
    assert course.next_check == 130.0
    spoken = heed(rule, course, dataclasses.replace(worker("running"), ever_ready=True))
    assert (spoken.ready, spoken.next_check) == (True, math.inf)
    _, verdicts = judge_all(course, (silence_finding(rule), 130.0), rule=rule)
    awaited = {ReadyMethod.NOTIFY: "READY=1", ReadyMethod.MESSAGE: "the message 'ready'"}[method]
    assert verdicts == [Failed(f"not ready within 30 s: it did not send {awaited}")]


def test_what_the_supervisor_says_of_a_worker_does_not_replace_the_agents_own_checks() -> None:
    course = begin(RULE, worker(), 100.0)
    assert heed(RULE, course, dataclasses.replace(worker("running"), ever_ready=True)) == course


def test_a_command_is_not_run_fifty_times_a_second() -> None:
    rule = dataclasses.replace(RULE, method=ReadyMethod.COMMAND, command=("check",))
    course, _ = judge_all(begin(rule, worker(), 100.0), (SILENT, 100.0), rule=rule)
    assert course.next_check == 100.5
    course, _ = judge_all(course, (GOOD, 100.6), rule=rule)
    assert course.next_check == 105.6


@pytest.mark.parametrize(
    ("fields", "method"),
    [
        ({}, ReadyMethod.LISTEN),
        ({"ready": {"http_path": "/"}}, ReadyMethod.HTTP),
        ({"ready": {"http_path": "/", "method": "tcp"}}, ReadyMethod.TCP),
        ({"listen_mode": "none"}, ReadyMethod.UPTIME),
        ({"listen_mode": "none", "ready": {"http_path": "/"}}, ReadyMethod.UPTIME),
        ({"listen_mode": "socket"}, ReadyMethod.UPTIME),
        ({"listen_mode": "socket", "ready": {"http_path": "/"}}, ReadyMethod.HTTP),
        ({"ready": {"method": "notify"}}, ReadyMethod.NOTIFY),
    ],
)
def test_the_method_follows_from_the_spec(fields: dict[str, object], method: ReadyMethod) -> None:
    spec = AppSpec.model_validate({"name": "web", "argv": ["x"], "cwd": "/", **fields})
    assert Rule.of(spec, "10.0.0.1", 20_001).method is method


def test_a_worker_that_shares_its_port_is_not_asked_before_it_had_time_to_start() -> None:
    """Until then a sibling would answer for it."""
    spec = AppSpec.model_validate(
        {
            "name": "web",
            "argv": ["x"],
            "cwd": "/",
            "listen_mode": "socket",
            "ready": {"http_path": "/", "min_uptime_seconds": 2},
        }
    )
    assert begin(Rule.of(spec, "10.0.0.1", 20_001), worker(), 100.0).next_check == 102.0


def test_why_a_worker_is_not_ready_any_more_is_said_once_by_each_agent() -> None:
    course, _ = judge_all(begin(RULE, worker(), 100.0), (GOOD, 100.0))
    late = [(SILENT, 100.0 + step) for step in range(5, 30, 5)]
    course, verdicts = judge_all(course, *late)
    assert verdicts == [Unready(SILENT.seen)]
    taken_over = begin(RULE, worker("unready"), 200.0)
    taken_over, verdicts = judge_all(taken_over, (SILENT, 200.0), (SILENT, 201.0))
    assert verdicts == [Unready(SILENT.seen)]
    _, verdicts = judge_all(taken_over, (GOOD, 202.0), (SILENT, 207.0), (SILENT, 212.0), (SILENT, 217.0))
    assert verdicts == [Ready(), Unready(SILENT.seen)]
