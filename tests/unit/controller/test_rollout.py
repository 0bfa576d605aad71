"""The planner, scene by scene: the way of one slot, and what holds it up."""

from dataclasses import replace

from fleet_controller.planning.rollout import plan
from fleet_controller.planning.views import (
    BalancerView,
    EndpointState,
    Failure,
    Life,
    Memory,
    Phase,
    Plan,
    Situation,
    WorkerView,
)
from fleet_controller.records import AppRecord, AppState, Previous, RolloutKind, RolloutRecord, RolloutState, SizeMode
from fleet_core.ids import WorkerId
from fleet_core.spec import AppSpec, RolloutPolicy

READY, DRAINING = EndpointState.READY, EndpointState.DRAINING
NOW = 100.0
BEFORE = Previous(
    state=AppState.RUNNING, size_mode=SizeMode.FLOATING, placement={"host1": 1}, revision=1, generation=1, floor=1
)


def worker(
    slot: int, generation: int, life: Life = Life.READY, *, host: str = "host1", since: float = 0.0
) -> WorkerView:
    return WorkerView(
        WorkerId("app", host, slot, generation),
        1,
        life,
        Phase.RUN,
        port=20_000 + slot,
        address="127.0.0.1",
        ready_since=since if life is Life.READY else None,
    )


def choosing(*workers: WorkerView, draining: tuple[WorkerView, ...] = (), in_flight: int | None = None) -> BalancerView:
    """A balancer that acknowledged these endpoints, and counted `in_flight` on each that drains."""
    applied = {w.id: READY for w in workers} | {w.id: DRAINING for w in draining}
    counts = {} if in_flight is None else {w.id: in_flight for w in draining}
    return BalancerView(
        "lb1", connected=True, applied=applied, may_choose=frozenset(w.id for w in workers), in_flight=counts
    )


def restarting(
    *workers: WorkerView, balancer: BalancerView, size: int = 1, policy: RolloutPolicy | None = None
) -> Situation:
    """A soft restart from generation 1 to 2 on one host."""
    return Situation(
        app=AppRecord(
            name="app", placement={"host1": size}, generation=2, floor=2, rollout="r", generations={1: 1, 2: 1}
        ),
        spec=AppSpec(name="app", argv=("app",), cwd="/", rollout=policy or RolloutPolicy(min_ready_seconds=1)),
        rollout=RolloutRecord(id="r", app="app", kind=RolloutKind.RESTART, revision=1, generation=2, previous=BEFORE),
        workers=workers,
        reported=frozenset({"host1"}),
        connected=frozenset({"host1"}),
        balancers=(balancer,),
    )


def stops(answer: Plan) -> list[WorkerId]:
    return [target.id for target in answer.targets if target.phase is Phase.STOP]


def runs(answer: Plan) -> list[WorkerId]:
    return [target.id for target in answer.targets if target.phase is Phase.RUN]


OLD, NEW = worker(1, 1), worker(1, 2, since=NOW - 2)


def test_first_a_new_worker_starts_beside_the_old() -> None:
    answer = plan(restarting(OLD, balancer=choosing(OLD)), NOW)
    assert runs(answer) == [OLD.id, NEW.id]
    assert answer.endpoints == {OLD.id: READY}


def test_the_old_one_stays_until_the_new_one_has_been_ready_for_a_while() -> None:
    fresh = worker(1, 2, since=NOW - 0.4)
    answer = plan(restarting(OLD, fresh, balancer=choosing(OLD, fresh)), NOW)
    assert answer.endpoints == {OLD.id: READY, NEW.id: READY}
    assert answer.wake_at == NOW + 0.6


def test_the_old_one_stays_until_every_balancer_has_the_new_one() -> None:
    answer = plan(restarting(OLD, NEW, balancer=choosing(OLD)), NOW)
    assert answer.endpoints == {OLD.id: READY, NEW.id: READY}


def test_then_the_old_one_drains_and_is_not_stopped_yet() -> None:
    answer = plan(restarting(OLD, NEW, balancer=choosing(OLD, NEW)), NOW)
    assert answer.endpoints == {OLD.id: DRAINING, NEW.id: READY}
    assert stops(answer) == []


def test_it_is_not_stopped_while_it_has_requests() -> None:
    """Guards invariant 7."""
    answer = plan(restarting(OLD, NEW, balancer=choosing(NEW, draining=(OLD,), in_flight=3)), NOW)
    assert stops(answer) == []


def test_it_is_not_stopped_before_its_requests_were_counted() -> None:
    """Guards invariant 7."""
    answer = plan(restarting(OLD, NEW, balancer=choosing(NEW, draining=(OLD,))), NOW)
    assert stops(answer) == []


def test_it_is_not_stopped_while_a_list_that_was_sent_may_still_let_it_be_chosen() -> None:
    """Guards invariant 7."""
    acknowledged = choosing(NEW, draining=(OLD,), in_flight=0)
    behind = replace(acknowledged, may_choose=frozenset({OLD.id, NEW.id}))
    assert stops(plan(restarting(OLD, NEW, balancer=behind), NOW)) == []


