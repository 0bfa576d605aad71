"""What each mutation of the control API does to desired state. Pure: records in, records out, or a refusal in words."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fleet_controller.mutations.changes import (
    EXISTS,
    INVALID,
    NOT_FOUND,
    PRECONDITION,
    Ask,
    Change,
    Refused,
    begun,
    next_generation,
)
from fleet_controller.planning.placement import MAX_WORKERS_PER_HOST, HostFact, moved, no_host, spread, with_host
from fleet_controller.planning.views import WorkerView
from fleet_controller.records import (
    AppRecord,
    AppState,
    RevisionRecord,
    RolloutKind,
    RolloutRecord,
    Scheduling,
    SizeMode,
)
from fleet_core.ids import SlotId
from fleet_core.route import Places, Register, RoutePolicy
from fleet_core.spec import AppSpec


@dataclass(frozen=True, slots=True)
class SizePlan:
    placement: Mapping[str, int]
    mode: SizeMode
    shrinking_others: tuple[str, ...]
    """Hosts that lose workers though they were not named and the app as a whole does not shrink."""


def start_new(
    ask: Ask,
    spec: AppSpec,
    size: int,
    on: Collection[str],
    hosts: Mapping[str, HostFact],
    routes: Mapping[str, RoutePolicy],
    artifact_digest: str = "",
    left: Collection[WorkerView] = (),
) -> Change:
    """Create an app. `routes`: app → how it is reached, of the apps there are. No artifact: its code lies on hosts.

    `left`: workers of an app of this name that etcd has lost. They are replaced, as by a rollout.
    """
    check_route(spec, routes)
    placement = _bounded(spread(size, _chosen_hosts(on, hosts, spec.placement.labels), {}))
    number = 1 + max((worker.revision for worker in left), default=0)
    generation = 1 + max((worker.id.generation for worker in left), default=0)
    app = AppRecord(
        name=spec.name,
        size_mode=SizeMode.PINNED if on else SizeMode.FLOATING,
        placement=placement,
        revision=number,
        generation=generation,
        floor=generation,
        generations={generation: number},
    )
    revision = RevisionRecord.of(
        spec, number, created_at=ask.at, cause=ask.cause or "start", artifact_digest=artifact_digest
    )
    return begun(ask, RolloutKind.START, None, app, placement, revision=revision)


def check_route(spec: AppSpec, routes: Mapping[str, RoutePolicy]) -> None:
    """Raises Refused where another app of `routes` has what the spec's route wants."""
    register = Register()
    for name, route in sorted(routes.items()):
        if name != spec.name:
            register.enter(name, Places.of(route))
    if refusal := register.enter(spec.name, Places.of(spec.route)):
        raise Refused(PRECONDITION, refusal)


def start_again(
    ask: Ask, app: AppRecord, size: int, on: Collection[str], hosts: Mapping[str, HostFact], labels: Mapping[str, str]
) -> Change:
    """Start a stopped app, on the hosts and in the size it had unless told otherwise. `labels`: those its spec asks for."""
    if app.state is not AppState.STOPPED:
        raise Refused(
            EXISTS, f"app {app.name} is {app.state} already: `fleetctl soft-restart {app.name}` replaces its workers"
        )
    placement = app.placement
    mode = app.size_mode
    if on or size:
        chosen = _chosen_hosts(on, hosts, labels)
        placement = _bounded(spread(size or app.size, chosen, app.placement))
        mode = SizeMode.PINNED if on else SizeMode.FLOATING
    if not placement:
        raise Refused(PRECONDITION, f"app {app.name} has size 0: say how many workers with -i")
    started = next_generation(app).model_copy(
        update={"state": AppState.RUNNING, "placement": placement, "size_mode": mode}
    )
    return begun(ask, RolloutKind.START, app, started, placement)


