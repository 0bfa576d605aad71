"""Which workers must leave their hosts, where they go, and when nothing may move. Pure.

It looks at the whole situation anew each time, as the planner does. What it decides is a placement; the planner carries it out
start-first, like any other. Only floating apps move: of a pinned app the user said where, so its workers on a lost host wait for
it, and those on a host that is being drained rest until the drain is called off.

A share leaves a host that is drained, that lacks a label the app asks for, or that was not heard of for the app's
`lost_after_seconds`. For the last there is a brake: where many hosts are lost at the same time it is more likely that the
controller, or the network before it, is at fault, and that their workers run; then nothing is started elsewhere until enough
of them are back.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from fleet_controller.planning.placement import MAX_WORKERS_PER_HOST, HostFact, moved, no_host, without
from fleet_controller.records import (
    AppRecord,
    AppState,
    HostRecord,
    RolloutKind,
    RolloutRecord,
    RolloutState,
    Scheduling,
    SizeMode,
)
from fleet_core.spec import PlacementPolicy

SETTLING_SECONDS = 30.0
"""So long after the brake was released a lost host is still given time to come back, as the others just did."""
MOST_MOVES_AT_ONCE = 8
"""Apps whose workers are on the move at the same time."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One app, the policy of the revision it is at, and its newest rollout."""

    app: AppRecord
    policy: PlacementPolicy
    rollout: RolloutRecord | None = None
    rollout_written_at: int = 0
    """The store's revision at which the rollout's record was last written."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What is to be remembered from one decision to the next. Lost with a leader, whose hosts' counts begin anew as well."""

    braked: bool = False
    released_at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Move:
    """A floating app's new placement, of the same size, and why."""

    app: AppRecord
    placement: Mapping[str, int]
    cause: str
    within: RolloutRecord | None = None
    """The rollout under way, where the move is part of its way back; else the move is a rollout of its own."""

    @property
    def hosts(self) -> frozenset[str]:
        """Those that lose or gain workers: the decision stands as long as their records do."""
        return frozenset(moved(self.app.placement, self.placement))


@dataclass(frozen=True, slots=True)
class Relocation:
    moves: tuple[Move, ...]
    """To begin now."""
    notices: Mapping[str, tuple[str, ...]]
    """App → what should move and does not, or rests, one sentence each, with what to do about it."""
    brake: str
    """Why lost hosts are not replaced; empty: the brake is off."""
    watch: Watch
    wake_at: float | None
    """Decide again at this time even if nothing happens."""


@dataclass(slots=True)
class _Pass:
    """What one call gathers."""

    moves: list[Move] = field(default_factory=list)
    notices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    wakes: list[float] = field(default_factory=list)


def draining(hosts: Iterable[HostRecord]) -> frozenset[str]:
    """Their names."""
    return frozenset(host.name for host in hosts if host.scheduling is Scheduling.DRAINING)


def at_rest(app: AppRecord, drained: Collection[str]) -> AppRecord:
    """The app as it shall run while these hosts are drained: a pinned one has no workers there.

    Its record keeps them, so that they come back when the drain is called off.
    """
    resting = [host for host in drained if host in app.placement]
    if app.size_mode is SizeMode.FLOATING or not resting:
        return app
    return app.model_copy(update={"placement": {h: n for h, n in app.placement.items() if h not in resting}})


def relocate(apps: Iterable[Placed], hosts: Mapping[str, HostFact], watch: Watch, now: float) -> Relocation:
    """Decide at `now`, the leader's monotonic time in seconds."""
    apps = sorted(apps, key=lambda placed: placed.app.name)
    brake = _brake(hosts)
    released_at = now if watch.braked and not brake else watch.released_at
    watch = Watch(bool(brake), released_at)
    found = _Pass()
    load = Counter[str]()
    for placed in apps:
        load.update(placed.app.placement)
    under_way = sum(_under_way(placed) is RolloutKind.MOVE for placed in apps)
    for placed in apps:
        if placed.app.state is AppState.REMOVING:
            continue
        if placed.app.size_mode is SizeMode.PINNED:
            _rest(placed.app, hosts, found)
            continue
        causes = _causes(placed, hosts, watch, now, found)
        if not causes:
            if brake and placed.policy.lost_after_seconds and _is_on_lost_host(placed.app, hosts):
                found.notices[placed.app.name] = (brake,)
            continue
        cause = ", ".join(text for _, text in sorted(causes.items()))
        taking = [fact.name for fact in hosts.values() if fact.takes(placed.policy.labels)]
        hindrance = _hindrance(placed, causes.keys(), taking, hosts, under_way + len(found.moves))
        if not hindrance:
            placement = without(placed.app.placement, causes.keys(), taking, load)
            most = max(placement.values(), default=0)
            if most > MAX_WORKERS_PER_HOST:
                hindrance = f"the other hosts would have up to {most} each, and {MAX_WORKERS_PER_HOST} is the most"
        if hindrance:
            found.notices[placed.app.name] = (f"its workers do not move ({cause}): {hindrance}",)
            continue
        load.subtract(placed.app.placement)
        load.update(placement)
        found.moves.append(Move(placed.app, placement, cause, placed.rollout if _under_way(placed) else None))
    wake_at = min((wake for wake in found.wakes if wake > now), default=None)
    return Relocation(tuple(found.moves), found.notices, brake, watch, wake_at)


