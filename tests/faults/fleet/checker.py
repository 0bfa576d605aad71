"""Whether a record breaks an invariant, and which; each violation with the lines of the record that show it. Pure.

What a fault or an operation excuses is said here, in one place for each: everything else is a violation. Instants come from the
workers' own journals and from one clock, so no verdict rests on polling.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.faults.fleet.record import Fault, Operation, Record, SeenEpoch, Sight
from tests.load.journal import Life, doubles, fewest_ready, most_alive
from tests.load.tally import Failure, FailureKind

GONE_SECONDS = 3.0
"""The endpoints of a host that died, or froze, leave within these (DESIGN: when something dies)."""
CLIENT_SECONDS = 5.0
"""Until a request without an answer counts as failed."""
_SLACK_SECONDS = 0.5
"""A journal's last sign of life may be so much older than the end, on a machine that is busy."""
_SAID_SECONDS = 0.5
"""From when a worker listens until its agent found it and said so, and the leader heard: before, nobody calls it ready."""
_TAKES_SECONDS = {"worker killed": 5.0, "power cut": 5.0, "reboot": 120.0}
"""From the record of a fault, which comes first, until the last process that it ends, on a machine that is busy."""
_SHOWN = 5
MUTE = frozenset({"power cut", "freeze"})
"""Requests that are at the host then get no answer."""
CHANGES = frozenset({"soft-restart", "env-set", "env-unset", "set-size", "rollback", "host", "rollout", "restart"})
"""Operations that replace, start or stop workers."""
CODES = frozenset({0, 1, 3, 5, 6})
"""Of the exit codes the design has, those that a well-formed command may end with."""


@dataclass(frozen=True, slots=True)
class Violation:
    """`invariant`: its number in the design."""

    invariant: int
    text: str
    at: float
    evidence: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"invariant {self.invariant} at {self.at:.3f}: {self.text}"


def check(record: Record) -> list[Violation]:
    """In order of time; an empty list is a pass."""
    checks: tuple[Callable[[Record], Iterable[Violation]], ...] = (
        enough_ready,
        not_too_many,
        untouched_by_faults,
        epochs_only_rise,
        changes_survive,
        settles,
        requests_answered,
        nobody_else_signalled,
        quiet_when_steady,
        answers_are_true,
    )
    found = [violation for judge in checks for violation in judge(record)]
    return sorted(found, key=lambda violation: violation.at)


# What excuses what


def killed(record: Record, life: Life) -> Fault | None:
    """Who ended this process from outside, or None."""
    for fault in record.faults:
        if fault.machine != life.place.host or (fault.kind == "worker killed" and fault.detail != str(life.pid)):
            continue
        takes = _TAKES_SECONDS.get(fault.kind)
        if (
            takes is not None
            and fault.begin - _SLACK_SECONDS <= life.last_beat <= min(fault.begin + takes, fault.end) + _SLACK_SECONDS
        ):
            return fault
    return None


def changing(record: Record, at: float) -> list[Operation]:
    """Operations that may have replaced or stopped a worker then: from when they were asked for until the fleet had settled.

    An operation that was cut off may be carried out later, by the next leader.
    """
    return [
        operation
        for operation in record.operations
        if operation.argv[0] in CHANGES and operation.begin <= at <= _settled_after(record, operation.begin)
    ]


def _settled_after(record: Record, at: float) -> float:
    return next((sight.at for sight in record.sights if sight.at >= at and not sight.difference), float("inf"))


def sizes(record: Record, begin: float, end: float) -> set[int]:
    """Every size the app may have been told to have in [begin, end]."""
    current = {record.size}
    for operation in sorted(record.operations, key=lambda operation: operation.begin):
        if operation.argv[0] != "set-size" or operation.begin > end:
            continue
        wanted = int(operation.argv[2])
        done = operation.code == 0 and _settled_after(record, operation.begin) < begin
        current = {wanted} if done else current | {wanted}
    return current


def ends(record: Record) -> Iterator[Life]:
    """Lives that ended while the run went on."""
    for life in record.lives:
        if life.last_beat < record.end - _SLACK_SECONDS and life.last_beat > record.begin:
            yield life


