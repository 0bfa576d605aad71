"""Whether the evidence of a run breaks a promise, and which. Pure. There is no excuse for a line: not that its worker was killed
while the supervisor was away, nor that the supervisor was killed while it formatted it.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.faults.evidence import Event, Evidence, Key, Life, Process

LONGEST_WRITE_SECONDS = 5.0
"""By the clock, which tells of a slow machine too. That a pipe was full, which is what blocks, is no matter of time."""
_STOP_SLACK_SECONDS = 0.5
"""A writer's last sign of life may be so much older than its end, on a machine that is busy."""
_LINE = re.compile(rb"(?:\d{4}-\d\d-\d\dT\S+ )?([a-z-]+\.\d+\.\d+\.\d+\.\d+) (\d+) x+")
"""With the time before it where the app's log has times."""
_SHOWN = 5
"""A fault that repeats is shown so often."""


@dataclass(frozen=True)
class Span:
    begin: float
    end: float


@dataclass(frozen=True)
class Verdict:
    violations: list[str]
    facts: dict[str, float] = field(default_factory=dict)
    """What was counted on the way."""


def judge(evidence: Evidence) -> Verdict:
    lives, history = evidence.lives, _until_stopped(evidence.history)
    violations = [
        *_services(history),
        *_ends(lives, history),
        *doubles(lives),
        *_lines(lives, evidence.logs),
        *_writes(lives, history),
        *_settlement(history),
    ]
    facts = {
        "faults": sum(event["event"] == "signal" for event in history),
        "workers_killed": len(_killed(history)),
        "worker_lives": len(lives),
        "log_rotations": sum(len(files) - 1 for files in evidence.logs.values()),
        "lines_written": sum(life.written for life in lives),
        "lives_ended_in_an_outage": sum(
            any(span.begin <= life.last_beat <= span.end for span in outages(history)) for life in lives
        ),
        "longest_write_seconds": round(max((life.longest_write for life in lives), default=0.0), 3),
        "longest_notification_seconds": round(max((life.longest_notify for life in lives), default=0.0), 3),
        "longest_outage_seconds": round(max((span.end - span.begin for span in outages(history)), default=0.0), 3),
        "settled_seconds": next((round(event["seconds"], 2) for event in history if event["event"] == "settled"), -1.0),
    }
    return Verdict(violations, facts)


def _until_stopped(history: Sequence[Event]) -> list[Event]:
    """Without the end of the daemons after the last worker's: it excuses nothing."""
    stopped = next((index for index, event in enumerate(history) if event["event"] == "stopped"), len(history))
    return list(history[: stopped + 1])


def _services(history: Sequence[Event]) -> list[str]:
    """Neither daemon may end by itself."""
    signalled = {
        event["pid"] for event in history if event["event"] == "signal" and event["signal"] in ("KILL", "TERM")
    }
    return [
        f"{event['service']} {event['pid']} {event['how']}, and nobody told it to"
        for event in history
        if event["event"] == "ended" and event["pid"] not in signalled
    ]


def _killed(history: Sequence[Event]) -> set[Process]:
    return {Process(event["pid"], event["start_ticks"]) for event in history if event["event"] == "worker killed"}


def _ends(lives: Sequence[Life], history: Sequence[Event]) -> list[str]:
    """Every end must have been ordered before it; every life must have been wanted before it began."""
    killed = _killed(history)
    wanted, unwanted = orders(history)
    settled = next((event for event in history if event["event"] == "settled"), None)
    living = {Process(*process) for process in settled["living"]} if settled else set()
    found = []
    for life in lives:
        since = wanted.get(life.key)
        if since is None or life.started < since:
            found.append(f"{life.name} was started, and nobody wanted {life.key}")
        stopped = unwanted.get(life.key)
        if life.process in living or life.process in killed:
            if life.told is not None and (stopped is None or life.told < stopped):
                found.append(f"{life.name} got a stop signal, and nobody told {life.key} to stop")
            continue
        end = life.last_beat if life.told is None else life.told
        if stopped is None or stopped > end + (_STOP_SLACK_SECONDS if life.told is None else 0.0):
            found.append(f"{life.name} ended at {end:.3f}, and nobody had told it to")
    return found


def orders(history: Sequence[Event]) -> tuple[dict[Key, float], dict[Key, float]]:
    """When each worker was first wanted, and when it was first told to stop or wanted no more. No generation comes back."""
    wanted: dict[Key, float] = {}
    unwanted: dict[Key, float] = {}
    for event in history:
        if event["event"] != "assigned":
            continue
        running = {Key(*key) for key, phase in event["targets"] if phase == "run"}
        for key in running:
            wanted.setdefault(key, event["at"])
        for key in wanted.keys() - running:
            unwanted.setdefault(key, event["at"])
    return wanted, unwanted


