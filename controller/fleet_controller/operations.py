"""What each mutation of the control API does to desired state. Pure: records in, records out, or a refusal in words."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fleet_controller.placement import moved, spread, with_host
from fleet_controller.records import (
    AppRecord,
    AppState,
    Record,
    RevisionRecord,
    RolloutKind,
    RolloutRecord,
    RolloutState,
    SizeMode,
    app_key,
    revision_key,
    rollout_key,
)
from fleet_core.ids import SlotId
from fleet_core.spec import AppSpec, parse_address

ROLLOUTS_KEPT = 20
"""Per app; the oldest ended ones are forgotten."""
MAX_WORKERS_PER_HOST = 1_000


class Refused(Exception):  # noqa: N818 (reads as a sentence where it is caught)
    """The mutation cannot be done; nothing was changed. `kind` is one of the words below."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


INVALID = "invalid"
NOT_FOUND = "not_found"
EXISTS = "exists"
PRECONDITION = "precondition"


@dataclass(frozen=True, slots=True)
class HostFact:
    """What placement may know of a host."""

    name: str
    cpus: int
    online: bool


@dataclass(frozen=True, slots=True)
class Change:
    """Records to write in one transaction."""

    app: AppRecord
    rollout: RolloutRecord
    revision: RevisionRecord | None = None
    superseded: RolloutRecord | None = None
    forgotten: tuple[str, ...] = ()
    """Ids of rollouts to delete."""

    def writes(self) -> list[tuple[str, Record | None]]:
        """(key, record) for each record to write, (key, None) for each to delete."""
        records: list[tuple[str, Record | None]] = [
            (app_key(self.app.name), self.app),
            (rollout_key(self.rollout.id), self.rollout),
        ]
        if self.revision is not None:
            records.append((revision_key(self.revision.app, self.revision.number), self.revision))
        if self.superseded is not None:
            records.append((rollout_key(self.superseded.id), self.superseded))
        return records + [(rollout_key(identifier), None) for identifier in self.forgotten]


@dataclass(frozen=True, slots=True)
class SizePlan:
    placement: Mapping[str, int]
    mode: SizeMode
    shrinking_others: tuple[str, ...]
    """Hosts that lose workers though they were not named and the app as a whole does not shrink."""


def start_new(
    request: str,
    spec: AppSpec,
    size: int,
    on: Collection[str],
    hosts: Mapping[str, HostFact],
    routes: Mapping[str, str],
) -> Change:
    """Create an app. `routes`: app → the address it is reached at, of the apps there are."""
    if spec.route.http:
        wanted = parse_address(spec.route.http)
        for other, http in sorted(routes.items()):
            if _same_listener(wanted, parse_address(http)):
                raise Refused(
                    PRECONDITION, f"address {spec.route.http} is taken by app {other}: choose another --http address"
                )
    chosen = _chosen_hosts(on, hosts)
    placement = _bounded(spread(size, chosen, {}))
    mode = SizeMode.PINNED if on else SizeMode.FLOATING
    app = AppRecord(name=spec.name, size_mode=mode, placement=placement, rollout=request)
    rollout = _rollout(request, RolloutKind.START, app, placement, None)
    return Change(app, rollout, revision=RevisionRecord.of(spec, 1))


def start_again(
    request: str,
    app: AppRecord,
    size: int,
    on: Collection[str],
    hosts: Mapping[str, HostFact],
    past: Iterable[RolloutRecord],
) -> Change:
    """Start a stopped app, on the hosts and in the size it had unless told otherwise."""
    if app.state is not AppState.STOPPED:
        raise Refused(
            EXISTS, f"app {app.name} is {app.state} already: `fleetctl soft-restart {app.name}` replaces its workers"
        )
    placement = app.placement
    mode = app.size_mode
    if on or size:
        chosen = _chosen_hosts(on, hosts)
        placement = _bounded(spread(size or app.size, chosen, app.placement))
        mode = SizeMode.PINNED if on else SizeMode.FLOATING
    if not placement:
        raise Refused(PRECONDITION, f"app {app.name} has size 0: say how many workers with -i")
    started = _next_generation(app).model_copy(
        update={"state": AppState.RUNNING, "placement": placement, "size_mode": mode, "rollout": request}
    )
    return _superseding(started, _rollout(request, RolloutKind.START, started, placement, app, past), past)


