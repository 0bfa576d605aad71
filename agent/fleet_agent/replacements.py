"""Which workers should be replaced, because of their memory or their hour. Pure: usage and times in, demands out.

The controller replaces them, start-first; only where it has been away for long does the agent help itself. A demand is a state:
it stands as long as its reason holds for the same process, so a restart of the agent in between loses and repeats nothing. A
cron time concerns the processes that are older than it: there is nothing to remember.
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
_REPLACEABLE = frozenset({"starting", "running", "unready"})
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Demand:
    """This process is to be replaced."""

    pid: int
    reason: str


def replaceable(workers: Iterable[Worker], specs: Mapping[Key, AppSpec]) -> list[tuple[Worker, AppSpec]]:
    """Those with a process that shall run. `specs`: of the targets that say run."""
    return [
        (worker, specs[worker.key])
        for worker in workers
        if worker.pid and worker.state in _REPLACEABLE and worker.key in specs
    ]


def demands(
    workers: Iterable[tuple[Worker, AppSpec]], usage: Mapping[Key, Usage], due: Mapping[str, float]
) -> dict[Key, Demand]:
    """`due`: cron expression → when it was due last, on the clock of the workers' records."""
    found: dict[Key, Demand] = {}
    for worker, spec in workers:
        if spec.cron_restart and worker.started_monotonic < due[spec.cron_restart]:
            found[worker.key] = Demand(worker.pid, f"cron time {spec.cron_restart}")
        if over := _memory_over(worker, spec, usage, 1.0):
            found[worker.key] = Demand(worker.pid, over)
    return found


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
    return f"memory: {used.rss_bytes / _MIB:.0f} MiB of {limit / _MIB:.0f} MiB"