# Invariant by invariant


def enough_ready(record: Record) -> Iterator[Violation]:
    """1: whenever a ready worker was stopped by us, enough were left."""
    for life in ends(record):
        if life.listening is None or killed(record, life) is not None:
            continue
        end = life.ready_until
        if end < life.listening + _SAID_SECONDS:
            continue
        others = [other for other in record.lives if other is not life]
        left = fewest_ready(others, end, end).count
        # What faults ended and nobody has replaced yet was not our instruction.
        missing = _missing_by_fault(record, end)
        wanted = min(sizes(record, end, end))
        if left + missing < wanted:
            yield Violation(
                1,
                f"{life.place.app}/{life.place.host}/{life.place.slot}@{life.place.generation} (pid {life.pid}) was stopped with "
                f"{left} others ready, of {wanted}",
                end,
                tuple(str(cause) for cause in changing(record, end)),
            )


def _missing_by_fault(record: Record, at: float) -> int:
    """Workers that were ended by faults, on hosts or slots that have not come back by then."""
    count = 0
    for life in record.lives:
        if life.last_beat >= at or killed(record, life) is None or life.listening is None:
            continue
        back = [
            other
            for other in record.lives
            if other.place.host == life.place.host
            and other.place.slot == life.place.slot
            and other.started > life.started
            and other.listening is not None
            and other.listening <= at
        ]
        count += not back
    return count


def not_too_many(record: Record) -> Iterator[Violation]:
    """2: never two processes of one worker, nor more on a host than its share and the surge."""
    for earlier, later in doubles(record.lives):
        yield Violation(2, f"pids {earlier.pid} and {later.pid} were both {earlier.place}", later.started)
    sights = _settled(record)
    bounds = [record.begin, *(sight.at for sight in sights), record.end]
    for number, (begin, end) in enumerate(pairwise(bounds)):
        even = -(
            -max(sizes(record, begin, end)) // max(1, len(record.hosts) - len(_hosts_in_doubt(record, begin, end)))
        )
        for host in record.hosts:
            # What moved stays where it is: a share may be larger than an even one.
            shares = [sight.placement.get(host, 0) for sight in sights[max(0, number - 1) : number + 1]]
            most = max([even, *shares]) + record.surge
            seen = most_alive([life for life in record.lives if life.place.host == host], begin, min(end, record.end))
            if seen.count > most:
                yield Violation(2, f"{seen.count} workers were alive on {host}, which may have {most}", seen.at)


def _hosts_in_doubt(record: Record, begin: float, end: float) -> set[str]:
    """Hosts that may have had to give up their share for a while."""
    gone = {
        fault.machine
        for fault in record.faults
        if fault.machine in record.hosts and fault.begin <= end and fault.end >= begin and fault.kind != "worker killed"
    }
    moved = {
        operation.argv[2]
        for operation in record.operations
        if operation.argv[:2] in (("host", "drain"), ("host", "cordon")) and operation.begin <= end
    }
    opened = {
        operation.argv[2]
        for operation in record.operations
        if operation.argv[:2] == ("host", "uncordon") and operation.code == 0 and operation.end < begin
    }
    return gone | (moved - opened) | (moved if _any_open(record, begin, end) else set())


def _any_open(record: Record, begin: float, end: float) -> bool:
    return any(
        operation.argv[0] == "host" and operation.begin <= end and operation.end >= begin
        for operation in record.operations
    )


