"""The planner and moves: what a host that is away holds up, and how one that is back gives up what was replaced meanwhile."""

from dataclasses import replace

from fleet_controller.planning.rollout import plan
from fleet_controller.planning.views import BalancerView, EndpointState, Life, Memory, Phase, Situation, WorkerView
from fleet_controller.records import AppRecord, RolloutKind, RolloutRecord
from fleet_core.ids import WorkerId
from fleet_core.spec import AppSpec, RolloutPolicy

NOW = 100.0
APP = AppRecord(name="app", placement={"here": 2}, rollout="r")
MOVE = RolloutRecord(id="r", app="app", kind=RolloutKind.MOVE, revision=1, generation=1)
SPEC = AppSpec(name="app", argv=("app",), cwd="/", rollout=RolloutPolicy(min_ready_seconds=1))


def worker(host: str, slot: int, life: Life = Life.READY) -> WorkerView:
    identity = WorkerId("app", host, slot, 1)
    since = 0.0 if life is Life.READY else None
    return WorkerView(identity, 1, life, Phase.RUN, port=20_000 + slot, address="127.0.0.1", ready_since=since)


def scene(*workers: WorkerView, connected: tuple[str, ...], rollout: RolloutRecord | None) -> Situation:
    ready = {w.id: EndpointState.READY for w in workers if w.ready}
    balancer = BalancerView("lb", connected=True, applied=ready, may_choose=frozenset(ready))
    return Situation(
        app=APP,
        spec=SPEC,
        rollout=rollout,
        workers=workers,
        reported=frozenset({"here", "away"}),
        connected=frozenset(connected),
        balancers=(balancer,),
    )


HERE = (worker("here", 1), worker("here", 2))
LEFT = worker("away", 1)


def test_a_move_is_done_though_the_host_it_left_cannot_be_reached() -> None:
    answer = plan(scene(*HERE, LEFT, connected=("here",), rollout=MOVE), NOW)
    assert answer.settled


def test_a_move_is_not_done_before_its_workers_serve() -> None:
    answer = plan(scene(HERE[0], worker("here", 2, Life.STARTING), LEFT, connected=("here",), rollout=MOVE), NOW)
    assert not answer.settled


def test_another_operation_waits_for_a_host_that_cannot_be_reached() -> None:
    resize = MOVE.model_copy(update={"kind": RolloutKind.SET_SIZE})
    assert not plan(scene(*HERE, LEFT, connected=("here",), rollout=resize), NOW).settled


def test_a_worker_that_was_replaced_while_its_host_was_away_is_drained_before_it_is_stopped() -> None:
    """Guards invariants 1 and 7; nothing else is touched, and no rollout is needed for it."""
    back = scene(*HERE, LEFT, connected=("here", "away"), rollout=None)
    answer = plan(back, NOW)
    assert answer.endpoints[LEFT.id] is EndpointState.DRAINING
    assert {target.phase for target in answer.targets} == {Phase.RUN}

    applied = {**dict.fromkeys((w.id for w in HERE), EndpointState.READY), LEFT.id: EndpointState.DRAINING}
    may_choose = frozenset(w.id for w in HERE)
    drained = BalancerView("lb", connected=True, applied=applied, may_choose=may_choose, in_flight={LEFT.id: 0})
    answer = plan(replace(back, balancers=(drained,), memory=Memory(draining=frozenset({LEFT.id}))), NOW)
    assert [target.id for target in answer.targets if target.phase is Phase.STOP] == [LEFT.id]


def test_it_stays_as_long_as_its_successor_does_not_serve() -> None:
    """Guards invariant 1."""
    back = scene(HERE[0], worker("here", 2, Life.STARTING), LEFT, connected=("here", "away"), rollout=None)
    answer = plan(back, NOW)
    assert answer.endpoints[LEFT.id] is EndpointState.READY
    assert {target.phase for target in answer.targets} == {Phase.RUN}
