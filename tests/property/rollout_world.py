"""A small world for the planner: hosts, workers, balancers and clients with a truth of their own, of which a leader learns late.

The leader's side is the real one (`Hosts`, `Upstreams`, `plan`, `operations`); only streams, etcd and the clock are missing. Each
stop the planner instructs is judged at the moment it is sent against the truth, not against what the leader believes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from fleet.v1 import agent_pb2, balancer_pb2, types_pb2
from fleet_controller.balancers import ObservedBalancer, Upstreams
from fleet_controller.hosts import Hosts, ObservedHost
from fleet_controller.mutations import endings, operations, revisions
from fleet_controller.mutations.changes import Ask, Change, Refused
from fleet_controller.outbox import Outbox
from fleet_controller.planning.placement import HostFact, without
from fleet_controller.planning.rollout import plan
from fleet_controller.planning.trial import on_trial
from fleet_controller.planning.views import (
    CodeView,
    EndpointState,
    Life,
    Memory,
    Phase,
    Plan,
    Situation,
    Target,
    WorkerView,
)
from fleet_controller.records import AppRecord, AppState, RevisionRecord, RolloutKind, RolloutRecord, RolloutState
from fleet_core.ids import Epoch, WorkerId
from fleet_core.route import RoutePolicy
from fleet_core.spec import AppSpec, RolloutPolicy

HOSTS = ("host1", "host2", "host3")
BALANCERS = ("lb1", "lb2")
_WIRE = {life: getattr(types_pb2, f"WORKER_STATE_{life.name}") for life in Life}


class Behaviour(StrEnum):
    """What the workers of a revision do; a revision says it in its environment."""

    GOOD = "good"
    NEVER_READY = "never_ready"
    CRASHES = "crashes"
    DIES = "dies"
    """Soon after it was ready."""
    HANGS = "hangs"
    """It starts for ever, and nobody says that it failed: its code is not there, or its start timeout is long."""


class Mailbox(Outbox[balancer_pb2.UpstreamMessage]):
    """Delivers when told to, one message at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Callable[[], balancer_pb2.UpstreamMessage]] = []
        self.delivered: list[balancer_pb2.UpstreamMessage] = []

    def put(self, key: object, build: Callable[[], balancer_pb2.UpstreamMessage]) -> None:
        self.waiting.append(build)


@dataclass
class Process:
    """A worker as it truly is."""

    life: Life
    phase: Phase
    port: int
    pid: int
    revision: int = 1
    restarts: int = 0


@dataclass
class LoadBalancer:
    """A balancer as it truly is: what it applied, not what it said."""

    mailbox: Mailbox | None = None
    seen: ObservedBalancer | None = None
    endpoints: dict[WorkerId, EndpointState] = field(default_factory=dict)
    in_flight: dict[WorkerId, int] = field(default_factory=dict)
    unsaid: list[balancer_pb2.Applied] = field(default_factory=list)


