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
from collections.abc import Iterator

from fleet_controller.planning.failure import CrashCounts, find_failure
from fleet_controller.planning.preparation import judge_preparations
from fleet_controller.planning.trial import judge_trial
from fleet_controller.planning.views import (
    EndpointState,
    Life,
    Memory,
    Phase,
    Plan,
    Progress,
    Situation,
    Target,
    WorkerView,
)
from fleet_controller.planning.words import ABSENT_SECONDS, doing_on, waiting_for
from fleet_controller.records import AppState, RolloutKind, RolloutState
from fleet_core.ids import WorkerId
from fleet_core.spec import ListenMode

_Place = tuple[str, int]


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
        self.rollout = situation.rollout
        self.at_once = self.rollout is not None and self.rollout.at_once
        self.paused = self.rollout is not None and self.rollout.paused
        ignored = self.rollout.ignored_balancers if self.rollout is not None else ()
        self.balancers = tuple(balancer for balancer in situation.balancers if balancer.name not in ignored)
        self.routed_app = situation.spec.listen_mode is not ListenMode.NONE
        self.workers = {worker.id: worker for worker in situation.workers}
        self.slots: dict[_Place, list[WorkerView]] = defaultdict(list)
        for worker in sorted(situation.workers, key=lambda worker: worker.id):
            if worker.live:
                self.slots[worker.id.host, worker.id.slot].append(worker)
        self.good = {place: self._best(place, workers) for place, workers in self.slots.items()}
        self.places: dict[str, list[_Place]] = defaultdict(list)
        for place in self.slots:
            self.places[place[0]].append(place)
        self.hosts = sorted(
            {*self.app.placement, *situation.reported, *(worker.id.host for worker in situation.workers)}
        )
        self.live_on: dict[str, int] = defaultdict(int)
        for worker in situation.workers:
            self.live_on[worker.id.host] += worker.live
        self.newcomers = [worker for worker in self.good.values() if worker is not None and self._newcomer(worker)]
        self.newcomer_ids = {worker.id for worker in self.newcomers}
        self.trial = judge_trial(self.app, self.rollout, self.policy, situation.memory, self.newcomers, now)
        self.preparations = judge_preparations(situation)
        self.begun = {
            (worker.id.host, worker.id.slot)
            for worker in situation.workers
            if worker.live
            and (self._newcomer(worker) or worker.id in situation.memory.draining or worker.phase is Phase.STOP)
        }
        self.starts: list[Target] = []
        self.draining: set[WorkerId] = set()
        self.stops: set[WorkerId] = set()
        self.drained_since: dict[WorkerId, float] = {}
        self.held_back = ""
        self.wakes: list[float] = list(self.trial.wakes)
        self.wakes += [
            now + ABSENT_SECONDS - balancer.absent_seconds for balancer in self.balancers if not balancer.connected
        ]
        self.routed = {worker.id for worker in situation.workers if self._is_routed(worker)}

    def plan(self) -> Plan:
        before = self.situation.memory
        counts = CrashCounts.after(before, self.workers.values(), self.trial.sound_seconds, self.now)
        failure = find_failure(self.situation, self._judged(), counts, self.trial, self.now)
        self.wakes += failure.wakes
        found = failure.found or self.preparations.failure
        if found is None and not self.paused and not self.preparations.holds:
            self._start_workers()
        self._retire_workers()
        remaining = {host: count for host in self.hosts if (count := self._remaining_on(host))}
        waiting = waiting_for(
            self.situation,
            self.balancers,
            self.trial,
            remaining,
            self._ailing(),
            self.preparations.waiting,
            self.held_back,
        )
        progress, progress_at = self._progress(remaining, waits=bool(waiting.person))
        if found is None and remaining and self.rollout is not None:
            found = failure.stalled(waiting, progress_at)
        return Plan(
            targets=tuple(self._targets()),
            preparations=self.preparations.asked,
            endpoints=self._endpoints(),
            memory=Memory(
                draining=frozenset(self.draining),
                drained_since=self.drained_since,
                unready_since=counts.unready_since,
                restarts_when_sound=counts.restarts_when_sound,
                proven=self.trial.proven,
                promoted=self.trial.promoted,
                progress=progress,
                progress_at=progress_at,
            ),
            remaining=remaining,
            doing={host: text for host in remaining if (text := self._doing_on(host))},
            waiting=waiting.text,
            failure=found,
            settled=self._settled(remaining),
            awaits_promotion=self.trial.awaits_promotion,
            wake_at=min((wake for wake in self.wakes if wake > self.now), default=None),
        )

    def _settled(self, remaining: dict[str, int]) -> bool:
        """Nothing is left to do or to wait for. Canaries are waited for also where they are all the workers there are."""
        if remaining or self.starts or self.trial.awaits_promotion:
            return False
        return not (self.app.state is AppState.REMOVING and self._held())

    def _progress(self, remaining: dict[str, int], *, waits: bool) -> tuple[Progress | None, float]:
        """How far it came, and since when it came no further. A rollout that waits for a person may stand still."""
        if self.rollout is None:
            return None, self.now
        before, left = self.situation.memory.progress, sum(remaining.values())
        if before is not None and (before.rollout, before.state) == (self.rollout.id, self.rollout.state):
            left = min(left, before.left)
        starts = frozenset(target.id for target in self.starts)
        under_way = frozenset(self.draining), starts, self.preparations.progress
        progress = Progress(self.rollout.id, self.rollout.state, left, under_way)
        advances = waits or self.draining or progress != before
        return progress, self.now if advances else self.situation.memory.progress_at

    def _newcomer(self, worker: WorkerView) -> bool:
        """It is of the rollout under way, and runs what shall run."""
        if self.rollout is None or self.rollout.previous is None:
            return False
        return worker.id.generation > self.rollout.previous.generation and worker.revision == self.app.revision

    def _judged(self) -> list[WorkerView]:
        """The workers whose failure is the rollout's: those it started, and that shall keep their slots."""
        rollout = self.rollout
        if rollout is None:
            return []
        if rollout.state is RolloutState.ROLLING_BACK:
            oldest = self.app.generation
        elif rollout.previous is None:
            oldest = 1
        else:
            oldest = rollout.previous.generation + 1
        return [worker for worker in self.good.values() if worker and worker.id.generation >= oldest]

    # What fills a slot

    def _best(self, place: _Place, workers: list[WorkerView]) -> WorkerView | None:
        """The worker that shall keep the slot: of the acceptable ones the ready one, then the newest."""
        host, slot = place
        if slot > self.app.wanted(host):
            return None
        acceptable = [
            worker
            for worker in workers
            if worker.phase is Phase.RUN and self.app.accepts(host, slot, worker.id.generation)
        ]
        return max(acceptable, key=self._merit, default=None)

    def _merit(self, worker: WorkerView) -> tuple[bool, bool, bool, int]:
        """Orders the workers of one slot by how much they deserve to keep it: rather an older one whose revision ran in full."""
        proven = worker.revision in self.app.good_revisions or worker.revision == self.app.revision
        return worker.ready, worker.phase is Phase.RUN, proven, worker.id.generation

    def _stable(self, worker: WorkerView) -> bool:
        if not worker.ready or worker.ready_since is None:
            return False
        newcomer = worker.id in self.newcomer_ids
        stable_at = worker.ready_since + (self.trial.ready_seconds if newcomer else self.policy.min_ready_seconds)
        self.wakes.append(stable_at)
        return self.now >= stable_at

    def _is_routed(self, worker: WorkerView) -> bool:
        """Every registered balancer may choose it, and said so in this epoch."""
        if not self.routed_app:
            return True
        return all(
            balancer.connected
            and balancer.applied is not None
            and balancer.applied.get(worker.id) is EndpointState.READY
            for balancer in self.balancers
        )

    def _serves(self, worker: WorkerView) -> bool:
        """Requests can do with it when another one leaves."""
        return worker.id.host in self.situation.connected and self._stable(worker) and worker.id in self.routed

    def _may_begin(self, place: _Place) -> bool:
        """Whether the step for this slot is under way already, or may begin now."""
        if place in self.begun:
            return True
        if self.paused or (self.trial.allowed is not None and not self._may_try_another(self.trial.allowed)):
            return False
        self.begun.add(place)
        return True

    def _may_try_another(self, allowed: int) -> bool:
        """A new leader has not counted what was begun before every host of the app has reported."""
        return len(self.begun) < allowed and self.situation.reported.issuperset(self.app.placement)

    # Starting

    def _start_workers(self) -> None:
        replacing = {host for host in self.hosts if self._replacing_on(host)}
        missing = [
            (host, slot)
            for host in self.hosts
            if host in self.situation.connected
            for slot in range(1, self.app.wanted(host) + 1)
            if self.good.get((host, slot)) is None
        ]
        # A slot whose worker does not serve gains most from a new one, and what shall leave may wait for it.
        missing.sort(key=lambda place: (self._serves_somehow(place), place))
        for host, slot in missing:
            if self._is_full(host):
                continue
            occupied = bool(self.slots.get((host, slot)))
            if occupied and not self._may_start_beside(host, slot, replacing):
                continue
            identity = WorkerId(self.app.name, host, slot, self.app.generation)
            if identity in self.workers:
                continue  # its predecessor of the same name is still being forgotten
            if occupied and self._serves_somehow((host, slot)):
                replacing.add(host)
            self.live_on[host] += 1
            self.starts.append(Target(identity, self.app.revision, Phase.RUN))

    def _serves_somehow(self, place: _Place) -> bool:
        return any(worker.ready for worker in self.slots.get(place, ()))

    def _may_start_beside(self, host: str, slot: int, replacing: set[str]) -> bool:
        if self.policy.max_surge == 0 or self.at_once:
            return False
        if not any(worker.phase is Phase.RUN for worker in self.slots[host, slot]):
            return False  # it is being stopped: the slot will be free soon
        enough = len(replacing) >= self.policy.parallel_hosts
        if host not in replacing and enough and self._serves_somehow((host, slot)):
            return False
        return self._may_begin((host, slot))

    def _replacing_on(self, host: str) -> bool:
        """A worker that serves is being replaced there."""
        return any(
            self.good[place] is not None
            and any(worker.ready and worker is not self.good[place] for worker in self.slots[place])
            for place in self.places[host]
        )

    # Draining and stopping

    def _retire_workers(self) -> None:
        leaving = [worker for worker in self.workers.values() if self._leaves(worker)]
        remembered = self.situation.memory.draining
        leaving.sort(key=lambda worker: (worker.id not in remembered, worker.id))
        serving = {worker.id for worker in self.workers.values() if self._serves(worker)}
        needed = 0 if self.at_once else self.app.wanted_total - self.policy.max_unavailable
        for worker in leaving:
            if worker.life in (Life.READY, Life.UNREADY):
                if worker.ready and len(serving - {worker.id}) < needed:
                    self.held_back = f"waiting until {needed} others serve, {len(serving - {worker.id})} do"
                    continue
                serving.discard(worker.id)
                self.draining.add(worker.id)
                if not self.at_once and not self._drained(worker):
                    continue
            self.stops.add(worker.id)
            self.draining.discard(worker.id)
            self.drained_since.pop(worker.id, None)

    def _leaves(self, worker: WorkerView) -> bool:
        """It shall run no longer, and nothing but its own requests and the number of serving ones holds it."""
        if worker.phase is Phase.STOP or worker.id.host not in self.situation.connected:
            return False
        place = worker.id.host, worker.id.slot
        if worker.id.slot > self.app.wanted(worker.id.host):
            return not self.paused or worker.id in self.situation.memory.draining
        good = self.good.get(place)
        if good is worker:
            return False
        keeper = good or max(self.slots[place], key=self._merit)
        if keeper is not worker:
            if not worker.ready and worker.id.generation in self.app.rejected:
                return True  # it serves nobody, and its predecessor may be no better
            # Of two that are both to be replaced, a newer operation having come in between, one goes first to make room.
            return (self._stable(keeper) and keeper.id in self.routed) or (good is None and not worker.ready)
        if self.preparations.holds:
            return False
        if self.at_once:
            return True
        if not worker.ready and self.trial.allowed is None and self._is_full(worker.id.host):
            return True  # it serves nobody and stands where its successor shall be
        return self.policy.max_surge == 0 and self._may_begin(place)

    def _is_full(self, host: str) -> bool:
        return self.live_on[host] >= self.app.wanted(host) + self.policy.max_surge

    def _drained(self, worker: WorkerView) -> bool:
        """Every registered balancer stopped choosing it, and its requests ended or had their time."""
        if not self.routed_app or not worker.port:
            return True
        balancers = self.balancers
        if not all(balancer.stopped_choosing(worker.id) for balancer in balancers):
            return False
        since = self.situation.memory.drained_since.get(worker.id, self.now)
        self.drained_since[worker.id] = since
        deadline = since + self.policy.drain_timeout_seconds
        self.wakes.append(deadline)
        return self.now >= deadline or all(balancer.has_no_request(worker.id) for balancer in balancers)

    # The answer

    def _targets(self) -> Iterator[Target]:
        for worker in self.workers.values():
            if not worker.live:
                if self._port_is_listed(worker):
                    yield Target(worker.id, worker.revision, Phase.STOP)
                continue  # exited as told: nothing is wanted of it any more
            stop = worker.phase is Phase.STOP or worker.id in self.stops
            yield Target(worker.id, worker.revision, Phase.STOP if stop else Phase.RUN)
        yield from self.starts

    def _endpoints(self) -> dict[WorkerId, EndpointState]:
        endpoints: dict[WorkerId, EndpointState] = {}
        if not self.routed_app:
            return endpoints
        for worker in self.workers.values():
            if not worker.listable:
                continue
            if worker.phase is Phase.STOP or worker.id in self.draining or worker.id in self.stops:
                endpoints[worker.id] = EndpointState.DRAINING
            elif worker.ready and not self._kept_from_requests(worker):
                endpoints[worker.id] = EndpointState.READY
        return endpoints

    def _kept_from_requests(self, worker: WorkerView) -> bool:
        """It is the first of its revision, not proven yet, and its predecessor serves; unless it was given requests already."""
        if not self.trial.unproven or worker.id not in self.newcomer_ids:
            return False
        if any(worker.id in balancer.may_choose for balancer in self.balancers):
            return False
        return any(other.ready and other is not worker for other in self.slots[worker.id.host, worker.id.slot])

    def _port_is_listed(self, worker: WorkerView) -> bool:
        """A registered balancer may still have the exited worker's port in a list: the agent must give it to nobody else yet."""
        if not self.routed_app or not worker.port:
            return False
        return not all(
            balancer.connected
            and balancer.applied is not None
            and worker.id not in balancer.applied
            and worker.id not in balancer.may_choose
            for balancer in self.balancers
        )

    def _held(self) -> bool:
        return any(not worker.live and self._port_is_listed(worker) for worker in self.workers.values())

    # How far it is

    def _remaining_on(self, host: str) -> int:
        if host not in self.situation.reported:
            return self.app.placement.get(host, 0)
        if host not in self.situation.connected and self._spares_lost_hosts():
            return 0
        wanted = self.app.wanted(host)
        highest = max((slot for _, slot in self.places[host]), default=0)
        return sum(not self._slot_is_done(host, slot) for slot in range(1, max(wanted, highest) + 1))

    def _spares_lost_hosts(self) -> bool:
        """A move, or a way back, is done when every host that was lost since is the only one not as it shall be.

        A lost host cannot be told anything, and its share cannot move elsewhere before the way back has ended.
        """
        rollout = self.rollout
        return rollout is not None and (rollout.kind is RolloutKind.MOVE or rollout.state is RolloutState.ROLLING_BACK)

    def _slot_is_done(self, host: str, slot: int) -> bool:
        workers = self.slots.get((host, slot), [])
        if slot > self.app.wanted(host):
            return not workers
        good = self.good.get((host, slot))
        if good is None or len(workers) > 1:
            return False
        return good.completed or (self._stable(good) and good.id in self.routed) or self._is_no_better_back(good)

    def _is_no_better_back(self, worker: WorkerView) -> bool:
        """The way back leads to nothing better than this worker: to wait for it would hold up the next attempt.

        It crashed before already, or is of a revision that never ran in full, and may never.
        """
        rollout = self.rollout
        if rollout is None or rollout.state is not RolloutState.ROLLING_BACK or rollout.previous is None:
            return False
        never_ran = rollout.previous.revision not in self.app.good_revisions
        return never_ran or (worker.id.generation <= rollout.previous.generation and worker.ails)

    def _doing_on(self, host: str) -> str:
        if host not in self.situation.connected:
            return "not connected"
        if self.preparations.doing and host in self.preparations.doing:
            return self.preparations.doing[host]
        here = [worker for place in self.places[host] for worker in self.slots[place]]
        good = [worker for place in self.places[host] if (worker := self.good[place]) is not None]
        starting = [target.id.slot for target in self.starts if target.id.host == host]
        starting += [worker.id.slot for worker in good if not worker.ready]
        draining = [worker.id.slot for worker in here if worker.id in self.draining]
        stopping = [worker.id.slot for worker in here if worker.phase is Phase.STOP or worker.id in self.stops]
        return doing_on(starting, draining, stopping)

    def _ailing(self) -> list[str]:
        """Workers that shall serve and do not, while nothing is being done about it."""
        if self.app.state is not AppState.RUNNING or self.starts or self.draining or self.stops:
            return []
        ill = (one for one in self.good.values() if one and (one.life is Life.UNREADY or one.ails))
        return [str(worker.id.slot_id) for worker in ill]