def plan_size(
    app: AppRecord, hosts: Mapping[str, HostFact], host: str, absolute: int | None, relative: int | None
) -> SizePlan:
    """Where a size change leads; both numbers None: one worker per core."""
    if host and host not in hosts:
        raise Refused(NOT_FOUND, f"no host is named {host}: `fleetctl host ls` shows them")
    present = app.placement.get(host, 0) if host else app.size
    if absolute is not None:
        count = absolute
    elif relative is not None:
        count = present + relative
    elif host:
        count = hosts[host].cpus
    else:
        count = sum(fact.cpus for fact in hosts.values() if fact.online)
    if count < 0:
        raise Refused(
            INVALID, f"size {count} is negative: {app.name} has {present} worker(s){f' on {host}' if host else ''}"
        )
    if host:
        return SizePlan(_bounded(with_host(app.placement, host, count)), SizeMode.PINNED, ())
    placement = _floating(count, app, hosts, per_core=absolute is None and relative is None)
    losers = tuple(name for name, before in sorted(app.placement.items()) if placement.get(name, 0) < before)
    asked_for = app.size_mode is SizeMode.FLOATING and count < app.size
    return SizePlan(_bounded(placement), SizeMode.FLOATING, () if asked_for else losers)


def _floating(count: int, app: AppRecord, hosts: Mapping[str, HostFact], *, per_core: bool) -> dict[str, int]:
    """Spread over the hosts that are online and those that are merely unknown: these keep their share, and get nothing more."""
    online = [name for name, fact in hosts.items() if fact.online]
    unknown = [name for name in app.placement if name not in online]
    if per_core:
        kept = {name: app.placement[name] for name in unknown}
        return {**kept, **{name: hosts[name].cpus for name in online}}
    even = spread(count, [*online, *unknown], app.placement)
    kept = {name: least for name in unknown if (least := min(app.placement[name], even.get(name, 0)))}
    left = count - sum(kept.values())
    if left and not online:
        raise Refused(PRECONDITION, "no host is online: `fleetctl host ls` shows them")
    return {**kept, **spread(left, online, app.placement)}


def set_size(request: str, app: AppRecord, plan: SizePlan, past: Iterable[RolloutRecord]) -> Change:
    if app.state is AppState.REMOVING:
        raise Refused(PRECONDITION, f"app {app.name} is being removed")
    sized = app.model_copy(update={"placement": dict(plan.placement), "size_mode": plan.mode, "rollout": request})
    steps = moved(app.placement, sized.placement) if app.state is AppState.RUNNING else {}
    return _superseding(sized, _rollout(request, RolloutKind.SET_SIZE, sized, steps, app, past), past)


def restart(
    request: str, app: AppRecord, slot: SlotId | None, *, at_once: bool, past: Iterable[RolloutRecord], cause: str = ""
) -> Change:
    """Replace every worker, or the one of `slot`, by a new generation; `cause` is why, where no user asked for it."""
    if app.state is not AppState.RUNNING:
        raise Refused(PRECONDITION, f"app {app.name} is {app.state}: `fleetctl start {app.name}` starts it")
    if not app.size:
        raise Refused(PRECONDITION, f"app {app.name} has size 0: `fleetctl set-size {app.name} 1` gives it a worker")
    restarted = _next_generation(app)
    if slot is None:
        steps = dict(app.placement)
        restarted = restarted.model_copy(update={"floor": restarted.generation, "slot_floors": {}, "rollout": request})
    else:
        if not 1 <= slot.slot <= app.placement.get(slot.host, 0):
            raise Refused(NOT_FOUND, f"no worker is named {slot}: `fleetctl ps {app.name}` shows them")
        floors = {**app.slot_floors, f"{slot.host}/{slot.slot}": restarted.generation}
        steps = {slot.host: 1}
        restarted = restarted.model_copy(update={"slot_floors": floors, "rollout": request})
    rollout = _rollout(request, RolloutKind.RESTART, restarted, steps, app, past, at_once=at_once)
    rollout = rollout.model_copy(update={"message": cause})
    return _superseding(restarted, rollout, past)