class World:
    def __init__(self, policy: RolloutPolicy, size: int, first: Behaviour = Behaviour.GOOD) -> None:
        """`first`: what the workers do of the revision that the app begins with."""
        self.now = 1000.0
        self.policy = policy
        self.revisions: dict[int, RevisionRecord] = {}
        self.proven: set[int] = {1} if first is Behaviour.GOOD else set()
        """Revisions of which the leader saw a worker stay ready for the policy's bake time."""
        self.replaced: dict[str, set[tuple[str, int]]] = {}
        """Rollout → slots whose old worker it stopped."""
        self.processes: dict[WorkerId, Process] = {}
        self.connected: set[str] = set()
        self.without_code: dict[str, str] = {}
        """Hosts that lack the code of the revision new workers run → why they cannot make it ready, or empty: not yet."""
        self.pids = 100
        self.requests = 0
        self.ignored: tuple[str, ...] = ()
        """Balancers the user's next operation does not wait for."""
        self.epoch = 0
        facts = {name: HostFact(name, 2, online=True) for name in HOSTS}
        change = operations.start_new(Ask("r0"), self.spec_of(first, 0), size, (), facts, {})
        self.app: AppRecord = change.app
        self.rollouts: dict[str, RolloutRecord] = {}
        self._take(change)
        self.balancers = {name: LoadBalancer() for name in BALANCERS}
        self.take_over()
        for name in HOSTS:
            self.connect(name)
        for name in BALANCERS:
            self.subscribe(name)

    def spec_of(self, behaviour: Behaviour, number: int) -> AppSpec:
        env = {"BEHAVIOUR": behaviour, "NUMBER": str(number)}
        return AppSpec(name="app", argv=("app",), cwd="/", env=env, rollout=self.policy)

    def behaviour(self, revision: int) -> Behaviour:
        return Behaviour(self.revisions[revision].app_spec.env["BEHAVIOUR"])

    # The leader

    def take_over(self) -> None:
        """A new leader, who knows what is in etcd and nothing else."""
        self.epoch += 1
        self.hosts = Hosts(lambda: self.now)
        self.upstreams = Upstreams(Epoch(1, self.epoch), lambda: self.now)
        self.upstreams.rename(["app"])
        self.memory = Memory()
        self.connected = set()
        for balancer in self.balancers.values():
            balancer.mailbox = balancer.seen = None
            balancer.unsaid.clear()

    @property
    def rollout(self) -> RolloutRecord | None:
        record = self.rollouts.get(self.app.rollout)
        return record if record is not None and record.state.under_way else None

    def change(self, decide: Callable[[Ask, AppRecord], Change | None]) -> None:
        """A user's operation, unless it is refused or changes nothing."""
        self.requests += 1
        past = tuple(self.rollouts.values())
        ask = Ask(f"r{self.requests}", past, supersede=True, ignored_balancers=self.ignored)
        try:
            change = decide(ask, self.app)
        except Refused:
            return
        if change is None:
            return
        self._take(change)

    def _take(self, change: Change) -> None:
        self.app = change.app
        self.rollouts[change.rollout.id] = change.rollout
        if change.revision is not None:
            self.revisions[change.revision.number] = change.revision
        if change.superseded is not None:
            self.rollouts[change.superseded.id] = change.superseded
        for identifier in change.forgotten:
            del self.rollouts[identifier]
        for number in change.forgotten_revisions:
            del self.revisions[number]

    def move(self, leaving: str) -> None:
        """The relocator moves a host's share, unless another rollout is under way or no host is there to take it.

        A lost host's it also moves while one goes back.
        """
        taking, rollout = self.connected - {leaving}, self.rollout
        if not taking or leaving not in self.app.placement:
            return
        placement = without(self.app.placement, {leaving}, taking, {})
        if rollout is not None:
            if rollout.state is not RolloutState.ROLLING_BACK or rollout.kind is RolloutKind.MOVE:
                return
            if leaving not in self.connected:
                self.app, self.rollouts[rollout.id] = operations.move_while_going_back(
                    self.app, rollout, placement, f"host {leaving} was lost"
                )
            return
        self.change(
            lambda ask, app: operations.move(replace(ask, supersede=False, ignored_balancers=()), app, placement)
        )

    def update(self, behaviour: Behaviour) -> None:
        """A user brings a new revision."""
        spec = self.spec_of(behaviour, self.requests)
        self.change(lambda ask, app: revisions.update(ask, app, spec, self.revisions.values()))

    def steer(self, action: Callable[[AppRecord, RolloutRecord], tuple[AppRecord, RolloutRecord]]) -> None:
        """A user pauses, resumes, aborts or promotes, unless that is refused."""
        rollout = self.rollout
        if rollout is None:
            return
        try:
            self.app, self.rollouts[rollout.id] = action(self.app, rollout)
        except Refused:
            return

    def think(self) -> Plan:
        """One pass of the leader, whose instructions arrive at once; judged as they go out."""
        workers = tuple(self.hosts.workers_of("app"))
        situation = Situation(
            app=self.app,
            spec=self.revisions[self.app.revision].app_spec,
            rollout=self.rollout,
            workers=workers,
            reported=frozenset(host.name for host in self.hosts if host.reported),
            connected=frozenset(host.name for host in self.hosts if host.connected),
            balancers=self.upstreams.views("app", BALANCERS),
            memory=self.memory,
            brings_code=self._brings_code(),
            code={
                name: CodeView(ready=name not in self.without_code, problem=self.without_code.get(name, ""))
                for name in HOSTS
            },
        )
        self._note_proofs(workers)
        answer = plan(situation, self.now)
        by_id = {worker.id: worker for worker in workers}
        if situation.reported == set(HOSTS):
            self.upstreams.update("app", RoutePolicy(http="127.0.0.1:80"), answer.endpoints, by_id)
        for target in answer.targets:
            host = self.hosts.get(target.id.host)
            if host is not None and host.connected:
                self._instruct(target)
                host.told(target.id, target.revision, target.phase)
        wanted = {target.id for target in answer.targets}
        for identity, process in list(self.processes.items()):
            host = self.hosts.get(identity.host)
            if host is not None and host.connected and identity not in wanted:
                assert process.life is Life.EXITED, f"{identity} was dropped while it is {process.life}"
                del self.processes[identity]
                host.workers.pop(identity, None)
        self.memory = answer.memory  # not before the judgement, which asks since when a worker had been drained
        rollout = self.rollout
        if rollout is not None and answer.failure is not None:
            policy = self.policy.on_failure
            self.app, self.rollouts[rollout.id] = endings.failed(
                self.app, rollout, answer.failure.text, None, policy, 0
            )
        elif rollout is not None and answer.settled:
            self.app, self.rollouts[rollout.id] = endings.done(self.app, rollout, 0)
        return answer

    def _brings_code(self) -> bool:
        rollout = self.rollout
        if rollout is None or rollout.state is not RolloutState.RUNNING:
            return False
        return rollout.previous is None or rollout.previous.revision != self.app.revision

    def _instruct(self, target: Target) -> None:
        process = self.processes.get(target.id)
        if process is None:
            assert target.phase is Phase.RUN
            lacking = self.connected & self.without_code.keys() & {h for h in HOSTS if self.app.wanted(h)}
            assert not self._brings_code() or not lacking, f"{target.id} started while {lacking} lack its code"
            self._judge_start(target.id.host)
            self.pids += 1
            port = 20_000 + self.pids
            self.processes[target.id] = Process(Life.STARTING, Phase.RUN, port, self.pids, target.revision)
        elif target.phase is Phase.STOP and process.phase is Phase.RUN:
            self._judge_stop(target.id, process)
            process.phase = Phase.STOP
            process.life = Life.EXITED if process.life in (Life.BACKOFF, Life.FAILED) else Life.STOPPING
        else:
            assert target.phase is process.phase, f"the stop of {target.id} was taken back"

    # Judgement

    def _note_proofs(self, workers: Iterable[WorkerView]) -> None:
        self.proven |= {
            worker.revision
            for worker in workers
            if worker.ready
            and worker.ready_since is not None
            and worker.ready_since + self.policy.bake_seconds
            <= self.now  # as the planner counts: a difference rounds otherwise
        }

    def _judge_trial(self, identity: WorkerId, process: Process) -> None:
        """No old worker is stopped in favour of a revision that has not shown yet that it is good."""
        rollout = self.rollout
        if rollout is None or not on_trial(self.app, rollout) or not self.policy.max_surge:
            return
        if process.revision not in self.app.good_revisions or identity.slot > self.app.wanted(identity.host):
            return
        if any(
            other.revision == process.revision and other.phase is Phase.RUN and other is not process
            for place, other in self.processes.items()
            if (place.host, place.slot) == (identity.host, identity.slot)
        ):
            return  # one of two that an interrupted restart left in the slot: the other stays
        assert self.app.revision in self.proven, f"{identity} stopped for revision {self.app.revision}, not proven"
        slots = self.replaced.setdefault(rollout.id, set())
        slots.add((identity.host, identity.slot))
        if rollout.kind is RolloutKind.UPDATE and self.policy.canary and not self.policy.canary_seconds:
            assert rollout.promoted or len(slots) <= self.policy.canary, f"{slots} replaced, not promoted"

    def _judge_stop(self, identity: WorkerId, process: Process) -> None:
        """Invariants 1 and 7, for a stop that is being instructed now."""
        if self.rollout is not None and self.rollout.at_once:
            return
        if process.life is Life.READY:
            self._judge_trial(identity, process)
        seen = self.hosts.get(identity.host)
        believed_ready = seen is not None and identity in seen.workers and seen.workers[identity].view.ready
        ready = sum(worker.ready for worker in self.hosts.workers_of("app"))
        if believed_ready:
            needed = self.app.wanted_total - self.policy.max_unavailable
            assert ready - 1 >= needed, f"{identity} stopped with {ready} ready, {needed} needed"
        if process.life is not Life.READY or not believed_ready:
            return
        ignored = self.rollout.ignored_balancers if self.rollout is not None else ()
        for name, balancer in self.balancers.items():
            if name in ignored:
                continue
            assert balancer.endpoints.get(identity) is not EndpointState.READY, f"{name} still chooses {identity}"
            since = self.memory.drained_since.get(identity, self.now)
            timed_out = self.now - since >= self.policy.drain_timeout_seconds
            assert timed_out or not balancer.in_flight.get(identity), f"{identity} stopped with requests in flight"

    def _judge_start(self, host: str) -> None:
        """Invariant 2, for a start that is being instructed now."""
        live = sum(
            identity.host == host and (process.phase is Phase.RUN or process.life is not Life.EXITED)
            for identity, process in self.processes.items()
        )
        assert live < self.app.wanted(host) + self.policy.max_surge, f"{live} live on {host} before a start"

    # The world

    def connect(self, name: str) -> None:
        """The agent's session begins; its complete report arrives."""
        host = self.hosts.join(agent_pb2.AgentHello(host_name=name, host_uid=name, cpus=2), Outbox())
        self.connected.add(name)
        self._take_report(host, agent_pb2.WorkerReport(complete=True, workers=self._statuses(name)))

    def disconnect(self, name: str) -> None:
        host = self.hosts.get(name)
        if host is not None and host.outbox is not None:
            self.hosts.leave(host, host.outbox)
            self.connected.discard(name)

    def report(self, name: str) -> None:
        """What changed reaches the leader, if the host is connected."""
        host = self.hosts.get(name)
        if host is not None and host.connected:
            self._take_report(host, agent_pb2.WorkerReport(workers=self._statuses(name)))

    def _take_report(self, host: ObservedHost, report: agent_pb2.WorkerReport) -> None:
        """As the conductor does: who cannot serve leaves the list before anything is planned."""
        self.hosts.report(host, report)
        gone = {identity for identity, worker in host.workers.items() if not worker.view.listable}
        self.upstreams.withdraw("app", gone)

    def _statuses(self, name: str) -> list[types_pb2.WorkerStatus]:
        return [
            types_pb2.WorkerStatus(
                id=identity.to_proto(),
                revision=process.revision,
                state=_WIRE[process.life],
                phase=types_pb2.PHASE_STOP if process.phase is Phase.STOP else types_pb2.PHASE_RUN,
                pid=process.pid,
                address="127.0.0.1",
                port=process.port,
                restarts=process.restarts,
            )
            for identity, process in self.processes.items()
            if identity.host == name
        ]

    def subscribe(self, name: str) -> None:
        balancer = self.balancers[name]
        balancer.mailbox = Mailbox()
        balancer.unsaid.clear()
        balancer.seen = self.upstreams.subscribe(balancer_pb2.BalancerHello(name=name), balancer.mailbox)

    def unsubscribe(self, name: str) -> None:
        balancer = self.balancers[name]
        if balancer.mailbox is not None and balancer.seen is not None:
            self.upstreams.leave(balancer.seen, balancer.mailbox)
            balancer.mailbox = balancer.seen = None

    def apply_lists(self, name: str) -> None:
        """The balancer applies what waits for it, but says nothing yet."""
        balancer = self.balancers[name]
        while balancer.mailbox is not None and balancer.mailbox.waiting:
            message = balancer.mailbox.waiting.pop(0)()
            for pool in message.lists.changed:
                states = {types_pb2.ENDPOINT_STATE_READY: EndpointState.READY}
                balancer.endpoints = {
                    WorkerId.from_proto(endpoint.worker): states.get(endpoint.state, EndpointState.DRAINING)
                    for endpoint in pool.endpoints
                }
                applied = balancer_pb2.Applied(epoch=message.epoch, pool=pool.name, version=pool.version)
                balancer.unsaid.append(applied)

    def acknowledge(self, name: str) -> None:
        balancer = self.balancers[name]
        if balancer.seen is None:
            return
        for applied in balancer.unsaid:
            self.upstreams.acknowledge(balancer.seen, applied)
        balancer.unsaid.clear()
        heartbeat = balancer_pb2.BalancerHeartbeat()
        for worker, state in balancer.endpoints.items():
            if state is EndpointState.DRAINING:
                count = balancer.in_flight.get(worker, 0)
                heartbeat.draining.add(pool="app", worker=worker.to_proto(), in_flight=count)
        self.upstreams.loads(balancer.seen, heartbeat)

    def send_requests(self, name: str) -> None:
        """Clients send one request to every endpoint the balancer may choose."""
        balancer = self.balancers[name]
        for worker, state in balancer.endpoints.items():
            process = self.processes.get(worker)
            if state is EndpointState.READY and process is not None and process.life is Life.READY:
                balancer.in_flight[worker] = balancer.in_flight.get(worker, 0) + 1

    def end_requests(self, name: str) -> None:
        self.balancers[name].in_flight.clear()

    def crash(self, identity: WorkerId) -> None:
        process = self.processes[identity]
        if process.phase is Phase.RUN and process.life in (Life.READY, Life.STARTING, Life.UNREADY):
            self.pids += 1
            restarted = replace(process, life=Life.STARTING, pid=self.pids, restarts=process.restarts + 1)
            self.processes[identity] = restarted
            for balancer in self.balancers.values():
                balancer.in_flight.pop(identity, None)

    def progress(self, identity: WorkerId) -> None:
        """A starting worker becomes ready, or does what its revision does; a stopping one exits."""
        process = self.processes[identity]
        behaviour = self.behaviour(process.revision)
        runs = process.phase is Phase.RUN
        dies = behaviour is Behaviour.CRASHES or (behaviour is Behaviour.DIES and process.life is Life.READY)
        if runs and dies:
            self.crash(identity)
        elif runs and process.life in (Life.STARTING, Life.UNREADY) and behaviour is not Behaviour.HANGS:
            process.life = Life.FAILED if behaviour is Behaviour.NEVER_READY else Life.READY
        elif process.life is Life.STOPPING:
            process.life = Life.EXITED
            process.pid = 0
            for balancer in self.balancers.values():
                balancer.in_flight.pop(identity, None)

    def settle(self) -> Plan:
        """No more faults: everything that can happen happens, until nothing changes; returns the last plan."""
        for name in HOSTS:
            if name not in self.connected:
                self.connect(name)
        self.without_code.clear()
        for name in BALANCERS:
            if self.balancers[name].mailbox is None:
                self.subscribe(name)
        for step in range(1200):
            answer = self.pass_a_second()
            if answer.settled and self.rollout is None and self.think().settled:
                return answer
            self._operate(answer, step)
        raise AssertionError(f"never settled: {self.think()}")

    def pass_a_second(self) -> Plan:
        """Everything happens that can, on the hosts that are connected; returns the plan it began with."""
        answer = self.think()
        for identity in list(self.processes):
            self.progress(identity)
        for name in HOSTS:
            self.report(name)
        for name in BALANCERS:
            self.end_requests(name)
            self.apply_lists(name)
            self.acknowledge(name)
        self.now += 1.0
        return answer

    def _operate(self, answer: Plan, step: int) -> None:
        """What an operator does who reads `status`."""
        rollout = self.rollout
        if rollout is not None and rollout.paused:
            self.steer(endings.aborted if rollout.failed_worker or rollout.message else endings.resumed)
        elif answer.awaits_promotion:
            self.steer(endings.promoted)
        elif rollout is None and self.behaviour(self.app.revision) is not Behaviour.GOOD and step % 50 == 49:
            good = max((n for n in self.revisions if self.behaviour(n) is Behaviour.GOOD), default=0)
            if good:
                self.change(lambda ask, app: revisions.rollback(ask, app, good, self.revisions.values()))
            else:
                self.update(Behaviour.GOOD)

    def live(self) -> list[WorkerId]:
        return sorted(identity for identity, process in self.processes.items() if process.life is not Life.EXITED)

    @property
    def stopped(self) -> bool:
        return self.app.state is not AppState.RUNNING
