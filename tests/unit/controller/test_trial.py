"""How a revision that never ran in full shows that it is good, scene by scene."""

from dataclasses import replace

from fleet_controller.planning.rollout import plan
from fleet_controller.planning.views import (
    BalancerView,
    EndpointState,
    Life,
    Memory,
    Phase,
    Plan,
    Situation,
    WorkerView,
)
from fleet_controller.records import AppRecord, AppState, Previous, RolloutKind, RolloutRecord, SizeMode
from fleet_core.ids import WorkerId
from fleet_core.spec import AppSpec, RolloutPolicy

NOW = 100.0
SIZE = 4
BEFORE = Previous(
    state=AppState.RUNNING, size_mode=SizeMode.FLOATING, placement={"host1": SIZE}, revision=1, generation=1, floor=1
)


def worker(slot: int, generation: int, since: float | None = 0.0, restarts: int = 0) -> WorkerView:
    """Of revision 1 in generation 1, of revision 2 in generation 2; `since` None: it starts."""
    return WorkerView(
        WorkerId("app", "host1", slot, generation),
        generation,
        Life.STARTING if since is None else Life.READY,
        Phase.RUN,
        port=20_000 + slot,
        ready_since=since,
        restarts=restarts,
    )


def updating(policy: RolloutPolicy, *new: WorkerView, old: tuple[int, ...] = (1, 2, 3, 4)) -> Situation:
    """An update of four workers, whose balancer has every worker that is ready."""
    workers = (*(worker(slot, 1) for slot in old), *new)
    listed = {w.id: EndpointState.READY for w in workers if w.ready}
    return Situation(
        app=AppRecord(
            name="app",
            placement={"host1": SIZE},
            revision=2,
            generation=2,
            floor=2,
            generations={1: 1, 2: 2},
            good_revisions=(1,),
            rollout="r",
        ),
        spec=AppSpec(name="app", argv=("app",), cwd="/", rollout=policy),
        rollout=RolloutRecord(id="r", app="app", kind=RolloutKind.UPDATE, revision=2, generation=2, previous=BEFORE),
        workers=workers,
        reported=frozenset({"host1"}),
        connected=frozenset({"host1"}),
        balancers=(BalancerView("lb1", connected=True, applied=listed, may_choose=frozenset(listed)),),
    )


def started(answer: Plan, scene: Situation) -> list[int]:
    known = {w.id for w in scene.workers}
    return [target.id.slot for target in answer.targets if target.id not in known]


def draining(answer: Plan) -> list[int]:
    return sorted(w.slot for w, state in answer.endpoints.items() if state is EndpointState.DRAINING)


BAKING = RolloutPolicy(bake_seconds=10, min_ready_seconds=1, max_surge=2)


def test_one_worker_is_replaced_first_although_more_could_be() -> None:
    scene = updating(BAKING)
    assert started(plan(scene, NOW), scene) == [1]
    waiting = updating(BAKING, worker(1, 2, since=NOW - 9))
    answer = plan(waiting, NOW)
    assert (started(answer, waiting), draining(answer)) == ([], [])
    assert answer.wake_at == NOW + 1
    assert answer.waiting == "watching the first worker of revision 2 for 10 s"


def test_it_gets_no_request_before_it_has_stayed_ready() -> None:
    young = worker(1, 2, since=NOW - 9)
    unlisted = replace(updating(BAKING, young), balancers=updating(BAKING).balancers)
    assert young.id not in plan(unlisted, NOW).endpoints
    assert plan(unlisted, NOW + 1).endpoints[young.id] is EndpointState.READY


def test_where_nothing_else_serves_the_slot_it_gets_requests_at_once() -> None:
    young = worker(1, 2, since=NOW - 1)
    alone = replace(updating(BAKING, young, old=(2, 3, 4)), balancers=updating(BAKING, old=(2, 3, 4)).balancers)
    assert plan(alone, NOW).endpoints[young.id] is EndpointState.READY


def test_once_it_has_stayed_ready_the_others_follow() -> None:
    scene = updating(BAKING, worker(1, 2, since=NOW - 10))
    answer = plan(scene, NOW)
    assert draining(answer) == [1]
    assert started(answer, scene) == [2]


def test_a_revision_proven_once_stays_proven_when_its_first_worker_is_replaced() -> None:
    scene = updating(BAKING, worker(1, 2, since=NOW - 10))
    memory = plan(scene, NOW).memory
    crashed = replace(updating(BAKING, worker(1, 2, since=None), worker(2, 2, since=NOW - 2)), memory=memory)
    assert draining(plan(crashed, NOW)) == [2]


