"""The rollout planner: from what is wanted and what is seen to the next instructions. Pure.

It is level-based: each call looks at the whole situation anew, so a new leader goes on where the last one stopped, and a
worker that crashes in the middle of a step turns the step back instead of breaking it. Only phase `stop` is final: a stop that
was instructed is never taken back.

For one slot the way is: start the new worker beside the old → ready, and stable for min_ready → its endpoint in every registered
balancer → the old one drains → every balancer acknowledged that → its requests ended, or drain_timeout → stop → exited.

Invariant 1 holds because a worker is drained, and again stopped, only while the *other* serving workers are at least
size - max_unavailable. Invariant 2 holds because a worker is started only while the host's live ones are fewer than its size +
max_surge.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from fleet_controller.records import AppState, RolloutKind
from fleet_controller.views import (
    BalancerView,
    EndpointState,
    Life,
    Memory,
    Phase,
    Plan,
    Situation,
    Target,
    WorkerView,
)
from fleet_core.ids import WorkerId
from fleet_core.spec import ListenMode

CRASHES_THAT_FAIL_A_ROLLOUT = 3
"""A new worker that crashes so often before it is ready fails the rollout: once or twice may be bad luck."""
START_TIMEOUT_MARGIN_SECONDS = 5.0
"""The agent judges the start timeout; the planner only catches an agent that does not say."""

_SERVED = (Life.READY, Life.UNREADY, Life.STOPPING)


def plan(situation: Situation, now: float) -> Plan:
    """Decide the next instructions for one app at `now`, the leader's monotonic time in seconds."""
    return _Planning(situation, now).plan()


