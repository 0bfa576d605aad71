"""Which workers should be replaced, because of their memory or their hour. Pure: usage and times in, demands out.

The controller replaces them, start-first; only where it has been away for long does the agent help itself. A demand is a state:
it stands as long as its reason holds for the same process, so a restart of the agent in between loses and repeats nothing. A
cron time concerns the processes that are older than it: there is nothing to remember. Where each new process of a slot is soon
above its memory limit, replacing it mends nothing: the first is replaced at once, those after it only once they are so old.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleet_agent.process_tree import Usage
from fleet_agent.supervisor.protocol import Key, Worker
from fleet_core.spec import AppSpec

AWAY_SECONDS = 30.0
"""Without a controller for so long, the agent itself ends what is far above its limit."""
FAR_ABOVE = 1.2
NEAR = 0.8
"""Of the limit: from here on memory is looked at often."""
_FIRST_PATIENCE_SECONDS = 10.0
_LONGEST_PATIENCE_SECONDS = 60.0
_FORGET_SECONDS = 600.0
"""A slot whose memory was in order for so long begins anew."""
_TOO_OFTEN = 3
_REPLACEABLE = frozenset({"starting", "running", "unready"})
_MIB = 1024 * 1024
_ABOUT = "memory: "


@dataclass(frozen=True)
class Demand:
    """This process is to be replaced."""

    pid: int
    reason: str


Slot = tuple[str, int]
"""App and number: its workers follow each other."""


@dataclass(frozen=True)
class Excess:
    """That a slot was above its memory limit, and how often in a row."""

    pids: tuple[int, ...]
    """Its process, and the one before: both are there while the one takes the other's place."""
    limit: int
    """In bytes."""
    words: str
    times: int
    at: float
    """When it was found, on the clock of the workers' records."""

    @property
    def patience_seconds(self) -> float:
        """How old the next process of the slot must be before its memory counts."""
        return min(_FIRST_PATIENCE_SECONDS * 2.0 ** (self.times - 1), _LONGEST_PATIENCE_SECONDS)


def replaceable(workers: Iterable[Worker], specs: Mapping[Key, AppSpec]) -> list[tuple[Worker, AppSpec]]:
    """Those with a process that shall run. `specs`: of the targets that say run."""
    return [
        (worker, specs[worker.key])
        for worker in workers
        if worker.pid and worker.state in _REPLACEABLE and worker.key in specs
    ]


def excesses(
    workers: Iterable[tuple[Worker, AppSpec]], usage: Mapping[Key, Usage], known: Mapping[Slot, Excess], now: float
) -> dict[Slot, Excess]:
    """`known`, without what is long ago, and with the processes whose memory counts from now on."""
    found = {slot: excess for slot, excess in known.items() if now - excess.at < _FORGET_SECONDS}
    for worker, spec in workers:
        slot, limit = (worker.key.app, worker.key.slot), spec.limits.memory_restart_bytes
        over = _memory_over(worker, spec, usage, 1.0)
        before = found.get(slot)
        if before is not None and before.limit != limit:
            del found[slot]
            before = None
        if not over or (before is not None and worker.pid in before.pids):
            continue
        if before is None:
            found[slot] = Excess((worker.pid,), limit, over, 1, now)
        elif now - worker.started_monotonic >= before.patience_seconds:
            found[slot] = Excess((worker.pid, before.pids[0]), limit, over, before.times + 1, now)
    return found


def in_vain(found: Mapping[Slot, Excess], host: str) -> list[str]:
    """Which slots are above their limits whatever is done, in words."""
    return [
        f"{app}/{host}/{slot} was above its memory limit {excess.times} times in a row ({excess.words.removeprefix(_ABOUT)}) "
        f"and is replaced once in {excess.patience_seconds:g} s at most: raise its --max-memory, or mend what takes the memory"
        for (app, slot), excess in sorted(found.items())
        if excess.times >= _TOO_OFTEN
    ]


def demands(
    workers: Iterable[tuple[Worker, AppSpec]],
    usage: Mapping[Key, Usage],
    due: Mapping[str, float],
    found: Mapping[Slot, Excess],
) -> dict[Key, Demand]:
    """`due`: cron expression → when it was due last, on the clock of the workers' records. `found`: of `excesses`."""
    demanded: dict[Key, Demand] = {}
    for worker, spec in workers:
        if spec.cron_restart and worker.started_monotonic < due[spec.cron_restart]:
            demanded[worker.key] = Demand(worker.pid, f"cron time {spec.cron_restart}")
        excess = found.get((worker.key.app, worker.key.slot))
        if excess is not None and worker.pid in excess.pids and (over := _memory_over(worker, spec, usage, 1.0)):
            demanded[worker.key] = Demand(worker.pid, over)
    return demanded


def failures(
    workers: Iterable[tuple[Worker, AppSpec]], usage: Mapping[Key, Usage], away_seconds: float
) -> dict[Key, Demand]:
    """Processes to end without asking anybody, `away_seconds` after the last session with a controller."""
    if away_seconds < AWAY_SECONDS:
        return {}
    return {
        worker.key: Demand(worker.pid, over)
        for worker, spec in workers
        if (over := _memory_over(worker, spec, usage, FAR_ABOVE))
    }


def near_a_limit(workers: Iterable[tuple[Worker, AppSpec]], usage: Mapping[Key, Usage]) -> bool:
    return any(_memory_over(worker, spec, usage, NEAR) for worker, spec in workers)


def _memory_over(worker: Worker, spec: AppSpec, usage: Mapping[Key, Usage], factor: float) -> str:
    """Not empty: it uses more than its limit times `factor`, in words."""
    limit = spec.limits.memory_restart_bytes
    used = usage.get(worker.key)
    if not limit or used is None or used.pid != worker.pid or used.rss_bytes <= limit * factor:
        return ""
    return f"{_ABOUT}{used.rss_bytes / _MIB:.0f} MiB of {limit / _MIB:.0f} MiB"
