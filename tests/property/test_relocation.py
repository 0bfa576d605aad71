"""Placement when hosts are drained, lost and back: pure decisions, then the whole leader's side over random histories."""

import os
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fleet_controller.mutations import operations
from fleet_controller.mutations.operations import move
from fleet_controller.planning.placement import HostFact, without
from fleet_controller.planning.relocation import Placed, Watch, relocate
from fleet_controller.planning.views import Life
from fleet_controller.records import AppRecord, AppState, RolloutState, Scheduling
from fleet_core.spec import PlacementPolicy, RolloutPolicy
from tests.property.rollout_world import BALANCERS, HOSTS, World

NAMES = [f"h{number}" for number in range(7)]
LOST_AFTER = 150.0
POLICY = PlacementPolicy(lost_after_seconds=LOST_AFTER, labels={"zone": "a"})
_placements = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9))
_facts = st.fixed_dictionaries(
    {
        name: st.builds(
            HostFact,
            name=st.just(name),
            cpus=st.just(2),
            online=st.booleans(),
            scheduling=st.sampled_from(Scheduling),
            labels=st.sampled_from([{"zone": "a"}, {"zone": "a"}, {"zone": "b"}]),
        )
        for name in NAMES
    }
)


def with_losses(facts: Mapping[str, HostFact], lost_since: float) -> dict[str, HostFact]:
    return {n: fact if fact.online else replace(fact, lost_since=lost_since) for n, fact in facts.items()}


@given(present=_placements, leaving=st.sets(st.sampled_from(NAMES)), load=_placements)
def test_exactly_the_leaving_shares_move_and_evenly(
    present: dict[str, int], leaving: set[str], load: dict[str, int]
) -> None:
    taking = [name for name in NAMES if name not in leaving]
    if not taking:
        return
    after = without(present, leaving, taking, load)
    assert sum(after.values()) == sum(present.values())
    assert not leaving & after.keys()
    assert all(after.get(name, 0) >= present.get(name, 0) for name in taking)
    gained = [after[name] for name in taking if after.get(name, 0) > present.get(name, 0)]
    assert not gained or max(gained) - min(after.get(name, 0) for name in taking) <= 1


@given(facts=_facts, placement=_placements, silent=st.sampled_from([0.0, 1.0, LOST_AFTER, 1e6]))
def test_whoever_moves_goes_where_it_may_and_keeps_its_size(
    facts: dict[str, HostFact], placement: dict[str, int], silent: float
) -> None:
    now = 2e6
    hosts = with_losses(facts, now - silent)
    app = AppRecord(name="app", placement=placement)
    answer = relocate([Placed(app, POLICY)], hosts, Watch(), now)
    for decided in answer.moves:
        assert sum(decided.placement.values()) == app.size
        for name in NAMES:
            before, after = placement.get(name, 0), decided.placement.get(name, 0)
            if after > before:
                assert hosts[name].takes(POLICY.labels)
            elif after < before:
                told_to_leave = hosts[name].scheduling is Scheduling.DRAINING or not hosts[name].has(POLICY.labels)
                assert after == 0
                assert told_to_leave or (not hosts[name].online and silent >= LOST_AFTER and not answer.brake)
    if not answer.moves:
        hindered = answer.notices.get("app")
        stays = all(
            hosts[name].scheduling is not Scheduling.DRAINING
            and hosts[name].has(POLICY.labels)
            and (hosts[name].online or silent < LOST_AFTER)
            for name in placement
        )
        assert hindered or stays


@given(facts=_facts, placement=_placements)
def test_once_moved_nothing_moves_again_whatever_comes_back(
    facts: dict[str, HostFact], placement: dict[str, int]
) -> None:
    now = 2e6
    hosts = with_losses(facts, 0.0)
    app = AppRecord(name="app", placement=placement)
    for decided in relocate([Placed(app, POLICY)], hosts, Watch(), now).moves:
        app = app.model_copy(update={"placement": dict(decided.placement)})
    hosts = {name: replace(fact, online=True, lost_since=None) for name, fact in hosts.items()}
    stuck = any(hosts[n].scheduling is Scheduling.DRAINING or not hosts[n].has(POLICY.labels) for n in app.placement)
    assert stuck or relocate([Placed(app, POLICY)], hosts, Watch(), now + 1).moves == ()


_policies = st.sampled_from(
    [
        RolloutPolicy(min_ready_seconds=0),
        RolloutPolicy(),
        RolloutPolicy(max_surge=2, parallel_hosts=3),
        RolloutPolicy(max_surge=0, max_unavailable=1),
    ]
)
_hosts = st.sampled_from(HOSTS)
_balancers = st.sampled_from(BALANCERS)


