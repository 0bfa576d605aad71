"""The judge of the fault test sees what is planted, and nothing where nothing is."""

from dataclasses import replace

import pytest

from tests.faults.evidence import Event, Evidence, Key, Life, Process
from tests.faults.judge import judge

KEY = Key("plain", 1, 1)
FIRST = Life(KEY, Process(10, 100), started=1.0, last_beat=5.0, attempted=50, written=50, longest_write=0.1)
SECOND = Life(KEY, Process(11, 600), started=5.1, last_beat=20.0, attempted=30, written=30, told=19.9)
"""FIRST was killed by the test at 5.0 and SECOND took its place, until it was stopped at the end."""


def lines(life: Life, *numbers: int) -> list[bytes]:
    return [f"{life.name} {number} xxx\n".encode() for number in numbers or range(1, life.written + 1)]


def event(at: float, name: str, **details: object) -> Event:
    return {"at": at, "event": name, **details}


HISTORY = [
    event(0.1, "started", service="supervisor", pid=1, stored=0),
    event(0.2, "ready", service="supervisor", pid=1),
    event(0.5, "assigned", targets=[[list(KEY), "run"]]),
    event(1.5, "begun", seconds=1.0, difference="", living=[[10, 100]]),
    event(2.0, "signal", service="supervisor", pid=1, signal="KILL"),
    event(2.0, "ended", service="supervisor", pid=1, how="was killed by SIGKILL"),
    event(2.3, "started", service="supervisor", pid=2, stored=0),
    event(2.5, "ready", service="supervisor", pid=2),
    event(5.0, "worker killed", key=list(KEY), pid=10, start_ticks=100),
    event(18.0, "settled", seconds=0.5, difference="", living=[[11, 600]]),
    event(19.8, "assigned", targets=[]),
    event(20.1, "stopped", seconds=0.5, difference="", living=[]),
    event(20.2, "signal", service="supervisor", pid=2, signal="TERM"),
    event(20.3, "ended", service="supervisor", pid=2, how="ended with exit code 0"),
]
LOG = [*lines(FIRST), *lines(SECOND)]
GOOD = Evidence([FIRST, SECOND], {("plain", 1): LOG}, HISTORY)


def with_log(log: list[bytes]) -> Evidence:
    return replace(GOOD, logs={("plain", 1): log})


def without(events: list[Event], *names: str) -> list[Event]:
    return [each for each in events if each["event"] not in names]


def changed(name: str, **details: object) -> Evidence:
    return replace(GOOD, history=[{**each, **details} if each["event"] == name else each for each in HISTORY])


def test_a_run_in_which_every_promise_was_kept_is_accepted() -> None:
    verdict = judge(GOOD)
    assert verdict.violations == []
    assert verdict.facts["lines_written"] == 80
    assert verdict.facts["lives_ended_in_an_outage"] == 0
    assert verdict.facts["longest_outage_seconds"] == 0.5


def test_the_time_before_a_line_is_no_part_of_it() -> None:
    assert judge(with_log([b"2026-01-02T03:04:05.678Z " + line for line in LOG])).violations == []


def test_the_object_around_a_line_is_no_part_of_it() -> None:
    log = [b'{"time":"2026-01-02T03:04:05.678Z","message":"%b"}\n' % line.rstrip() for line in LOG]
    assert judge(with_log(log)).violations == []
    assert judge(with_log(log[1:])).violations == [f"{FIRST.name}: lines 1 to 1 are lost"]


def test_a_line_may_be_cut_between_two_rotated_files() -> None:
    content = b"".join(LOG)
    assert judge(with_log([content[:1000], content[1000:]])).violations == []


def test_a_line_whose_write_never_returned_may_have_arrived_or_not() -> None:
    evidence = replace(GOOD, lives=[replace(FIRST, written=49), SECOND])
    assert judge(evidence).violations == []
    assert judge(replace(evidence, logs={("plain", 1): [*LOG[:49], *LOG[50:]]})).violations == []


