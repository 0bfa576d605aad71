"""When a rollout must not go on: a worker of it fails, or nothing gets done any more. Pure."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from fleet_controller.planning.trial import Trial, on_trial
from fleet_controller.planning.views import Failure, Life, Memory, Phase, Situation, WorkerView
from fleet_controller.planning.words import Waiting
from fleet_controller.records import RolloutKind
from fleet_core.ids import WorkerId

CRASHES_THAT_FAIL_A_ROLLOUT = 3
"""A new worker that crashes so often before it is sound fails the rollout: once or twice may be bad luck."""
START_TIMEOUT_MARGIN_SECONDS = 5.0
"""The agent judges the start timeout; the planner only catches an agent that does not say."""


@dataclass(frozen=True, slots=True)
class CrashCounts:
    """What the planner remembers of each worker's troubles, brought up to `now`."""

    unready_since: Mapping[WorkerId, float]
    restarts_when_sound: Mapping[WorkerId, int]

    @classmethod
    def after(cls, memory: Memory, workers: Iterable[WorkerView], sound_seconds: float, now: float) -> Self:
        """A worker is sound once it was ready for `sound_seconds`."""
        unready_since: dict[WorkerId, float] = {}
        restarts: dict[WorkerId, int] = {}
        for worker in workers:
            if worker.phase is Phase.RUN and not worker.ready and not worker.preparing:
                unready_since[worker.id] = memory.unready_since.get(worker.id, now)
            sound = worker.ready and worker.ready_since is not None and now >= worker.ready_since + sound_seconds
            known = memory.restarts_when_sound.get(worker.id, worker.restarts)
            restarts[worker.id] = worker.restarts if sound else known
        return cls(unready_since, restarts)


@dataclass(frozen=True, slots=True)
class FailureSearch:
    found: Failure | None
    wakes: tuple[float, ...]
    """When something may be found although nothing happens."""
    deadline_seconds: float
    """A rollout that gets nothing done for so long has failed; 0: no limit."""
    now: float

    def stalled(self, waiting: Waiting, progress_at: float) -> Failure | None:
        """`progress_at`: when something last got done."""
        if not self.deadline_seconds or waiting.person or self.now < progress_at + self.deadline_seconds:
            return None
        why = f": {waiting.text}" if waiting.text else ""
        return Failure(f"nothing got done for {self.deadline_seconds:g} s{why}")


def find_failure(
    situation: Situation, judged: Collection[WorkerView], counts: CrashCounts, trial: Trial, now: float
) -> FailureSearch:
    """`judged`: the workers whose failure is the rollout's."""
    rollout = situation.rollout
    deadline = situation.spec.rollout.progress_deadline_seconds
    wakes = [situation.memory.progress_at + deadline] if deadline and rollout is not None else []
    if rollout is None or rollout.paused or rollout.kind in (RolloutKind.STOP, RolloutKind.REMOVE):
        return FailureSearch(None, tuple(wakes), deadline, now)
    tried = on_trial(situation.app, rollout)
    for worker in judged:
        if worker.completed:
            continue
        crashes = worker.restarts - counts.restarts_when_sound[worker.id]
        found = _failure_of(worker, crashes, tried=tried, soon=trial.sound_seconds)
        if found is None and not worker.ready and not worker.preparing:
            # The agent ends a process that is not ready in time, and says why; one that says nothing is given a little longer.
            timeout = situation.spec.ready.start_timeout_seconds + (0 if crashes else START_TIMEOUT_MARGIN_SECONDS)
            due = counts.unready_since[worker.id] + timeout
            wakes.append(due)
            if now >= due and worker.id.host in situation.connected:
                found = _failure(worker, "did not become ready" if crashes else f"was not ready within {timeout:g} s")
        if found is not None:
            return FailureSearch(found, tuple(wakes), deadline, now)
        if worker.ready_since is not None and math.isfinite(trial.sound_seconds):
            wakes.append(worker.ready_since + trial.sound_seconds)
    return FailureSearch(None, tuple(wakes), deadline, now)


def _failure_of(worker: WorkerView, crashes: int, *, tried: bool, soon: float) -> Failure | None:
    if worker.life is Life.FAILED:
        return _failure(worker, "failed")
    if crashes < CRASHES_THAT_FAIL_A_ROLLOUT:
        return None
    if not worker.ready:
        return _failure(worker, f"ended {crashes} times before it was ready")
    if tried:
        when = f", never ready for {soon:g} s" if math.isfinite(soon) else " while the canaries were watched"
        return _failure(worker, f"ended {crashes} times{when}")
    return None


def _failure(worker: WorkerView, what: str) -> Failure:
    why = f": {worker.reason}" if worker.reason else ""
    return Failure(f"worker {worker.id.slot_id} {what}{why}", worker.id)