def test_a_worker_that_is_ready_and_dies_again_and_again_fails_the_rollout_at_the_first_slot() -> None:
    first = plan(updating(BAKING, worker(1, 2, since=NOW)), NOW)
    scene = replace(updating(BAKING, worker(1, 2, since=NOW + 18, restarts=3)), memory=first.memory)
    answer = plan(scene, NOW + 20)
    assert answer.failure is not None
    assert answer.failure.text == "worker app/host1/1 ended 3 times, never ready for 10 s"
    assert draining(answer) == []


def test_canaries_wait_for_a_word() -> None:
    policy = RolloutPolicy(bake_seconds=0, min_ready_seconds=0, canary=2, max_surge=4)
    canaries = worker(1, 2, since=NOW - 5), worker(2, 2, since=NOW - 5)
    scene = updating(policy, *canaries, old=(3, 4))
    answer = plan(scene, NOW)
    assert started(answer, scene) == []
    assert answer.awaits_promotion
    assert "fleetctl rollout promote app" in answer.waiting
    assert not answer.settled
    assert scene.rollout is not None
    promoted = replace(scene, rollout=scene.rollout.model_copy(update={"promoted": True}))
    assert started(plan(promoted, NOW), promoted) == [3, 4]


def test_canaries_with_a_time_go_on_by_themselves() -> None:
    policy = RolloutPolicy(bake_seconds=0, min_ready_seconds=0, canary=1, canary_seconds=30)
    scene = updating(policy, worker(1, 2, since=NOW - 29), old=(2, 3, 4))
    answer = plan(scene, NOW)
    assert (started(answer, scene), answer.wake_at) == ([], NOW + 1)
    assert started(plan(replace(scene, memory=answer.memory), NOW + 1), scene) == [2]


def test_a_canary_that_dies_again_and_again_fails_the_rollout_however_long_it_lived() -> None:
    """It would else wait for its promotion for ever, or get it: between two deaths it looks well."""
    for policy in (
        RolloutPolicy(bake_seconds=1, min_ready_seconds=0, canary=1),
        RolloutPolicy(bake_seconds=1, min_ready_seconds=0, canary=1, canary_seconds=600),
    ):
        memory = plan(updating(policy, worker(1, 2, since=NOW - 5), old=(2, 3, 4)), NOW).memory
        for restarts in (1, 2):
            scene = updating(policy, worker(1, 2, since=NOW + 60 * restarts, restarts=restarts), old=(2, 3, 4))
            answer = plan(replace(scene, memory=memory), NOW + 60 * restarts + 50)
            assert answer.failure is None
            assert f"ended {restarts} time(s) already" in answer.waiting
            memory = answer.memory
        third = updating(policy, worker(1, 2, since=NOW + 180, restarts=3), old=(2, 3, 4))
        failure = plan(replace(third, memory=memory), NOW + 230).failure
        assert failure is not None
        assert failure.text == "worker app/host1/1 ended 3 times while the canaries were watched"


def test_a_first_worker_that_failed_and_is_being_stopped_gets_its_successor_before_another_slot_is_tried() -> None:
    """`rollout resume` tries the same worker again; the others are not touched meanwhile."""
    policy = RolloutPolicy(bake_seconds=10, max_surge=1)
    broken = replace(worker(1, 2, since=None), life=Life.FAILED)
    elsewhere = replace(worker(1, 1), id=WorkerId("app", "host2", 1, 1))
    scene = updating(policy, broken, elsewhere, old=(1,))
    resumed = replace(
        scene,
        app=scene.app.model_copy(
            update={"placement": {"host1": 1, "host2": 1}, "generation": 3, "slot_floors": {"host1/1": 3}}
        ),
        reported=frozenset({"host1", "host2"}),
        connected=frozenset({"host1", "host2"}),
    )
    answer = plan(resumed, NOW)
    assert [target.id for target in answer.targets if target.phase is Phase.STOP] == [broken.id]
    assert started(answer, resumed) == []
    gone = replace(resumed, workers=tuple(w for w in resumed.workers if w != broken), memory=answer.memory)
    assert [str(target.id.slot_id) for target in plan(gone, NOW).targets if target.id.generation == 3] == [
        "app/host1/1"
    ]


def test_a_new_leader_tries_no_other_slot_before_it_knows_which_was_tried() -> None:
    """The canary of the leader before is on a host whose report is still on its way."""
    policy = RolloutPolicy(bake_seconds=1, min_ready_seconds=0, canary=1)
    scene = updating(policy, old=(1, 2))
    placement = {"host1": 2, "host2": 1}
    unheard = replace(scene, app=scene.app.model_copy(update={"placement": placement}))
    assert started(plan(unheard, NOW), unheard) == []
    heard = replace(unheard, reported=frozenset({"host1", "host2"}))
    assert started(plan(heard, NOW), heard) == [1]


