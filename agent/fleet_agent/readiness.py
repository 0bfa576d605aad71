"""When a worker counts as ready, as a pure state machine: findings and times in, verdicts out.

Times are CLOCK_BOOTTIME seconds, as in the supervisor's records, so that a start deadline survives the agent.
"""

import math
from dataclasses import dataclass, replace

from fleet_agent.supervisor.protocol import Worker
from fleet_core.spec import AppSpec, ListenMode, ReadyMethod

_EAGER_SECONDS = 0.02
_EAGER_FOR_SECONDS = 10.0
_PATIENT_SECONDS = 0.1
_ASKING_RETRY_SECONDS = 0.1
_COMMAND_RETRY_SECONDS = 0.5
_UNREADY_SECONDS = 1.0
_NEVER = math.inf

OWN_WORD = frozenset({ReadyMethod.NOTIFY, ReadyMethod.MESSAGE})
"""The worker says itself that it is ready, to the supervisor, which needs no agent to hear it."""
_ONCE = OWN_WORD | {ReadyMethod.UPTIME}
"""Found out once for each process; nothing can take it back."""


@dataclass(frozen=True)
class Rule:
    """What is checked of one worker, and how often."""

    method: ReadyMethod
    address: str
    port: int
    """0: there is nothing to connect to."""
    http_path: str
    command: tuple[str, ...]
    start_timeout_seconds: float
    min_uptime_seconds: float
    interval_seconds: float
    timeout_seconds: float
    unready_threshold: int
    shared: bool = False
    """All workers of the app answer at this port, so an answer is any of theirs: the process must also be `min_uptime_seconds`
    old."""

    @classmethod
    def of(cls, spec: AppSpec, address: str, port: int) -> "Rule":
        ready = spec.ready
        return cls(
            _method(spec),
            address,
            port,
            ready.http_path,
            ready.command,
            ready.start_timeout_seconds,
            ready.min_uptime_seconds,
            ready.interval_seconds,
            ready.timeout_seconds,
            ready.unready_threshold,
            shared=spec.listen_mode is ListenMode.SOCKET,
        )


def _method(spec: AppSpec) -> ReadyMethod:
    """What the spec leaves open, and HTTP where there is no port to ask, is settled by the listen mode."""
    method = spec.ready.method
    if method is None and spec.ready.http_path:
        method = ReadyMethod.HTTP
    if method is ReadyMethod.HTTP and spec.listen_mode is ListenMode.NONE:
        return ReadyMethod.UPTIME
    if method is not None:
        return method
    return ReadyMethod.LISTEN if spec.listen_mode is ListenMode.PORT else ReadyMethod.UPTIME


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
    told: bool = False
    """Not ready any more, and a verdict said why."""


def begin(rule: Rule, worker: Worker, now: float) -> Course:
    """The checks of a process seen for the first time. One the supervisor holds for ready is ready: an agent's restart
    changes nothing."""
    ready = worker.state == "running"
    first_look = max(now, worker.started_monotonic + _first_look_seconds(rule))
    return Course(
        pid=worker.pid,
        started=worker.started_monotonic,
        was_ready=ready or worker.state == "unready",
        ready=ready,
        next_check=_next_steady(rule, now) if ready else first_look,
    )


def heed(rule: Rule, course: Course, worker: Worker) -> Course:
    """The supervisor's word on a process under check: where the worker speaks for itself, that is all there is to find."""
    if rule.method not in OWN_WORD or not worker.ever_ready:
        return course
    return replace(course, ready=worker.state == "running", was_ready=True, next_check=_NEVER)


def judge(rule: Rule, course: Course, finding: Finding, now: float) -> tuple[Course, Verdict | None]:
    """What one finding means. A verdict is given once, when it changes something."""
    if course.given_up:
        return course, None
    if finding.good:
        good = replace(course, ready=True, was_ready=True, failures=0, next_check=_next_steady(rule, now), told=False)
        return good, None if course.ready else Ready()
    course = replace(course, failures=course.failures + 1, next_check=now + _pause(rule, course, now))
    if course.ready and course.failures >= rule.unready_threshold:
        pause = min(rule.interval_seconds, _UNREADY_SECONDS)
        return replace(course, ready=False, next_check=now + pause, told=True), Unready(finding.seen)
    if course.was_ready and not course.ready and not course.told:
        # It was so before this agent: nobody remembers why.
        return replace(course, told=True), Unready(finding.seen)
    if times_out(rule, course, now):
        reason = f"not ready within {rule.start_timeout_seconds:g} s: {finding.seen}"
        return replace(course, given_up=True), Failed(reason)
    return course, None


def times_out(rule: Rule, course: Course, now: float) -> bool:
    """A finding that is not good is the last one."""
    return not course.was_ready and now - course.started >= rule.start_timeout_seconds


def uptime_finding(rule: Rule, course: Course, now: float) -> Finding:
    """For a worker that serves nothing, or whose own answers cannot be told from its siblings'."""
    alive = now - course.started
    return Finding(alive >= rule.min_uptime_seconds, f"alive for {alive:.1f} s of {rule.min_uptime_seconds:g} s")


def silence_finding(rule: Rule) -> Finding:
    """For a worker that should have spoken for itself."""
    awaited = "READY=1" if rule.method is ReadyMethod.NOTIFY else "the message 'ready'"
    return Finding(good=False, seen=f"it did not send {awaited}")


def _first_look_seconds(rule: Rule) -> float:
    """After the start of a process: before, nothing can be found."""
    if rule.method in OWN_WORD:
        return rule.start_timeout_seconds
    if rule.method is ReadyMethod.UPTIME or rule.shared:
        return min(rule.min_uptime_seconds, rule.start_timeout_seconds)
    return 0.0


def _next_steady(rule: Rule, now: float) -> float:
    """The next check of a ready worker. One look at the listening sockets serves all workers, so those are looked at together."""
    if rule.method in _ONCE:
        return _NEVER
    if rule.method is ReadyMethod.LISTEN:
        return (math.floor(now / rule.interval_seconds) + 1) * rule.interval_seconds
    return now + rule.interval_seconds


def _pause(rule: Rule, course: Course, now: float) -> float:
    if course.ready:
        return _next_steady(rule, now) - now
    if course.was_ready:
        return min(rule.interval_seconds, _UNREADY_SECONDS)
    if rule.method is ReadyMethod.COMMAND:
        return _COMMAND_RETRY_SECONDS
    return _EAGER_SECONDS if now - course.started < _EAGER_FOR_SECONDS else _PATIENT_SECONDS


def asking_pause(course: Course) -> float:
    """Before a worker that does not answer well yet is asked again: kinder than looking at sockets, which costs it nothing."""
    return 0.0 if course.was_ready else _ASKING_RETRY_SECONDS