def untouched_by_faults(record: Record) -> Iterator[Violation]:
    """3: a worker ends because its process was ended from outside, or an operation says so; and none starts again else."""
    for life in ends(record):
        if killed(record, life) is not None or changing(record, life.last_beat) or _retired(record, life):
            continue
        near = [str(fault) for fault in record.faults if fault.begin <= life.last_beat <= fault.end + CLIENT_SECONDS]
        text = f"{_name(life)} (pid {life.pid}) ended, and neither an operation nor a fault of its host ended it"
        yield Violation(3, text, life.last_beat, tuple(near[:_SHOWN]))
    by_place: defaultdict[object, list[Life]] = defaultdict(list)
    for life in record.lives:
        by_place[life.place].append(life)
    for same in by_place.values():
        same.sort(key=lambda life: life.started)
        for earlier, later in pairwise(same):
            if (
                later.started < record.begin
                or later.started <= earlier.last_beat
                or killed(record, earlier) is not None
            ):
                continue
            between = [*changing(record, earlier.last_beat), *changing(record, later.started)]
            # A slot that was taken away and given again has the app's generation both times.
            if not any(operation.argv[0] in ("set-size", "host") for operation in between) and not _retired(
                record, earlier
            ):
                text = f"{_name(later)} was started again as pid {later.pid}, and nobody had ended pid {earlier.pid}"
                yield Violation(3, text, later.started)


def _retired(record: Record, life: Life) -> bool:
    """Its host came back after its share had been started elsewhere, and enough served: what the design has for lost hosts."""
    return any(
        fault.machine == life.place.host
        and fault.kind in ("partition", "freeze", "power cut")
        and fault.end < life.last_beat
        for fault in record.faults
        if fault.end - fault.begin > record.lost_after
    )


def epochs_only_rise(record: Record) -> Iterator[Violation]:
    """4: no service begins a session of a lower epoch than one it had."""
    highest: dict[str, SeenEpoch] = {}
    for seen in record.epochs:
        before = highest.get(seen.service)
        if before is not None and seen.epoch < before.epoch:
            text = f"{seen.service} obeyed epoch {_epoch(seen)} after {_epoch(before)}"
            yield Violation(4, text, record.begin, (before.line, seen.line))
        else:
            highest[seen.service] = seen


def changes_survive(record: Record) -> Iterator[Violation]:
    """5: the last acknowledged change of each kind is what is seen afterwards, and none took effect twice."""
    for sight in _settled(record):
        for kind, seen in (("set-size", str(sight.size)), ("env-set", sight.variable)):
            allowed, last = _allowed(record, kind, sight.at)
            if allowed and seen not in allowed:
                text = f"after {kind} the fleet has {seen!r}, and should have {' or '.join(sorted(allowed))}"
                yield Violation(5, text, sight.at, tuple(map(str, last)))
        asked = [
            operation
            for operation in record.operations
            if operation.argv[0] in ("env-set", "rollback") and operation.begin < sight.at
        ]
        if sight.revision > 1 + len(asked) + sum(operation.code != 0 for operation in asked):
            text = f"revision {sight.revision} after {len(asked)} changes: one took effect twice"
            yield Violation(5, text, sight.at, tuple(map(str, asked[-_SHOWN:])))


def _allowed(record: Record, kind: str, at: float) -> tuple[set[str], list[Operation]]:
    """What may be seen then: the last acknowledged value, and any asked for since, or at the same time, without an answer 0."""
    asked = [operation for operation in record.operations if operation.argv[0] == kind and operation.begin < at]
    acknowledged = [operation for operation in asked if operation.code == 0]
    if not acknowledged:
        return set(), asked
    last = max(acknowledged, key=lambda operation: operation.end)
    open_ones = [
        operation for operation in asked if operation.end > last.begin and (operation.code != 0 or operation is last)
    ]
    return {operation.argv[2].removeprefix("NUMBER=") for operation in open_ones}, open_ones


def settles(record: Record) -> Iterator[Violation]:
    """6: without faults, what is wanted becomes so, and what is reported is what runs."""
    for sight in record.sights:
        if sight.difference:
            text = f"{sight.seconds:.0f} s after the last fault: {sight.difference}"
            yield Violation(6, text, sight.at)
            continue
        for host, pids in sight.running.items():
            reported = sorted(pid for worker, pid in sight.reported.items() if worker.split("/")[1] == host)
            if sorted(pids) != reported:
                text = f"{host} runs pids {sorted(pids)}, and {reported} are reported"
                yield Violation(6, text, sight.at)


