"""The planner, on thousands of random histories: users who change their mind, crashes, late reports, new leaders."""

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from fleet_controller.mutations import endings, operations, revisions
from fleet_controller.planning.placement import HostFact
from fleet_controller.planning.views import Life
from fleet_controller.records import AppRecord, AppState, RolloutRecord, RolloutState
from fleet_core.ids import SlotId
from fleet_core.spec import OnFailure, RolloutPolicy
from tests.property.rollout_world import BALANCERS, HOSTS, Behaviour, World

_policies = st.sampled_from(
    [
        RolloutPolicy(progress_deadline_seconds=100),
        RolloutPolicy(min_ready_seconds=0, progress_deadline_seconds=100),
        RolloutPolicy(max_surge=2, parallel_hosts=3, progress_deadline_seconds=100),
        RolloutPolicy(max_surge=0, max_unavailable=1, progress_deadline_seconds=100),
        RolloutPolicy(max_surge=1, max_unavailable=2, drain_timeout_seconds=3, progress_deadline_seconds=20),
        RolloutPolicy(canary=2, bake_seconds=1, on_failure=OnFailure.PAUSE, progress_deadline_seconds=100),
        RolloutPolicy(canary=1, bake_seconds=1, min_ready_seconds=0, parallel_hosts=3, progress_deadline_seconds=200),
        RolloutPolicy(canary=1, canary_seconds=5, bake_seconds=0, parallel_hosts=2, progress_deadline_seconds=100),
    ]
)
Steering = Callable[[AppRecord, RolloutRecord], tuple[AppRecord, RolloutRecord]]
_hosts = st.sampled_from(HOSTS)
_balancers = st.sampled_from(BALANCERS)
_FACTS = {name: HostFact(name, 2, online=True) for name in HOSTS}


class RolloutHistories(RuleBasedStateMachine):
    """Guards invariants 1, 2, 6 and 7: the world asserts them at every instruction, `teardown` asserts that all settles."""

    world: World

    @initialize(
        policy=_policies,
        size=st.integers(1, 7),
        first=st.sampled_from([Behaviour.GOOD, Behaviour.GOOD, *Behaviour]),
        settled=st.booleans(),
    )
    def begin(self, policy: RolloutPolicy, size: int, first: Behaviour, *, settled: bool) -> None:
        self.world = World(policy, size, first)
        if settled and first is Behaviour.GOOD:
            self.world.settle()
        elif settled:
            for _ in range(60):
                self.world.pass_a_second()

    @rule()
    def the_leader_thinks(self) -> None:
        self.world.think()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(name=_hosts)
    def a_host_reports(self, name: str) -> None:
        self.world.report(name)

    @rule(data=st.data())
    def a_worker_progresses(self, data: st.DataObject) -> None:
        if self.world.processes:
            self.world.progress(data.draw(st.sampled_from(sorted(self.world.processes))))

    @rule()
    def every_worker_progresses(self) -> None:
        for identity in list(self.world.processes):
            self.world.progress(identity)

    @rule(data=st.data())
    def a_worker_crashes(self, data: st.DataObject) -> None:
        if self.world.processes:
            self.world.crash(data.draw(st.sampled_from(sorted(self.world.processes))))

    @rule(data=st.data())
    def a_worker_is_unready_for_a_while(self, data: st.DataObject) -> None:
        ready = sorted(i for i, p in self.world.processes.items() if p.life is Life.READY)
        if ready:
            self.world.processes[data.draw(st.sampled_from(ready))].life = Life.UNREADY

    @rule(name=_hosts, problem=st.sampled_from(["", "", "build failed"]))
    def a_host_lacks_the_code(self, name: str, problem: str) -> None:
        self.world.without_code[name] = problem

    @rule()
    def every_host_has_the_code(self) -> None:
        self.world.without_code.clear()

    @rule(name=_hosts)
    def an_agent_is_cut_off(self, name: str) -> None:
        self.world.disconnect(name)

    @rule(name=_hosts)
    def an_agent_comes_back(self, name: str) -> None:
        self.world.connect(name)

    @rule(name=_hosts)
    def a_host_is_lost_for_long(self, name: str) -> None:
        self.world.disconnect(name)
        for _ in range(4):
            self.world.now += 40
            self.world.think()

    @rule(name=_hosts)
    def a_share_is_moved_elsewhere(self, name: str) -> None:
        self.world.move(name)

    @rule(ignored=st.sets(_balancers))
    def the_user_ignores_balancers_from_now_on(self, ignored: set[str]) -> None:
        self.world.ignored = tuple(sorted(ignored))

    @rule(name=_balancers)
    def a_balancer_applies(self, name: str) -> None:
        self.world.apply_lists(name)

    @rule(name=_balancers)
    def a_balancer_acknowledges(self, name: str) -> None:
        self.world.acknowledge(name)

    @rule(name=_balancers)
    def a_balancer_is_cut_off(self, name: str) -> None:
        self.world.unsubscribe(name)

    @rule(name=_balancers)
    def a_balancer_comes_back(self, name: str) -> None:
        self.world.subscribe(name)

    @rule(name=_balancers)
    def clients_send(self, name: str) -> None:
        self.world.send_requests(name)

    @rule(name=_balancers)
    def clients_are_answered(self, name: str) -> None:
        self.world.end_requests(name)

    @rule()
    def another_leader_takes_over(self) -> None:
        self.world.take_over()

    @precondition(lambda self: self.world.app.state is AppState.RUNNING)
    @rule(at_once=st.booleans())
    def the_user_restarts(self, *, at_once: bool) -> None:
        self.world.change(lambda ask, app: operations.restart(ask, app, None, at_once=at_once))

    @rule(name=_hosts, slot=st.integers(1, 3))
    def the_user_restarts_one_worker(self, name: str, slot: int) -> None:
        where = SlotId("app", name, slot)
        self.world.change(lambda ask, app: operations.restart(ask, app, where, at_once=False))

    @rule(size=st.integers(0, 9), name=st.none() | _hosts)
    def the_user_sets_the_size(self, size: int, name: str | None) -> None:
        self.world.change(
            lambda ask, app: operations.set_size(ask, app, operations.plan_size(app, _FACTS, name or "", size, None))
        )

    @rule(at_once=st.booleans())
    def the_user_stops(self, *, at_once: bool) -> None:
        self.world.change(lambda ask, app: operations.stop(ask, app, at_once=at_once, remove=False))

    @rule(behaviour=st.sampled_from([Behaviour.GOOD, *Behaviour]))
    def the_user_updates(self, behaviour: Behaviour) -> None:
        self.world.update(behaviour)

    @rule(data=st.data())
    def the_user_rolls_back(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from([0, *sorted(self.world.revisions)]))
        self.world.change(lambda ask, app: revisions.rollback(ask, app, number, self.world.revisions.values()))

    @rule(action=st.sampled_from([endings.paused, endings.resumed, endings.aborted, endings.promoted]))
    def the_user_steers(self, action: Steering) -> None:
        self.world.steer(action)

    @rule()
    def the_user_starts_again(self) -> None:
        self.world.change(lambda ask, app: operations.start_again(ask, app, 0, (), _FACTS, {}))

    def teardown(self) -> None:
        """After the last fault, observed state reaches desired state (invariant 6)."""
        if not hasattr(self, "world"):
            return
        self.world.settle()
        app = self.world.app
        wanted = {(host, slot) for host in HOSTS for slot in range(1, app.wanted(host) + 1)}
        assert [(i.host, i.slot) for i in self.world.live()] == sorted(wanted)
        refused = [i for i in self.world.live() if not app.accepts(i.host, i.slot, i.generation)]
        assert not refused, "workers of a generation that may not stay are left"
        for balancer in self.world.balancers.values():
            assert {(worker.host, worker.slot) for worker in balancer.endpoints} == wanted