PLANTED: dict[str, tuple[Evidence, str]] = {
    "a doubled line": (with_log([*LOG[:7], LOG[6], *LOG[7:]]), f"{FIRST.name}: line 7 arrived again after line 7"),
    "a doubled block": (with_log([*LOG[:50], *LOG[40:]]), f"{FIRST.name}: line 41 arrived again after line 50"),
    "a lost line": (with_log([*LOG[:6], *LOG[7:]]), f"{FIRST.name}: lines 7 to 7 are lost"),
    "lost first lines": (with_log(LOG[2:]), f"{FIRST.name}: lines 1 to 2 are lost"),
    "lost last lines": (with_log(LOG[:-3]), f"{SECOND.name}: its last 3 lines of 30 never arrived"),
    "two lines in the wrong order": (
        with_log([LOG[1], LOG[0], *LOG[2:]]),
        f"{FIRST.name}: line 1 arrived again after line 2",
    ),
    "a torn line": (with_log([*LOG[:3], LOG[3][:9] + LOG[50], *LOG[4:]]), "holds what nobody wrote"),
    "half a line at the end": (with_log([*LOG, b"plain.1"]), "ends in half a line"),
    "a line nobody wrote": (
        with_log([*LOG, *lines(SECOND, 31)]),
        f"{SECOND.name}: line 31 arrived, 30 were written",
    ),
    "an overlapping pair": (
        replace(GOOD, lives=[FIRST, replace(SECOND, started=4.9)]),
        "plain/1@1 ran twice: pid 10 until 5.000, pid 11 from 4.900",
    ),
    "a killed worker that is not in the history": (
        replace(GOOD, history=without(HISTORY, "worker killed")),
        f"{FIRST.name} ended at 5.000, and nobody had told it to",
    ),
    "a stop signal nobody asked for": (
        replace(GOOD, lives=[replace(FIRST, told=4.9), SECOND]),
        f"{FIRST.name} got a stop signal, and nobody told plain/1@1 to stop",
    ),
    "a stop before it was asked for": (
        replace(GOOD, lives=[FIRST, replace(SECOND, told=19.0)]),
        f"{SECOND.name} got a stop signal, and nobody told plain/1@1 to stop",
    ),
    "a worker nobody wanted": (
        replace(GOOD, lives=[*GOOD.lives, replace(SECOND, key=Key("plain", 2, 1), process=Process(12, 1))]),
        "was started, and nobody wanted plain/2@1",
    ),
    "a worker that started before it was wanted": (
        replace(GOOD, lives=[replace(FIRST, started=0.4), SECOND]),
        "was started, and nobody wanted plain/1@1",
    ),
    "a blocked writer": (
        replace(GOOD, lives=[replace(FIRST, longest_write=5.2), SECOND]),
        f"{FIRST.name} was blocked in write for 5.2 s",
    ),
    "a writer that would have been blocked": (
        replace(GOOD, lives=[replace(FIRST, full=3), SECOND]),
        f"{FIRST.name} found no room for 3 lines",
    ),
    "a blocked notification": (
        replace(GOOD, lives=[replace(FIRST, longest_notify=5.2), SECOND]),
        f"{FIRST.name} was blocked in a notification for 5.2 s",
    ),
    "a notification nobody could take": (
        replace(GOOD, lives=[replace(FIRST, unheard=1), SECOND]),
        f"{FIRST.name} could not send 1 notifications",
    ),
    "a writer that was killed in the middle of a long write": (
        replace(GOOD, lives=[replace(FIRST, attempted=51, last_beat=-0.2, started=-0.5), SECOND]),
        f"{FIRST.name} was blocked in write for 5.2 s",
    ),
    "a daemon that crashed": (
        replace(GOOD, history=[each for each in HISTORY if each.get("signal") != "KILL"]),
        "supervisor 1 was killed by SIGKILL, and nobody told it to",
    ),
    "a host that did not come to what was wanted": (
        changed("settled", difference="x"),
        "what was wanted was not what ran: x",
    ),
    "a process that was left": (
        changed("stopped", difference="plain/1@1 11"),
        "nothing was not what ran: plain/1@1 11",
    ),
    "a run that broke off": (replace(GOOD, history=without(HISTORY, "stopped")), "before the host was stopped"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_and_little_else(name: str) -> None:
    evidence, said = PLANTED[name]
    violations = judge(evidence).violations
    assert any(said in violation for violation in violations), violations
    assert len(violations) <= 3, violations


@pytest.mark.parametrize("killed_at", [4.0, 1.99, 2.2, 2.6], ids=["long after", "just before", "in", "after"])
def test_the_end_of_a_pipe_is_never_excused_by_an_outage(killed_at: float) -> None:
    first = replace(FIRST, last_beat=killed_at)
    log = [line for line in LOG if line not in lines(FIRST, 49, 50)]
    verdict = judge(replace(with_log(log), lives=[first, SECOND]))
    assert verdict.violations == [f"{FIRST.name}: its last 2 lines of 50 never arrived"]
    assert verdict.facts["lives_ended_in_an_outage"] == (killed_at == 2.2)


def test_a_gap_in_the_middle_is_never_excused() -> None:
    first = replace(FIRST, last_beat=2.2)
    verdict = judge(replace(with_log([*LOG[:20], *LOG[21:]]), lives=[first, SECOND]))
    assert verdict.violations == [f"{FIRST.name}: lines 21 to 21 are lost"]