def stop(request: str, app: AppRecord, *, at_once: bool, remove: bool, past: Iterable[RolloutRecord]) -> Change:
    """Stop every worker; with `remove`, forget the app once they are gone."""
    if app.state is AppState.REMOVING and not remove:
        raise Refused(PRECONDITION, f"app {app.name} is being removed")
    state = AppState.REMOVING if remove else AppState.STOPPED
    steps = dict(app.placement) if app.state is AppState.RUNNING else {}
    stopped = app.model_copy(update={"state": state, "rollout": request})
    kind = RolloutKind.REMOVE if remove else RolloutKind.STOP
    return _superseding(stopped, _rollout(request, kind, stopped, steps, app, past, at_once=at_once), past)


def failed(app: AppRecord, rollout: RolloutRecord, message: str, seconds: float) -> tuple[AppRecord, RolloutRecord]:
    """End a rollout that cannot go on: what it has not replaced yet may stay."""
    ended = rollout.model_copy(update={"state": RolloutState.FAILED, "message": message, "seconds": seconds})
    if rollout.kind is not RolloutKind.RESTART:
        return app, ended
    floors = {"floor": rollout.previous_floor, "slot_floors": rollout.previous_slot_floors}
    return app.model_copy(update=floors), ended


def done(app: AppRecord, rollout: RolloutRecord, seconds: float) -> tuple[AppRecord, RolloutRecord]:
    """End a rollout that reached its aim; generations nothing can run any more are forgotten."""
    ended = rollout.model_copy(update={"state": RolloutState.DONE, "seconds": seconds, "replaced": rollout.steps})
    kept = {generation: revision for generation, revision in app.generations.items() if generation >= app.floor}
    return app.model_copy(update={"generations": kept}), ended


def _chosen_hosts(on: Collection[str], hosts: Mapping[str, HostFact]) -> list[str]:
    for name in on:
        if name not in hosts:
            raise Refused(NOT_FOUND, f"no host is named {name}: `fleetctl host ls` shows them")
    chosen = sorted(set(on)) if on else sorted(name for name, fact in hosts.items() if fact.online)
    if not chosen:
        raise Refused(PRECONDITION, "no host is online: `fleetctl host ls` shows them")
    return chosen


def _bounded(placement: dict[str, int]) -> dict[str, int]:
    for host, count in placement.items():
        if count > MAX_WORKERS_PER_HOST:
            raise Refused(
                INVALID, f"{count} workers on {host} are too many: {MAX_WORKERS_PER_HOST} is the most a host takes"
            )
    return placement


def _same_listener(one: tuple[str, int], other: tuple[str, int]) -> bool:
    everywhere = ("0.0.0.0", "::")  # noqa: S104 (compared, not bound)
    return one[1] == other[1] and (one[0] == other[0] or one[0] in everywhere or other[0] in everywhere)


def _next_generation(app: AppRecord) -> AppRecord:
    generation = app.generation + 1
    generations = {**app.generations, generation: app.revision}
    return app.model_copy(update={"generation": generation, "generations": generations})


def _rollout(
    request: str,
    kind: RolloutKind,
    app: AppRecord,
    steps: Mapping[str, int],
    before: AppRecord | None,
    past: Iterable[RolloutRecord] = (),
    *,
    at_once: bool = False,
) -> RolloutRecord:
    return RolloutRecord(
        id=request,
        app=app.name,
        kind=kind,
        at_once=at_once,
        revision=app.revision,
        generation=app.generation,
        previous_floor=before.floor if before else 1,
        previous_slot_floors=dict(before.slot_floors) if before else {},
        steps=sum(steps.values()),
        host_steps=dict(steps),
        sequence=1 + max((rollout.sequence for rollout in past), default=0),
    )


def _superseding(app: AppRecord, rollout: RolloutRecord, past: Iterable[RolloutRecord]) -> Change:
    """The newer operation takes the place of one under way; the oldest ended ones are forgotten."""
    by_age = sorted(past, key=lambda record: record.sequence)
    running = [record for record in by_age if record.state is RolloutState.RUNNING]
    superseded = None
    if running:
        message = f"a newer operation on {app.name} took its place: {rollout.kind}"
        superseded = running[-1].model_copy(update={"state": RolloutState.SUPERSEDED, "message": message})
    ended = [record.id for record in by_age if record.state is not RolloutState.RUNNING]
    surplus = max(0, len(by_age) + 1 - ROLLOUTS_KEPT)
    return Change(app, rollout, superseded=superseded, forgotten=tuple(ended[:surplus]))