def plan_size(
    app: AppRecord,
    hosts: Mapping[str, HostFact],
    host: str,
    absolute: int | None,
    relative: int | None,
    labels: Mapping[str, str] = MappingProxyType({}),
) -> SizePlan:
    """Where a size change leads; both numbers None: one worker per core. `labels`: those the app's spec asks for."""
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
        count = sum(fact.cpus for fact in hosts.values() if fact.takes(labels))
    if count < 0:
        raise Refused(
            INVALID, f"size {count} is negative: {app.name} has {present} worker(s){f' on {host}' if host else ''}"
        )
    if host:
        if count > present:
            _check_open(hosts[host], labels)
        return SizePlan(_bounded(with_host(app.placement, host, count)), SizeMode.PINNED, ())
    placement = _floating(count, app, hosts, labels, per_core=absolute is None and relative is None)
    losers = tuple(name for name, before in sorted(app.placement.items()) if placement.get(name, 0) < before)
    asked_for = app.size_mode is SizeMode.FLOATING and count < app.size
    return SizePlan(_bounded(placement), SizeMode.FLOATING, () if asked_for else losers)


def _floating(
    count: int, app: AppRecord, hosts: Mapping[str, HostFact], labels: Mapping[str, str], *, per_core: bool
) -> dict[str, int]:
    """Spread over the hosts that take workers; those that are unknown or cordoned keep their share, and get nothing more."""
    taking = [name for name, fact in hosts.items() if fact.takes(labels)]
    keeping = [name for name in app.placement if name not in taking and _keeps(hosts.get(name), labels)]
    if per_core:
        kept = {name: app.placement[name] for name in keeping}
        return {**kept, **{name: hosts[name].cpus for name in taking}}
    even = spread(count, [*taking, *keeping], app.placement) if taking or keeping else {}
    kept = {name: least for name in keeping if (least := min(app.placement[name], even.get(name, 0)))}
    left = count - sum(kept.values())
    if left and not taking:
        raise Refused(PRECONDITION, no_host(hosts, labels))
    return {**kept, **spread(left, taking, app.placement)}


def _keeps(host: HostFact | None, labels: Mapping[str, str]) -> bool:
    return host is None or (host.scheduling is not Scheduling.DRAINING and host.has(labels))


def set_size(ask: Ask, app: AppRecord, plan: SizePlan) -> Change:
    if app.state is AppState.REMOVING:
        raise Refused(PRECONDITION, f"app {app.name} is being removed")
    sized = app.model_copy(update={"placement": dict(plan.placement), "size_mode": plan.mode})
    steps = moved(app.placement, sized.placement) if app.state is AppState.RUNNING else {}
    return begun(ask, RolloutKind.SET_SIZE, app, sized, steps)


def restart(ask: Ask, app: AppRecord, slot: SlotId | None, *, at_once: bool) -> Change:
    """Replace every worker, or the one of `slot`, by a new generation."""
    if app.state is not AppState.RUNNING:
        raise Refused(PRECONDITION, f"app {app.name} is {app.state}: `fleetctl start {app.name}` starts it")
    if not app.size:
        raise Refused(PRECONDITION, f"app {app.name} has size 0: `fleetctl set-size {app.name} 1` gives it a worker")
    restarted = next_generation(app)
    if slot is None:
        steps = dict(app.placement)
        restarted = restarted.model_copy(update={"floor": restarted.generation, "slot_floors": {}})
    else:
        if not 1 <= slot.slot <= app.placement.get(slot.host, 0):
            raise Refused(NOT_FOUND, f"no worker is named {slot}: `fleetctl ps {app.name}` shows them")
        floors = {**app.slot_floors, f"{slot.host}/{slot.slot}": restarted.generation}
        steps = {slot.host: 1}
        restarted = restarted.model_copy(update={"slot_floors": floors})
    return begun(ask, RolloutKind.RESTART, app, restarted, steps, at_once=at_once, insistent=at_once)


