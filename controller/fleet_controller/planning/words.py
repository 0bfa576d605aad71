"""What a rollout is doing and what it waits for, in words. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fleet_controller.planning.trial import Trial
from fleet_controller.planning.views import BalancerView, Situation
from fleet_controller.records import RolloutKind
from fleet_core.spec import ListenMode

ABSENT_SECONDS = 10.0
"""A balancer that is away for so long is named, with what an operator can do about it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    text: str = ""
    """Empty: it waits for nothing in particular."""
    person: bool = False
    """Only a person can end the wait, so that no deadline may."""


def doing_on(starting: Collection[int], draining: Collection[int], stopping: Collection[int]) -> str:
    """One host's step: "starting 3, draining 2"; empty: nothing."""
    words = (("starting", starting), ("draining", draining), ("stopping", stopping))
    return ", ".join(f"{verb} {listed(slots)}" for verb, slots in words if slots)


def waiting_for(
    situation: Situation,
    balancers: Collection[BalancerView],
    trial: Trial,
    remaining: Mapping[str, int],
    ailing: Collection[str],
    preparing: str,
    held_back: str,
) -> Waiting:
    """`balancers`: those that count; `ailing`: workers that shall serve and do not, while nothing is being done about it;
    `preparing`: how far hosts are with the code that comes first, empty where it is ready; `held_back`: why a worker that
    shall leave may not yet, empty where none is.
    """
    rollout, name = situation.rollout, situation.app.name
    removing = rollout is not None and rollout.kind is RolloutKind.REMOVE
    if not remaining and not removing and not trial.awaits_promotion:
        return Waiting()
    if rollout is not None and rollout.paused:
        why = f" ({rollout.message})" if rollout.message else ""
        return Waiting(
            f"paused{why}: `fleetctl rollout resume {name}` goes on, `fleetctl rollout abort {name}` goes back",
            person=True,
        )
    away = [host for host in remaining if host not in situation.connected]
    if away:
        gone = ""
        if rollout is not None and rollout.kind is RolloutKind.REMOVE:
            gone = f": bring it back, or `fleetctl host remove {min(away)}` if it is gone for good"
        return Waiting(f"waiting for {listed(away)}, not connected{gone}")
    if preparing:
        return Waiting(preparing)
    routed = situation.spec.listen_mode is not ListenMode.NONE
    in_the_way = _for_balancers(balancers) if routed else None
    if in_the_way is not None:
        return in_the_way
    if trial.awaits_promotion:
        ended = _ended(situation)
        go_on = f"`fleetctl rollout promote {name}` goes on"
        if situation.spec.rollout.canary_seconds:
            return Waiting(f"watching the canaries{ended}; {go_on} at once", person=True)
        return Waiting(
            f"the canaries are ready{ended}: {go_on}, `fleetctl rollout abort {name}` goes back", person=True
        )
    if trial.unproven and any(
        worker.ready and worker.revision == situation.app.revision for worker in situation.workers
    ):
        return Waiting(f"watching the first worker of revision {situation.app.revision} for {trial.ready_seconds:g} s")
    if ailing:
        return Waiting(f"waiting for {listed(ailing)}, not ready: `fleetctl status {name}` says why")
    return Waiting(held_back)


def _for_balancers(balancers: Collection[BalancerView]) -> Waiting | None:
    silent = [balancer for balancer in balancers if not balancer.connected]
    if silent:
        names = listed(balancer.name for balancer in silent)
        if max(balancer.absent_seconds for balancer in silent) < ABSENT_SECONDS:
            return Waiting(f"waiting for balancer {names}, not connected")
        first = min(balancer.name for balancer in silent)
        return Waiting(
            f"paused, since balancer {names} is absent and may still send requests: bring it back, "
            f"or `fleetctl balancer remove {first}` if it is gone for good",
            person=True,
        )
    refusing = [balancer for balancer in balancers if balancer.refusal]
    if refusing:
        return Waiting(f"balancer {refusing[0].name} refuses the upstream list: {refusing[0].refusal}")
    return None


def _ended(situation: Situation) -> str:
    """How often the canaries ended, in words; empty: never."""
    app = situation.app
    times = sum(worker.restarts for worker in situation.workers if worker.live and worker.revision == app.revision)
    return f", but ended {times} time(s) already" if times else ""


def listed(things: Iterable[object]) -> str:
    return ", ".join(str(thing) for thing in sorted(things, key=str))