def doubles(lives: Iterable[Life]) -> list[str]:
    by_key: defaultdict[Key, list[Life]] = defaultdict(list)
    for life in lives:
        by_key[life.key].append(life)
    found = []
    for key, same in by_key.items():
        same.sort(key=lambda life: life.started)
        for index, earlier in enumerate(same):
            found += [
                f"{key} ran twice: pid {earlier.process.pid} until {earlier.last_beat:.3f}, "
                f"pid {later.process.pid} from {later.started:.3f}"
                for later in same[index + 1 :]
                if later.started <= earlier.last_beat
            ]
    return found


def _lines(lives: Sequence[Life], logs: Mapping[tuple[str, int], Sequence[bytes]]) -> list[str]:
    """Every line of every life: once, in order, to its last one."""
    found: list[str] = []
    arrived: dict[str, list[int]] = {life.name: [] for life in lives}
    for (app, slot), files in logs.items():
        content = b"".join(files)
        if content and not content.endswith(b"\n"):
            found.append(f"the log of {app}/{slot} ends in half a line: {content[-60:]!r}")
        for line in content.split(b"\n")[:-1]:
            match = _LINE.fullmatch(_message(line))
            numbers = arrived.get(match[1].decode()) if match else None
            if match is None or numbers is None:
                found.append(f"the log of {app}/{slot} holds what nobody wrote: {line[:120]!r}")
            else:
                numbers.append(int(match[2]))
    for life in lives:
        numbers = arrived[life.name]
        found += _disorder(life, numbers)
        last = numbers[-1] if numbers else 0
        if last > life.attempted:
            found.append(f"{life.name}: line {last} arrived, {life.attempted} were written")
        missing = life.written - last
        if missing > 0:
            found.append(f"{life.name}: its last {missing} lines of {life.written} never arrived")
    return found


def _message(line: bytes) -> bytes:
    """Of a JSON line; any other is one."""
    try:
        return str(json.loads(line)["message"]).encode() if line.startswith(b"{") else line
    except (ValueError, KeyError):
        return line


def _disorder(life: Life, numbers: Sequence[int]) -> list[str]:
    found = []
    for before, number in pairwise([0, *numbers]):
        if number <= before:
            found.append(f"{life.name}: line {number} arrived again after line {before}")
        elif number > before + 1:
            found.append(f"{life.name}: lines {before + 1} to {number - 1} are lost")
    return found[:_SHOWN]


def outages(history: Sequence[Event]) -> list[Span]:
    """When no supervisor served and at least one ended: from its freezing or its end to READY=1 of the next."""
    spans: list[Span] = []
    begin: float | None = None
    ended = False
    for event in history:
        if event.get("service") != "supervisor":
            continue
        kind = event["event"]
        fatal = kind == "ended" or (kind == "signal" and event["signal"] in ("KILL", "TERM"))
        if fatal or (kind == "signal" and event["signal"] == "STOP"):
            begin = event["at"] if begin is None else begin
            ended = ended or fatal
        elif begin is not None and (kind == "ready" or (kind == "signal" and not ended)):
            if ended:
                spans.append(Span(begin, event["at"]))
            begin, ended = None, False
    if begin is not None and ended:
        spans.append(Span(begin, float("inf")))
    return spans


def _writes(lives: Iterable[Life], history: Sequence[Event]) -> list[str]:
    """A writer that was killed in a write has not measured that one."""
    killed_at = {
        Process(event["pid"], event["start_ticks"]): event["at"]
        for event in history
        if event["event"] == "worker killed"
    }
    found = []
    for life in lives:
        unfinished = (
            killed_at.get(life.process, life.last_beat) - life.last_beat if life.attempted > life.written else 0.0
        )
        if (longest := max(life.longest_write, unfinished)) > LONGEST_WRITE_SECONDS:
            found.append(f"{life.name} was blocked in write for {longest:.1f} s")
        if life.full:
            found.append(f"{life.name} found no room for {life.full} lines: an ordinary program is blocked there")
        if life.longest_notify > LONGEST_WRITE_SECONDS:
            found.append(f"{life.name} was blocked in a notification for {life.longest_notify:.1f} s")
        if life.unheard:
            found.append(f"{life.name} could not send {life.unheard} notifications")
    return found


def _settlement(history: Sequence[Event]) -> list[str]:
    found = []
    ends = {event["event"]: event for event in history if event["event"] in ("begun", "settled", "stopped")}
    for name, what in (("begun", "what was wanted"), ("settled", "what was wanted"), ("stopped", "nothing")):
        if name not in ends:
            found.append(f"the run ended before the host was {name}")
        elif ends[name]["difference"]:
            found.append(f"{ends[name]['seconds']:.1f} s later, {what} was not what ran: {ends[name]['difference']}")
    return found