def test_it_is_stopped_when_its_requests_have_ended() -> None:
    answer = plan(restarting(OLD, NEW, balancer=choosing(NEW, draining=(OLD,), in_flight=0)), NOW)
    assert stops(answer) == [OLD.id]


def test_requests_that_do_not_end_have_the_drain_timeout() -> None:
    scene = restarting(OLD, NEW, balancer=choosing(NEW, draining=(OLD,), in_flight=1))
    first = plan(scene, NOW)
    assert first.wake_at == NOW + 30
    later = replace(scene, memory=first.memory)
    assert stops(plan(later, NOW + 29)) == []
    assert stops(plan(later, NOW + 30)) == [OLD.id]


def test_a_balancer_that_is_away_holds_everything_and_is_named() -> None:
    away = BalancerView("lb2", connected=False, applied=None)
    scene = restarting(OLD, NEW, balancer=choosing(OLD, NEW))
    answer = plan(replace(scene, balancers=(*scene.balancers, away)), NOW)
    assert answer.endpoints[OLD.id] is READY
    assert answer.waiting == "waiting for balancer lb2, not connected"


def test_draining_turns_back_when_the_new_worker_crashes() -> None:
    """Guards invariant 1."""
    crashed = worker(1, 2, Life.STARTING)
    scene = restarting(OLD, crashed, balancer=choosing(draining=(OLD,), in_flight=0))
    answer = plan(replace(scene, memory=Memory(draining=frozenset({OLD.id}))), NOW)
    assert answer.endpoints == {OLD.id: READY}
    assert stops(answer) == []


def test_no_worker_drains_while_another_one_is_missing() -> None:
    """Guards invariant 1."""
    missing = worker(2, 2, Life.STARTING)
    answer = plan(restarting(OLD, NEW, missing, balancer=choosing(OLD, NEW), size=2), NOW)
    assert answer.endpoints[OLD.id] is READY


def test_a_stop_is_never_taken_back() -> None:
    stopping = replace(OLD, phase=Phase.STOP, life=Life.STOPPING)
    answer = plan(restarting(stopping, worker(1, 2, Life.STARTING), balancer=choosing(draining=(OLD,))), NOW)
    assert stops(answer) == [OLD.id]


def test_hosts_are_replaced_one_after_the_other() -> None:
    scene = restarting(OLD, worker(1, 1, host="host2"), balancer=choosing(OLD))
    both = replace(
        scene,
        app=scene.app.model_copy(update={"placement": {"host1": 1, "host2": 1}}),
        reported=frozenset({"host1", "host2"}),
        connected=frozenset({"host1", "host2"}),
    )
    started = [identity for identity in runs(plan(both, NOW)) if identity.generation == 2]
    assert [identity.host for identity in started] == ["host1"]


def test_an_app_that_cannot_overlap_goes_stop_first() -> None:
    alone = RolloutPolicy(max_surge=0, max_unavailable=1)
    answer = plan(restarting(OLD, balancer=choosing(draining=(OLD,), in_flight=0), policy=alone), NOW)
    assert stops(answer) == [OLD.id]
    assert runs(answer) == []
    gone = plan(restarting(balancer=choosing(), policy=alone), NOW)
    assert runs(gone) == [NEW.id]


def test_a_new_worker_that_crashes_again_and_again_fails_the_rollout() -> None:
    broken = replace(worker(1, 2, Life.BACKOFF), reason="exit code 1")
    scene = restarting(OLD, broken, balancer=choosing(OLD))
    first = plan(scene, NOW)
    assert first.failure is None
    again = replace(scene, workers=(OLD, replace(broken, restarts=3)), memory=first.memory)
    failure = plan(again, NOW + 1).failure
    assert failure == Failure("worker app/host1/1 ended 3 times before it was ready: exit code 1", broken.id)


def test_crashes_of_a_worker_that_was_ready_before_do_not_fail_a_rollout() -> None:
    was_ready = plan(restarting(NEW, balancer=choosing(NEW)), NOW)
    killed = replace(worker(1, 2, Life.STARTING), restarts=2)
    scene = restarting(killed, balancer=choosing())
    assert plan(replace(scene, memory=was_ready.memory), NOW + 1).failure is None


def test_a_worker_that_is_never_ready_fails_the_rollout_in_time() -> None:
    scene = restarting(OLD, worker(1, 2, Life.STARTING), balancer=choosing(OLD))
    first = plan(scene, NOW)
    later = replace(scene, memory=first.memory)
    assert plan(later, NOW + 34).failure is None
    assert plan(later, NOW + 35).failure == Failure("worker app/host1/1 was not ready within 35 s", NEW.id)


def test_a_broken_old_worker_is_replaced_first_and_without_draining() -> None:
    broken = worker(2, 1, Life.FAILED)
    starting = plan(restarting(OLD, broken, balancer=choosing(OLD), size=2), NOW)
    assert WorkerId("app", "host1", 2, 2) in runs(starting)
    healed = worker(2, 2)
    answer = plan(restarting(OLD, broken, healed, balancer=choosing(OLD, healed), size=2), NOW)
    assert stops(answer) == [broken.id]


