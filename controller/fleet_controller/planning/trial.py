"""How many workers a rollout may replace before its new revision has shown that it is good. Pure.

A revision that never ran in full is on trial. First one worker is started beside its predecessor, and must stay ready for the
policy's `bake_seconds` before it gets a request and any old worker is touched. Then the canaries, where the policy asks for them,
until a user promotes them or they stayed ready for `canary_seconds`. Then the rest. While canaries are watched no crash of theirs
is forgotten: one that dies every minute would else wait for its promotion for ever, and look well whenever somebody asks.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from fleet_controller.planning.views import Memory, WorkerView
from fleet_controller.records import AppRecord, RolloutRecord, RolloutState
from fleet_core.spec import RolloutPolicy


@dataclass(frozen=True, slots=True)
class Trial:
    """What holds for one call of the planner."""

    allowed: int | None
    """Slots that may have been given a worker of the new revision; None: all."""
    ready_seconds: float
    """So long a new worker must stay ready before its predecessor is touched."""
    sound_seconds: float
    """A worker that was ready for so long has put its crashes behind it; infinite: none has while canaries are watched."""
    proven: int
    promoted: int
    """As `Memory` keeps them; 0: not, or not on trial."""
    unproven: bool
    """On trial, and no worker has stayed ready for long enough yet."""
    awaits_promotion: bool
    wakes: tuple[float, ...]
    """When one of the above may change by itself."""


def on_trial(app: AppRecord, rollout: RolloutRecord | None) -> bool:
    """The rollout under way brings a revision that never ran in full, whatever kind of operation took its place since."""
    return (
        rollout is not None
        and rollout.state is RolloutState.RUNNING
        and not rollout.at_once
        and rollout.previous is not None
        and rollout.previous.revision != app.revision
        and app.revision not in app.good_revisions
    )


def judge_trial(
    app: AppRecord,
    rollout: RolloutRecord | None,
    policy: RolloutPolicy,
    memory: Memory,
    newcomers: Collection[WorkerView],
    now: float,
) -> Trial:
    """`newcomers`: the workers of the new revision that keep their slots."""
    if rollout is None or not on_trial(app, rollout):
        ready = policy.min_ready_seconds
        return Trial(None, ready, ready, 0, 0, unproven=False, awaits_promotion=False, wakes=())
    bake = max(policy.bake_seconds, policy.min_ready_seconds)
    proven = memory.proven == app.revision or _some(newcomers, 1, bake, now)
    if not proven:
        wakes = tuple(_ends(newcomers, bake))
        return Trial(1, bake, bake, 0, 0, unproven=True, awaits_promotion=False, wakes=wakes)
    canary = min(policy.canary, app.wanted_total)
    promoted = (
        not canary
        or rollout.promoted
        or memory.promoted == app.revision
        or (policy.canary_seconds > 0 and _some(newcomers, canary, policy.canary_seconds, now))
    )
    return Trial(
        allowed=None if promoted else canary,
        ready_seconds=policy.min_ready_seconds,
        sound_seconds=bake if promoted else math.inf,
        proven=app.revision,
        promoted=app.revision if promoted else 0,
        unproven=False,
        awaits_promotion=not promoted and _some(newcomers, canary, policy.min_ready_seconds, now),
        wakes=() if promoted else tuple(_ends(newcomers, max(policy.canary_seconds, policy.min_ready_seconds))),
    )


def _some(workers: Collection[WorkerView], count: int, seconds: float, now: float) -> bool:
    """At least so many have been ready for so long."""
    return sum(end <= now for end in _ends(workers, seconds)) >= count


def _ends(workers: Collection[WorkerView], seconds: float) -> Iterator[float]:
    return (worker.ready_since + seconds for worker in workers if worker.ready and worker.ready_since is not None)