def test_more_canaries_than_workers_are_all_workers_and_wait_as_well() -> None:
    """Who asks for canaries asks to be waited for: also where no old worker is left beside them."""
    policy = RolloutPolicy(bake_seconds=0, min_ready_seconds=0, canary=9)
    everything = updating(policy, *(worker(slot, 2) for slot in range(1, SIZE + 1)), old=())
    answer = plan(everything, NOW)
    assert (answer.settled, answer.awaits_promotion, answer.remaining) == (False, True, {})
    assert "fleetctl rollout promote app" in answer.waiting
    assert everything.rollout is not None
    promoted = replace(everything, rollout=everything.rollout.model_copy(update={"promoted": True}))
    assert plan(promoted, NOW).settled


def test_canaries_that_are_all_workers_and_have_a_time_go_on_by_themselves() -> None:
    policy = RolloutPolicy(bake_seconds=0, min_ready_seconds=0, canary=9, canary_seconds=30)
    everything = updating(policy, *(worker(slot, 2, since=NOW - 29) for slot in range(1, SIZE + 1)), old=())
    answer = plan(everything, NOW)
    assert (answer.settled, answer.wake_at) == (False, NOW + 1)
    assert plan(replace(everything, memory=answer.memory), NOW + 1).settled


def test_a_good_revision_needs_no_trial() -> None:
    scene = updating(BAKING, worker(1, 2, since=NOW - 2))
    good = replace(scene, app=scene.app.model_copy(update={"good_revisions": (2, 1)}))
    assert draining(plan(good, NOW)) == [1]


def test_a_paused_rollout_ends_the_step_it_began_and_begins_no_other() -> None:
    scene = updating(RolloutPolicy(bake_seconds=0, min_ready_seconds=0), worker(1, 2))
    assert scene.rollout is not None
    paused = replace(scene, rollout=scene.rollout.model_copy(update={"paused": True}))
    answer = plan(paused, NOW)
    assert (started(answer, paused), draining(answer)) == ([], [1])
    assert "rollout resume app" in answer.waiting


def test_a_rollout_that_gets_nothing_done_fails_in_the_end() -> None:
    policy = RolloutPolicy(progress_deadline_seconds=60)
    scene = replace(updating(policy), connected=frozenset())
    first = plan(scene, NOW)
    assert first.failure is None
    later = replace(scene, memory=first.memory)
    assert plan(later, NOW + 59).failure is None
    failure = plan(later, NOW + 60).failure
    assert failure is not None
    assert failure.text == "nothing got done for 60 s: waiting for host1, not connected"


def test_a_worker_that_gets_ready_and_dies_again_and_again_is_no_progress() -> None:
    policy = RolloutPolicy(progress_deadline_seconds=60, bake_seconds=0, min_ready_seconds=0)
    failures = []
    memory = Memory()
    for seconds in range(0, 81, 20):
        flapping = worker(1, 2, since=NOW + seconds if seconds % 40 == 0 else None)
        scene = replace(updating(policy, flapping, old=(2, 3, 4)), connected=frozenset(), memory=memory)
        answer = plan(scene, NOW + seconds)
        memory = answer.memory
        failures.append(answer.failure is not None)
    assert failures == [False, False, False, True, True]


def test_a_rollout_that_waits_for_a_person_may_wait_for_ever() -> None:
    policy = RolloutPolicy(progress_deadline_seconds=60)
    scene = updating(policy, worker(1, 2))
    absent = BalancerView("lb2", connected=False, applied=None, absent_seconds=11)
    waiting = replace(scene, balancers=(*scene.balancers, absent))
    first = plan(waiting, NOW)
    assert "balancer lb2 is absent" in first.waiting
    assert "fleetctl balancer remove lb2" in first.waiting
    assert plan(replace(waiting, memory=first.memory), NOW + 3600).failure is None


def test_a_rollout_that_a_balancer_holds_up_by_its_refusal_says_so_when_it_fails() -> None:
    policy = RolloutPolicy(progress_deadline_seconds=60, bake_seconds=0, min_ready_seconds=0)
    scene = updating(policy, worker(1, 2))
    refusing = replace(scene.balancers[0], applied={}, refusal="address 127.0.0.1:80 is taken")
    stuck = replace(scene, balancers=(refusing,))
    first = plan(stuck, NOW)
    failure = plan(replace(stuck, memory=first.memory), NOW + 60).failure
    assert failure is not None
    assert failure.text.endswith("balancer lb1 refuses the upstream list: address 127.0.0.1:80 is taken")


def test_a_balancer_a_user_said_not_to_wait_for_holds_nothing_up() -> None:
    scene = updating(RolloutPolicy(bake_seconds=0, min_ready_seconds=0), worker(1, 2))
    absent = BalancerView("lb2", connected=False, applied=None, absent_seconds=11)
    assert scene.rollout is not None
    ignoring = scene.rollout.model_copy(update={"ignored_balancers": ("lb2",)})
    answer = plan(replace(scene, balancers=(*scene.balancers, absent), rollout=ignoring), NOW)
    assert draining(answer) == [1]