def test_the_workers_of_a_host_that_is_away_keep_their_endpoints_and_their_targets() -> None:
    """Guards invariant 3."""
    scene = replace(restarting(OLD, NEW, balancer=choosing(OLD, NEW)), connected=frozenset())
    answer = plan(scene, NOW)
    assert answer.endpoints == {OLD.id: READY, NEW.id: READY}
    assert stops(answer) == []
    assert answer.waiting == "waiting for host1, not connected"


def test_nothing_is_decided_for_a_host_that_has_not_reported() -> None:
    scene = restarting(balancer=choosing())
    answer = plan(replace(scene, reported=frozenset(), connected=frozenset()), NOW)
    assert answer.targets == ()
    assert answer.remaining == {"host1": 1}


def test_a_restart_has_settled_when_only_new_workers_are_left_and_routed() -> None:
    assert plan(restarting(NEW, balancer=choosing(NEW)), NOW).settled
    assert not plan(restarting(NEW, balancer=choosing()), NOW).settled


def test_going_back_does_not_wait_for_a_worker_that_was_broken_before() -> None:
    """Guards invariant 6. An app that never ran is repaired by trying again, which must not wait for its broken workers."""
    broken, better = replace(worker(1, 1, Life.BACKOFF), restarts=9), worker(2, 1)
    scene = restarting(broken, better, balancer=choosing(better), size=2)
    assert scene.rollout is not None
    back = scene.rollout.model_copy(update={"state": RolloutState.ROLLING_BACK})
    app = scene.app.model_copy(update={"floor": 1, "rejected": frozenset({2})})
    assert plan(replace(scene, app=app, rollout=back), NOW).settled
    assert not plan(replace(scene, app=app), NOW).settled, "a rollout that goes forward waits"


def test_going_back_does_not_wait_for_a_host_that_was_lost_but_a_new_leader_waits_for_its_first_report() -> None:
    """Guards invariant 6. While it waited, the share of the lost host could not move elsewhere."""
    here, there = worker(1, 1), worker(1, 1, host="host2")
    scene = restarting(here, there, balancer=choosing(here))
    assert scene.rollout is not None
    back = replace(
        scene,
        app=scene.app.model_copy(
            update={"placement": {"host1": 1, "host2": 1}, "floor": 1, "rejected": frozenset({2})}
        ),
        rollout=scene.rollout.model_copy(update={"state": RolloutState.ROLLING_BACK}),
        reported=frozenset({"host1", "host2"}),
    )
    assert plan(back, NOW).settled
    assert not plan(replace(back, workers=(here,), reported=frozenset({"host1"})), NOW).settled


def test_a_first_start_that_was_resumed_still_fails_by_its_other_workers() -> None:
    """Guards invariant 6. One worker got a successor of a higher generation; a broken one beside it is the start's as well."""
    broken = worker(2, 1, Life.FAILED)
    scene = restarting(NEW, broken, balancer=choosing(NEW), size=2)
    assert scene.rollout is not None
    start = scene.rollout.model_copy(update={"kind": RolloutKind.START, "previous": None})
    app = scene.app.model_copy(update={"floor": 1, "slot_floors": {"host1/1": 2}})
    failure = plan(replace(scene, app=app, rollout=start), NOW).failure
    assert failure is not None
    assert failure.worker == broken.id


def test_a_host_that_comes_back_after_a_rollout_has_its_worker_replaced() -> None:
    """Guards invariant 6. Its worker serves, and is of a generation that may not stay; nothing else would ever replace it."""
    scene = replace(restarting(OLD, balancer=choosing(OLD)), rollout=None)
    assert NEW.id in runs(plan(scene, NOW))


def test_a_stopped_app_drains_and_goes() -> None:
    scene = restarting(NEW, balancer=choosing(draining=(NEW,), in_flight=0))
    stopped = replace(scene, app=scene.app.model_copy(update={"state": AppState.STOPPED}))
    assert stops(plan(stopped, NOW)) == [NEW.id]
    exited = replace(NEW, phase=Phase.STOP, life=Life.EXITED)
    gone = plan(replace(stopped, workers=(exited,), balancers=(choosing(),)), NOW)
    assert gone.settled
    assert gone.targets == ()


def test_the_port_of_an_exited_worker_is_kept_until_every_balancer_has_dropped_it() -> None:
    """Guards invariant 7: the next app to get the port must not get this one's requests."""
    exited = replace(OLD, phase=Phase.STOP, life=Life.EXITED)
    absent = BalancerView("lb2", connected=False, applied=None)
    for balancers in ((choosing(NEW, draining=(OLD,)),), (choosing(NEW), absent)):
        answer = plan(replace(restarting(exited, NEW, balancer=choosing(NEW)), balancers=balancers), NOW)
        assert stops(answer) == [OLD.id]
    assert stops(plan(restarting(exited, NEW, balancer=choosing(NEW)), NOW)) == []