def without_host(host: str, apps: Iterable[AppRecord]) -> list[AppRecord]:
    """The apps that must forget their share of a host that is being removed. Raises Refused where one would lose workers.

    What is being removed itself asks for nothing there any more: it only waits for a host that will never answer.
    """
    placed = [app for app in apps if host in app.placement]
    staying = [app for app in placed if app.state is not AppState.REMOVING]
    pinned = sorted(app.name for app in staying if app.size_mode is SizeMode.PINNED)
    if pinned:
        text = f"{', '.join(pinned)}: pinned to {host}: `fleetctl set-size APP 0 --host {host}` unpins one"
        raise Refused(PRECONDITION, text)
    if staying:
        names = ", ".join(sorted(app.name for app in staying))
        text = (
            f"{names}: still placed on {host}: `fleetctl host drain {host}` moves them, "
            "`fleetctl rollout status APP` says what one waits for"
        )
        raise Refused(PRECONDITION, text)
    return [
        app.model_copy(update={"placement": {name: count for name, count in app.placement.items() if name != host}})
        for app in placed
    ]


def move(ask: Ask, app: AppRecord, placement: Mapping[str, int]) -> Change:
    """Give the app this placement, without another word about its size. Raises Refused while another rollout is under way."""
    relocated = app.model_copy(update={"placement": dict(placement)})
    steps = moved(app.placement, placement) if app.state is AppState.RUNNING else {}
    return begun(ask, RolloutKind.MOVE, app, relocated, steps)


def move_while_going_back(
    app: AppRecord, rollout: RolloutRecord, placement: Mapping[str, int], cause: str
) -> tuple[AppRecord, RolloutRecord]:
    """Give the app this placement as part of the way back of a rollout, which says so in its message."""
    told = f"{cause}, so its workers were started elsewhere"
    message = f"{rollout.message}; {told}" if rollout.message else told
    return app.model_copy(update={"placement": dict(placement)}), rollout.model_copy(update={"message": message})


def stop(ask: Ask, app: AppRecord, *, at_once: bool, remove: bool) -> Change:
    """Stop every worker; with `remove`, forget the app once they are gone."""
    if app.state is AppState.REMOVING and not remove:
        raise Refused(PRECONDITION, f"app {app.name} is being removed")
    state = AppState.REMOVING if remove else AppState.STOPPED
    steps = dict(app.placement) if app.state is AppState.RUNNING else {}
    stopped = app.model_copy(update={"state": state})
    kind = RolloutKind.REMOVE if remove else RolloutKind.STOP
    return begun(ask, kind, app, stopped, steps, at_once=at_once, insistent=True)


def _chosen_hosts(on: Collection[str], hosts: Mapping[str, HostFact], labels: Mapping[str, str]) -> list[str]:
    for name in on:
        if name not in hosts:
            raise Refused(NOT_FOUND, f"no host is named {name}: `fleetctl host ls` shows them")
        _check_open(hosts[name], labels)
    chosen = sorted(set(on)) if on else sorted(name for name, fact in hosts.items() if fact.takes(labels))
    if not chosen:
        raise Refused(PRECONDITION, no_host(hosts, labels))
    return chosen


def _check_open(host: HostFact, labels: Mapping[str, str]) -> None:
    """Raises Refused where a named host may not be given workers; one that is merely unknown may."""
    if host.scheduling is not Scheduling.OPEN:
        raise Refused(
            PRECONDITION, f"host {host.name} is {host.scheduling}: `fleetctl host uncordon {host.name}` opens it"
        )
    if not host.has(labels):
        wanted = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
        raise Refused(PRECONDITION, f"host {host.name} lacks a label the app asks for ({wanted})")


def _bounded(placement: dict[str, int]) -> dict[str, int]:
    for host, count in placement.items():
        if count > MAX_WORKERS_PER_HOST:
            raise Refused(
                INVALID, f"{count} workers on {host} are too many: {MAX_WORKERS_PER_HOST} is the most a host takes"
            )
    return placement