TestRolloutHistories = RolloutHistories.TestCase
TestRolloutHistories.settings = settings(
    max_examples=int(os.environ.get("HISTORIES", "150")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize("policy", [RolloutPolicy(), RolloutPolicy(max_surge=0, max_unavailable=1)])
@pytest.mark.parametrize("second", [Behaviour.CRASHES, Behaviour.NEVER_READY, Behaviour.HANGS])
@pytest.mark.parametrize("first", [Behaviour.CRASHES, Behaviour.NEVER_READY, Behaviour.HANGS])
def test_what_never_ran_is_not_waited_for_on_the_way_back(
    first: Behaviour, second: Behaviour, policy: RolloutPolicy
) -> None:
    """Guards invariant 6: a broken first version, mended badly, and then well."""
    world = World(policy, len(HOSTS), first)
    for _ in range(60):
        world.pass_a_second()
    assert world.rollout is None, "the start has failed"
    world.requests += 1  # so that the spec is another one
    world.update(second)
    for _ in range(60):
        world.pass_a_second()
        if world.rollout is not None and world.rollout.state is RolloutState.ROLLING_BACK:
            break
    assert world.app.revision == 1
    for _ in range(5):
        world.pass_a_second()
    assert world.rollout is None, "there is nothing to wait for: the next attempt may begin"
    assert {process.revision for process in world.processes.values()} == {1}
    world.update(Behaviour.GOOD)
    world.settle()
    assert {(process.revision, process.life) for process in world.processes.values()} == {(3, Life.READY)}
    assert world.app.good_revisions == (3,)


def test_a_way_back_ends_although_a_host_it_had_reached_is_lost_for_good() -> None:
    """Guards invariants 1 and 6: the lost host's new worker serves nobody, and the others may not go below the size either."""
    world = World(RolloutPolicy(bake_seconds=0, min_ready_seconds=0, progress_deadline_seconds=600), len(HOSTS))
    world.settle()
    world.requests += 1  # so that the spec is another one
    world.update(Behaviour.GOOD)
    # Two slots are replaced in full: one of them stays within reach, to be taken back.
    for _ in range(30):
        if sum(process.life is Life.READY and process.revision == 1 for process in world.processes.values()) == 1:
            break
        world.pass_a_second()
    reached = sorted(i.host for i, p in world.processes.items() if p.revision == 2 and p.life is Life.READY)
    assert len(reached) == 2
    world.disconnect(reached[0])
    world.steer(endings.aborted)
    for _ in range(200):
        world.pass_a_second()
    assert world.rollout is not None, "held by invariant 1: too few others serve"
    world.move(reached[0])
    for _ in range(30):
        world.pass_a_second()
    assert world.rollout is None
    assert world.settle().settled
