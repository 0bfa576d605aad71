"""When a worker counts as ready, as a pure state machine: findings and times in, verdicts out.

Times are CLOCK_BOOTTIME seconds, as in the supervisor's records, so that a start deadline survives the agent.
"""

from dataclasses import dataclass, replace

from fleet_agent.supervisor.protocol import Worker
from fleet_core.spec import AppSpec, ListenMode

_EAGER_SECONDS = 0.02
_EAGER_FOR_SECONDS = 10.0
_PATIENT_SECONDS = 0.1
_HTTP_RETRY_SECONDS = 0.1
_UNREADY_SECONDS = 1.0


@dataclass(frozen=True)
class Rule:
    """What is checked of one worker, and how often."""

    address: str
    port: int
    """0: there is nothing to connect to; alive for `min_uptime_seconds` is ready."""
    http_path: str
    start_timeout_seconds: float
    min_uptime_seconds: float
    interval_seconds: float
    timeout_seconds: float
    unready_threshold: int

    @classmethod
    def of(cls, spec: AppSpec, address: str, port: int) -> "Rule":
        ready = spec.ready
        listens = spec.listen_mode is ListenMode.PORT
        return cls(
            address,
            port if listens else 0,
            ready.http_path if listens else "",
            ready.start_timeout_seconds,
            ready.min_uptime_seconds,
            ready.interval_seconds,
            ready.timeout_seconds,
            ready.unready_threshold,
        )


@dataclass(frozen=True)
class Finding:
    """What one check saw; `seen` says it in words, also when it is good."""

    good: bool
    seen: str = ""


@dataclass(frozen=True)
class Ready:
    """Note it ready."""


@dataclass(frozen=True)
class Unready:
    """Note it unready."""

    seen: str


@dataclass(frozen=True)
class Failed:
    """It did not become ready in time."""

    reason: str


Verdict = Ready | Unready | Failed


@dataclass(frozen=True)
class Course:
    """How the checks of one process go."""

    pid: int
    started: float
    was_ready: bool
    ready: bool
    next_check: float
    failures: int = 0
    """Consecutive."""
    given_up: bool = False


def begin(rule: Rule, worker: Worker, now: float) -> Course:
    """The checks of a process seen for the first time. One the supervisor holds for ready is ready: an agent's restart
    changes nothing."""
    ready = worker.state == "running"
    return Course(
        pid=worker.pid,
        started=worker.started_monotonic,
        was_ready=ready or worker.state == "unready",
        ready=ready,
        next_check=now + rule.interval_seconds if ready else now,
    )


def judge(rule: Rule, course: Course, finding: Finding, now: float) -> tuple[Course, Verdict | None]:
    """What one finding means. A verdict is given once, when it changes something."""
    if course.given_up:
        return course, None
    if finding.good:
        good = replace(course, ready=True, was_ready=True, failures=0, next_check=now + rule.interval_seconds)
        return good, None if course.ready else Ready()
    course = replace(course, failures=course.failures + 1, next_check=now + _pause(rule, course, now))
    if course.ready and course.failures >= rule.unready_threshold:
        pause = min(rule.interval_seconds, _UNREADY_SECONDS)
        return replace(course, ready=False, next_check=now + pause), Unready(finding.seen)
    if not course.was_ready and now - course.started >= rule.start_timeout_seconds:
        reason = f"not ready within {rule.start_timeout_seconds:g} s: {finding.seen}"
        return replace(course, given_up=True), Failed(reason)
    return course, None


def uptime_finding(rule: Rule, course: Course, now: float) -> Finding:
    """For a worker that serves nothing."""
    alive = now - course.started
    return Finding(alive >= rule.min_uptime_seconds, f"alive for {alive:.1f} s of {rule.min_uptime_seconds:g} s")


def _pause(rule: Rule, course: Course, now: float) -> float:
    if course.ready:
        return rule.interval_seconds
    if course.was_ready:
        return min(rule.interval_seconds, _UNREADY_SECONDS)
    return _EAGER_SECONDS if now - course.started < _EAGER_FOR_SECONDS else _PATIENT_SECONDS


def http_pause(course: Course) -> float:
    """Before an HTTP request is made again to a worker that listens but does not answer well yet: kinder than looking at
    sockets, which costs the worker nothing."""
    return 0.0 if course.was_ready else _HTTP_RETRY_SECONDS