def _causes(placed: Placed, hosts: Mapping[str, HostFact], watch: Watch, now: float, found: _Pass) -> dict[str, str]:
    """Host → why the app's share leaves it, in words that stay the same for as long as the reason does."""
    causes = {}
    for name in placed.app.placement:
        host = hosts.get(name)
        if host is None:
            continue  # its record cannot be read: a host that has a share is never removed
        if host.scheduling is Scheduling.DRAINING:
            causes[name] = f"host {name} is drained"
        elif not host.has(placed.policy.labels):
            lacking = {k: v for k, v in placed.policy.labels.items() if host.labels.get(k) != v}
            labels = ", ".join(f"{key}={value}" for key, value in sorted(lacking.items()))
            causes[name] = f"host {name} lacks {labels}"
        elif host.lost_since is not None and placed.policy.lost_after_seconds and not watch.braked:
            lost_after = placed.policy.lost_after_seconds
            due = max(host.lost_since + lost_after, watch.released_at + min(lost_after, SETTLING_SECONDS))
            if now >= due:
                causes[name] = f"host {name} was lost for {lost_after:g} s"
            else:
                found.wakes.append(due)
    return causes


def _hindrance(
    placed: Placed, leaving: Collection[str], taking: Collection[str], hosts: Mapping[str, HostFact], under_way: int
) -> str:
    """Why what should move cannot, and what to do about it; empty: it can."""
    app, rollout = placed.app, placed.rollout
    if not taking:
        return f"no other host takes workers: {no_host(hosts, placed.policy.labels)}"
    if rollout is not None and rollout.state.under_way and not _needs_others_to_go_back(rollout, leaving, hosts):
        return f"they wait until the rollout under way ended (`fleetctl rollout status {app.name}`)"
    if rollout is not None and rollout.kind is RolloutKind.MOVE and rollout.state is RolloutState.ABORTED:
        told_since = any(name in hosts and hosts[name].written_at > placed.rollout_written_at for name in leaving)
        if not told_since:
            return f"the move was aborted; `fleetctl set-size {app.name} {app.size}` spreads them anew"
    if under_way >= MOST_MOVES_AT_ONCE:
        return f"they wait until one of {under_way} other apps has moved"
    return ""


def _needs_others_to_go_back(rollout: RolloutRecord, leaving: Collection[str], hosts: Mapping[str, HostFact]) -> bool:
    """A rollout that goes back stops no worker until enough others serve, and a lost host's may never do so again: where it
    waited for the end of the rollout to be replaced, each would wait for the other. A move that a user takes back is left alone.
    """
    if rollout.state is not RolloutState.ROLLING_BACK or rollout.kind is RolloutKind.MOVE:
        return False
    return any(name in hosts and hosts[name].lost_since is not None for name in leaving)


def _under_way(placed: Placed) -> RolloutKind | None:
    rollout = placed.rollout
    return rollout.kind if rollout is not None and rollout.state.under_way else None


def _is_on_lost_host(app: AppRecord, hosts: Mapping[str, HostFact]) -> bool:
    return any(name in hosts and not hosts[name].online for name in app.placement)


def _rest(app: AppRecord, hosts: Mapping[str, HostFact], found: _Pass) -> None:
    resting = sorted(
        name
        for name in app.placement
        if (host := hosts.get(name)) is not None and host.scheduling is Scheduling.DRAINING
    )
    if resting and app.state is AppState.RUNNING:
        found.notices[app.name] = tuple(
            f"pinned to {name}, which is drained: `fleetctl host uncordon {name}` starts {app.placement[name]} worker(s) again"
            for name in resting
        )


def _brake(hosts: Mapping[str, HostFact]) -> str:
    """More than a third of the hosts, and more than one, are lost at this moment. A host that was drained in full may be away."""
    counted = [fact for fact in hosts.values() if fact.scheduling is not Scheduling.DRAINING or fact.workers_left]
    lost = sorted(fact.name for fact in counted if not fact.online)
    if len(lost) <= max(1.0, len(counted) / 3):
        return ""
    return (
        f"{len(lost)} of {len(counted)} hosts are lost at the same time ({', '.join(lost)}), so it may be the controller that "
        "is cut off, and nothing is started elsewhere: bring them back; `fleetctl host drain HOST` moves what one had"
    )