class MoveHistories(RuleBasedStateMachine):
    """Guards invariants 1, 2, 3, 6 and 7 while hosts are drained, opened, lost and back: the world asserts them at every
    instruction. Lost hosts' workers run on in this world, which is the worse case."""

    world: World

    @initialize(policy=_policies, size=st.integers(1, 7))
    def begin(self, policy: RolloutPolicy, size: int) -> None:
        self.world = World(policy, size)
        self.scheduling = dict.fromkeys(HOSTS, Scheduling.OPEN)
        self.watch = Watch()
        self.size = size
        self.due_shares = 0
        """Workers whose hosts were told, or lost, at the moment they were moved: what had to move."""
        self.moved = 0
        self.world.settle()

    def facts(self) -> dict[str, HostFact]:
        facts = {}
        for name in HOSTS:
            since = self.world.hosts.lost_since(name)
            facts[name] = HostFact(name, 2, since is None, self.scheduling[name], lost_since=since)
        return facts

    def the_leader_relocates(self) -> None:
        world = self.world
        policy = PlacementPolicy(lost_after_seconds=LOST_AFTER)
        answer = relocate([Placed(world.app, policy, world.rollout)], self.facts(), self.watch, world.now)
        self.watch = answer.watch
        for decided in answer.moves:
            assert not answer.brake or all(
                self.scheduling[name] is Scheduling.DRAINING
                for name in decided.app.placement
                if name not in decided.placement
            )
            before = world.app.placement
            self.due_shares += sum(count for name, count in before.items() if name not in decided.placement)
            self.moved += sum(max(0, count - before.get(name, 0)) for name, count in decided.placement.items())
            world.change(lambda ask, app, to=decided.placement: move(ask, app, to))  # type: ignore[misc]

    @invariant()
    def no_more_moves_than_had_to(self) -> None:
        if hasattr(self, "world"):
            assert self.moved == self.due_shares
            assert self.world.app.size == self.size

    @rule(name=_hosts, scheduling=st.sampled_from(Scheduling))
    def a_host_is_told(self, name: str, scheduling: Scheduling) -> None:
        self.scheduling[name] = scheduling

    @rule(name=_hosts)
    def a_host_is_drained(self, name: str) -> None:
        self.scheduling = {**dict.fromkeys(HOSTS, Scheduling.OPEN), name: Scheduling.DRAINING}
        self.a_while_goes_by_without_a_fault(3)

    @rule(name=_hosts)
    def a_host_is_lost_for_long(self, name: str) -> None:
        for other in HOSTS:
            if other != name and other not in self.world.connected:
                self.world.connect(other)
        self.world.disconnect(name)
        self.world.now += LOST_AFTER + 30.0
        self.a_while_goes_by_without_a_fault(3)

    @rule()
    def the_leader_thinks(self) -> None:
        self.the_leader_relocates()
        self.world.think()

    @rule(seconds=st.sampled_from([0.5, 5.0, 40.0, LOST_AFTER]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(name=_hosts)
    def an_agent_is_cut_off(self, name: str) -> None:
        self.world.disconnect(name)

    @rule(name=_hosts)
    def an_agent_comes_back(self, name: str) -> None:
        self.world.connect(name)

    @rule()
    def everything_progresses(self) -> None:
        for identity in list(self.world.processes):
            self.world.progress(identity)
        for name in HOSTS:
            self.world.report(name)

    @rule(rounds=st.integers(1, 20))
    def a_while_goes_by_without_a_fault(self, rounds: int) -> None:
        """Hosts that are cut off stay so; without this few rollouts would ever end, and moves wait for them."""
        for _ in range(rounds):
            self.the_leader_relocates()
            self.world.think()
            self.everything_progresses()
            for name in BALANCERS:
                self.world.end_requests(name)
                self.a_balancer_applies_and_acknowledges(name)
            self.world.now += 1.0

    @rule(name=_balancers)
    def a_balancer_applies_and_acknowledges(self, name: str) -> None:
        self.world.apply_lists(name)
        self.world.acknowledge(name)

    @rule(name=_balancers)
    def clients_send(self, name: str) -> None:
        self.world.send_requests(name)

    @rule(name=_balancers)
    def clients_are_answered(self, name: str) -> None:
        self.world.end_requests(name)

    @rule(data=st.data())
    def a_worker_crashes(self, data: st.DataObject) -> None:
        if self.world.processes:
            self.world.crash(data.draw(st.sampled_from(sorted(self.world.processes))))

    @rule()
    def another_leader_takes_over(self) -> None:
        self.world.take_over()
        self.watch = Watch()

    @precondition(lambda self: self.world.app.state is AppState.RUNNING)
    @rule()
    def the_user_restarts(self) -> None:
        self.world.change(lambda ask, app: operations.restart(ask, app, None, at_once=False))

    def teardown(self) -> None:
        """With every host back and open, the fleet settles as it is placed, with nothing left over from where it was."""
        if not hasattr(self, "world"):
            return
        self.scheduling = dict.fromkeys(HOSTS, Scheduling.OPEN)
        self.world.settle()
        app = self.world.app
        wanted = sorted((host, slot) for host in HOSTS for slot in range(1, app.wanted(host) + 1))
        assert [(i.host, i.slot) for i in self.world.live()] == wanted
        assert all(process.life is Life.READY for process in self.world.processes.values())
        assert not any(record.state is RolloutState.RUNNING for record in self.world.rollouts.values())


TestMoveHistories = MoveHistories.TestCase
TestMoveHistories.settings = settings(
    max_examples=int(os.environ.get("HISTORIES", "100")),
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