class _Planning:
    """One call's working state."""

    def __init__(self, situation: Situation, now: float) -> None:
        self.now = now
        self.situation = situation
        self.app = situation.app
        self.policy = situation.spec.rollout
        self.at_once = situation.rollout is not None and situation.rollout.at_once
        self.routed_app = situation.spec.listen_mode is not ListenMode.NONE
        self.workers = {worker.id: worker for worker in situation.workers}
        self.slots: dict[tuple[str, int], list[WorkerView]] = defaultdict(list)
        for worker in sorted(situation.workers, key=lambda worker: worker.id):
            if worker.live:
                self.slots[worker.id.host, worker.id.slot].append(worker)
        self.good = {place: self._best(place, workers) for place, workers in self.slots.items()}
        self.places: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for place in self.slots:
            self.places[place[0]].append(place)
        self.hosts = sorted(
            {*self.app.placement, *situation.reported, *(worker.id.host for worker in situation.workers)}
        )
        self.live_on: dict[str, int] = defaultdict(int)
        for worker in situation.workers:
            self.live_on[worker.id.host] += worker.live
        self.starts: list[Target] = []
        self.draining: set[WorkerId] = set()
        self.stops: set[WorkerId] = set()
        self.drained_since: dict[WorkerId, float] = {}
        self.wakes: list[float] = []

    def plan(self) -> Plan:
        memory = self.situation.memory
        unready_since = {
            worker.id: memory.unready_since.get(worker.id, self.now)
            for worker in self.workers.values()
            if worker.phase is Phase.RUN and not worker.ready
        }
        restarts_when_ready = {
            worker.id: worker.restarts if worker.ready else memory.restarts_when_ready.get(worker.id, worker.restarts)
            for worker in self.workers.values()
        }
        remembered = Memory(memory.draining, memory.drained_since, unready_since, restarts_when_ready)
        failure = self._failure(remembered)
        if not failure:
            self._start_workers()
        self._retire_workers()
        remaining = {host: count for host in self.hosts if (count := self._remaining_on(host))}
        return Plan(
            targets=tuple(self._targets()),
            endpoints=self._endpoints(),
            memory=Memory(frozenset(self.draining), self.drained_since, unready_since, restarts_when_ready),
            remaining=remaining,
            doing={host: text for host in remaining if (text := self._doing_on(host))},
            waiting=self._waiting(remaining),
            failure=failure,
            settled=not remaining and not self.starts,
            wake_at=min((wake for wake in self.wakes if wake > self.now), default=None),
        )

    # What fills a slot

    def _best(self, place: tuple[str, int], workers: list[WorkerView]) -> WorkerView | None:
        """The worker that shall keep the slot: of the acceptable ones the ready one, then the newest."""
        host, slot = place
        if slot > self.app.wanted(host):
            return None
        floor = self.app.floor_of(host, slot)
        acceptable = [worker for worker in workers if worker.phase is Phase.RUN and worker.id.generation >= floor]
        return max(acceptable, key=_merit, default=None)

    def _stable(self, worker: WorkerView) -> bool:
        if not worker.ready or worker.ready_since is None:
            return False
        stable_at = worker.ready_since + self.policy.min_ready_seconds
        self.wakes.append(stable_at)
        return self.now >= stable_at

    def _routed(self, worker: WorkerView) -> bool:
        """Every registered balancer may choose it, and said so in this epoch."""
        if not self.routed_app:
            return True
        return all(
            balancer.connected
            and balancer.applied is not None
            and balancer.applied.get(worker.id) is EndpointState.READY
            for balancer in self.situation.balancers
        )

    # Starting

    def _start_workers(self) -> None:
        replacing = {host for host in self.hosts if self._replacing_on(host)}
        for host in self.hosts:
            if host not in self.situation.connected:
                continue
            missing = [slot for slot in range(1, self.app.wanted(host) + 1) if self.good.get((host, slot)) is None]
            # A slot whose worker does not serve gains most from a new one.
            missing.sort(key=lambda slot: (any(worker.ready for worker in self.slots.get((host, slot), ())), slot))
            for slot in missing:
                if self.live_on[host] >= self.app.wanted(host) + self.policy.max_surge:
                    break
                occupied = bool(self.slots.get((host, slot)))
                if occupied and not self._may_start_beside(host, slot, replacing):
                    continue
                identity = WorkerId(self.app.name, host, slot, self.app.generation)
                if identity in self.workers:
                    continue  # its predecessor of the same name is still being forgotten
                if occupied:
                    replacing.add(host)
                self.live_on[host] += 1
                self.starts.append(Target(identity, self.app.revision, Phase.RUN))

    def _may_start_beside(self, host: str, slot: int, replacing: set[str]) -> bool:
        if self.situation.rollout is None or self.policy.max_surge == 0 or self.at_once:
            return False
        if not any(worker.phase is Phase.RUN for worker in self.slots[host, slot]):
            return False  # it is being stopped: the slot will be free soon
        return host in replacing or len(replacing) < self.policy.parallel_hosts

    def _replacing_on(self, host: str) -> bool:
        return any(self.good[place] is not None and len(self.slots[place]) > 1 for place in self.places[host])

    # Draining and stopping

    def _retire_workers(self) -> None:
        leaving = [worker for worker in self.workers.values() if self._leaves(worker)]
        remembered = self.situation.memory.draining
        leaving.sort(key=lambda worker: (worker.id not in remembered, worker.id))
        serving = sum(worker.ready for worker in self.workers.values())
        needed = 0 if self.at_once else self.app.wanted_total - self.policy.max_unavailable
        for worker in leaving:
            if worker.life in (Life.READY, Life.UNREADY):
                if worker.ready and serving - 1 < needed:
                    continue
                serving -= worker.ready
                self.draining.add(worker.id)
                if not self.at_once and not self._drained(worker):
                    continue
            self.stops.add(worker.id)
            self.draining.discard(worker.id)
            self.drained_since.pop(worker.id, None)

    def _leaves(self, worker: WorkerView) -> bool:
        """It shall run no longer, and nothing but its own requests and the number of ready ones holds it."""
        if worker.phase is Phase.STOP or worker.id.host not in self.situation.connected:
            return False
        place = worker.id.host, worker.id.slot
        if worker.id.slot > self.app.wanted(worker.id.host):
            return True
        good = self.good.get(place)
        if good is worker:
            return False
        keeper = good or max(self.slots[place], key=_merit)
        if keeper is not worker:
            # Of two that are both to be replaced, a newer operation having come in between, one goes first to make room.
            return (self._stable(keeper) and self._routed(keeper)) or (good is None and not worker.ready)
        return self.situation.rollout is not None and (self.at_once or self.policy.max_surge == 0)

    def _drained(self, worker: WorkerView) -> bool:
        """Every registered balancer stopped choosing it, and its requests ended or had their time."""
        if not self.routed_app or not worker.port:
            return True
        balancers = self.situation.balancers
        if not all(_stopped_choosing(balancer, worker.id) for balancer in balancers):
            return False
        since = self.situation.memory.drained_since.get(worker.id, self.now)
        self.drained_since[worker.id] = since
        deadline = since + self.policy.drain_timeout_seconds
        self.wakes.append(deadline)
        return self.now >= deadline or all(_has_no_request(balancer, worker.id) for balancer in balancers)

    # The answer

    def _targets(self) -> Iterator[Target]:
        for worker in self.workers.values():
            if not worker.live:
                continue  # exited as told: nothing is wanted of it any more
            stop = worker.phase is Phase.STOP or worker.id in self.stops
            yield Target(worker.id, worker.revision, Phase.STOP if stop else Phase.RUN)
        yield from self.starts

    def _endpoints(self) -> dict[WorkerId, EndpointState]:
        endpoints: dict[WorkerId, EndpointState] = {}
        if not self.routed_app:
            return endpoints
        for worker in self.workers.values():
            if not worker.port or worker.life not in _SERVED:
                continue
            if worker.phase is Phase.STOP or worker.id in self.draining or worker.id in self.stops:
                endpoints[worker.id] = EndpointState.DRAINING
            elif worker.ready:
                endpoints[worker.id] = EndpointState.READY
        return endpoints

    def _failure(self, memory: Memory) -> str:
        rollout = self.situation.rollout
        if rollout is None or rollout.kind in (RolloutKind.STOP, RolloutKind.REMOVE):
            return ""
        for worker in self.good.values():
            if worker is None or worker.ready or worker.id.generation != self.app.generation:
                continue
            if worker.completed:
                continue
            name = worker.id.slot_id
            why = f": {worker.reason}" if worker.reason else ""
            if worker.life is Life.FAILED:
                return f"worker {name} failed{why}"
            crashes = worker.restarts - memory.restarts_when_ready[worker.id]
            if crashes >= CRASHES_THAT_FAIL_A_ROLLOUT:
                return f"worker {name} ended {crashes} times before it was ready{why}"
            timeout = self.situation.spec.ready.start_timeout_seconds + START_TIMEOUT_MARGIN_SECONDS
            deadline = memory.unready_since[worker.id] + timeout
            self.wakes.append(deadline)
            if self.now >= deadline and worker.id.host in self.situation.connected:
                return f"worker {name} was not ready within {timeout:g} s{why}"
        return ""

    # How far it is

    def _remaining_on(self, host: str) -> int:
        if host not in self.situation.reported:
            return self.app.placement.get(host, 0)
        wanted = self.app.wanted(host)
        highest = max((slot for _, slot in self.places[host]), default=0)
        return sum(not self._slot_is_done(host, slot) for slot in range(1, max(wanted, highest) + 1))

    def _slot_is_done(self, host: str, slot: int) -> bool:
        workers = self.slots.get((host, slot), [])
        if slot > self.app.wanted(host):
            return not workers
        good = self.good.get((host, slot))
        if good is None or len(workers) > 1:
            return False
        return good.completed or (self._stable(good) and self._routed(good))

    def _doing_on(self, host: str) -> str:
        if host not in self.situation.connected:
            return "not connected"
        here = [worker for place in self.places[host] for worker in self.slots[place]]
        good = [worker for place in self.places[host] if (worker := self.good[place]) is not None]
        stopping = [worker.id.slot for worker in here if self._stopping(worker)]
        draining = [worker.id.slot for worker in here if worker.id in self.draining]
        starting = [target.id.slot for target in self.starts if target.id.host == host]
        starting += [worker.id.slot for worker in good if not worker.ready]
        words = (("starting", starting), ("draining", draining), ("stopping", stopping))
        return ", ".join(f"{verb} {_listed(slots)}" for verb, slots in words if slots)

    def _stopping(self, worker: WorkerView) -> bool:
        return worker.phase is Phase.STOP or worker.id in self.stops

    def _waiting(self, remaining: dict[str, int]) -> str:
        if not remaining:
            return ""
        away = [host for host in remaining if host not in self.situation.connected]
        if away:
            return f"waiting for {_listed(away)}, not connected"
        silent = [balancer.name for balancer in self.situation.balancers if not balancer.connected]
        if silent and self.routed_app:
            return f"waiting for balancer {_listed(silent)}, not connected"
        if self.app.state is AppState.RUNNING and not self.starts and not self.draining and not self.stops:
            broken = [
                w.id.slot_id for w in self.good.values() if w and w.life in (Life.BACKOFF, Life.FAILED, Life.UNREADY)
            ]
            if broken:
                return f"waiting for {_listed(broken)}, not ready"
        return ""


def _merit(worker: WorkerView) -> tuple[bool, bool, int]:
    """Orders the workers of one slot by how much they deserve to keep it."""
    return worker.ready, worker.phase is Phase.RUN, worker.id.generation


def _stopped_choosing(balancer: BalancerView, worker: WorkerId) -> bool:
    return balancer.connected and balancer.applied is not None and worker not in balancer.may_choose


def _has_no_request(balancer: BalancerView, worker: WorkerId) -> bool:
    if balancer.applied is not None and worker not in balancer.applied:
        return True
    return balancer.in_flight.get(worker) == 0


def _listed(things: Iterable[object]) -> str:
    return ", ".join(str(thing) for thing in sorted(things, key=str))
