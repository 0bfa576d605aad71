"""Readiness on a clock the tests wind."""

import dataclasses

from fleet_agent.readiness import Course, Failed, Finding, Ready, Rule, Unready, Verdict, begin, judge, uptime_finding
from fleet_agent.supervisor.protocol import Key, Launch, Worker

RULE = Rule("10.0.0.1", 20_001, "", 30.0, 1.0, 5.0, 5.0, 3)
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
    assert course.next_check == 110.3


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
    assert judge_all(course, (SILENT, 500.0), (GOOD, 501.0))[1] == [Ready()]


def test_alive_long_enough_is_ready_where_there_is_nothing_else() -> None:
    rule = dataclasses.replace(RULE, port=0)
    course = begin(rule, worker(), 100.0)
    assert not uptime_finding(rule, course, 100.9).good
    assert uptime_finding(rule, course, 101.0).good