def requests_answered(record: Record) -> Iterator[Violation]:
    """7: no request fails but those that were at a host when it died, or came before it was known to be dead."""
    unexcused = [failure for failure in record.failures if not excused(record, failure)]
    for failure in unexcused[:_SHOWN]:
        causes: tuple[Fault | Operation, ...] = (*record.faults, *record.operations)
        near = [
            str(cause) for cause in causes if cause.begin <= failure.at and cause.end >= failure.began - CLIENT_SECONDS
        ]
        text = (
            f"{failure.method} on a {failure.connection} connection to {failure.target}, sent at {failure.began:.3f}: "
            f"{failure.kind}, {failure.detail}"
        )
        yield Violation(7, text, failure.at, tuple(near))
    if len(unexcused) > _SHOWN:
        text = f"{len(unexcused)} requests failed without an excuse, {_SHOWN} of them are shown"
        yield Violation(7, text, unexcused[_SHOWN].at)


def excused(record: Record, failure: Failure) -> bool:
    """Whether a fault lets this request fail."""
    for fault in record.faults:
        if fault.machine in record.hosts:
            in_time = failure.began <= fault.begin + GONE_SECONDS and failure.at >= fault.begin
            if fault.kind in MUTE and in_time:
                return True
            # A request that may not be repeated is lost with the process that had it.
            at_hand = failure.began <= fault.begin + _SLACK_SECONDS and failure.at >= fault.begin
            if fault.kind == "worker killed" and failure.method == "POST" and at_hand:
                return failure.kind in (FailureKind.STATUS, FailureKind.RESET)
        elif failure.target.partition(":")[0] == record.addresses.get(fault.machine, ""):
            # Its own balancer's machine: clients ask another address once this one refuses, not while it is silent.
            until = fault.end + CLIENT_SECONDS
            if fault.kind in ("power cut", "freeze", "reboot") and fault.begin - CLIENT_SECONDS <= failure.at <= until:
                return True
    return False


def nobody_else_signalled(record: Record) -> Iterator[Violation]:
    """8: a process that is none of ours is alive at the end as at the beginning."""
    for sight in record.sights:
        for host, alive in sight.strangers.items():
            if not alive:
                yield Violation(8, f"a process that is none of ours was ended on {host}", sight.at)


def quiet_when_steady(record: Record) -> Iterator[Violation]:
    """9."""
    for sight in _settled(record):
        if sight.writes:
            yield Violation(9, f"etcd was written to {sight.writes} times while nothing happened", sight.at)


def answers_are_true(record: Record) -> Iterator[Violation]:
    """10: what was reported as done was done, and what failed said so in words."""
    for operation in record.operations:
        if operation.code is None:
            yield Violation(10, f"never ended: {operation}", operation.begin)
        elif operation.code not in CODES or "Traceback" in operation.output or not operation.output.strip():
            text = f"no documented answer: {operation}"
            yield Violation(10, text, operation.end, tuple(operation.output.splitlines()[-_SHOWN:]))
        elif operation.code == 0:
            yield from _done(record, operation)


def _done(record: Record, operation: Operation) -> Iterator[Violation]:
    """Of an operation that was reported as done."""
    if operation.argv[0] in ("soft-restart", "env-set"):
        old = [
            life
            for life in record.lives
            if life.started < operation.begin and life.last_beat > operation.end + _SLACK_SECONDS
        ]
        old = [life for life in old if life.place.host in _reachable(record, operation)]
        if old:
            names = ", ".join(f"{_name(life)} (pid {life.pid})" for life in old[:_SHOWN])
            yield Violation(10, f"reported as done, and not replaced were {names}: {operation}", operation.end)


def _reachable(record: Record, operation: Operation) -> set[str]:
    """Hosts that no fault kept from being asked: what runs on the others is replaced when they are back."""
    away = {
        fault.machine
        for fault in record.faults
        if fault.begin <= operation.end and fault.end + CLIENT_SECONDS >= operation.begin
    }
    return set(record.hosts) - away


def _settled(record: Record) -> Sequence[Sight]:
    return [sight for sight in record.sights if not sight.difference]


def _name(life: Life) -> str:
    place = life.place
    return f"{place.app}/{place.host}/{place.slot}@{place.generation}"


def _epoch(seen: SeenEpoch) -> str:
    return ".".join(map(str, seen.epoch))
