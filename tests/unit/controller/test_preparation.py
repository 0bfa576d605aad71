"""Code before workers: what a rollout waits for before its first step, scene by scene."""

from dataclasses import replace

import pytest

from fleet_controller.planning.rollout import plan
from fleet_controller.planning.views import (
    BalancerView,
    CodeView,
    EndpointState,
    Failure,
    Life,
    Memory,
    Phase,
    Plan,
    Preparation,
    Situation,
    WorkerView,
)
from fleet_controller.records import AppRecord, AppState, Previous, RolloutKind, RolloutRecord, SizeMode
from fleet_core.ids import WorkerId
from fleet_core.spec import AppSpec, RolloutPolicy

NOW = 100.0
HOSTS = ("host1", "host2", "host3")
PLACEMENT = dict.fromkeys(HOSTS, 1)
BEFORE = Previous(
    state=AppState.RUNNING, size_mode=SizeMode.FLOATING, placement=PLACEMENT, revision=1, generation=1, floor=1
)
READY, FETCHING = CodeView(ready=True), CodeView(doing="fetching code: 40 %", received_bytes=40)
BROKEN = CodeView(problem="build failed: npm ci: exit code 1", last_lines=("no such package",))


def deploying(*code: CodeView | None, policy: RolloutPolicy | None = None, lost: tuple[str, ...] = ()) -> Situation:
    """An update that brings code to three hosts, each with a ready worker; None: its agent does not say how far it is."""
    old = tuple(
        WorkerView(WorkerId("app", host, 1, 1), 1, Life.READY, Phase.RUN, port=20_001, ready_since=0.0)
        for host in HOSTS
    )
    listed = {worker.id: EndpointState.READY for worker in old}
    return Situation(
        app=AppRecord(
            name="app",
            placement=PLACEMENT,
            revision=2,
            generation=2,
            floor=2,
            generations={1: 1, 2: 2},
            good_revisions=(1,),
            rollout="r",
        ),
        spec=AppSpec(name="app", argv=("app",), cwd=".", rollout=policy or RolloutPolicy()),
        rollout=RolloutRecord(id="r", app="app", kind=RolloutKind.UPDATE, revision=2, generation=2, previous=BEFORE),
        workers=old,
        reported=frozenset(HOSTS),
        connected=frozenset(HOSTS) - set(lost),
        balancers=(BalancerView("lb1", connected=True, applied=listed, may_choose=frozenset(listed)),),
        brings_code=True,
        code={host: view for host, view in zip(HOSTS, code, strict=True) if view is not None},
    )


def begun(answer: Plan, scene: Situation) -> bool:
    known = {(worker.id, worker.phase) for worker in scene.workers}
    draining = EndpointState.DRAINING in answer.endpoints.values()
    return draining or any((target.id, target.phase) not in known for target in answer.targets)


STOP_FIRST = RolloutPolicy(max_surge=0, max_unavailable=1)


@pytest.mark.parametrize("policy", [RolloutPolicy(), STOP_FIRST], ids=["start-first", "stop-first"])
def test_nothing_is_started_or_stopped_until_every_host_has_the_code(policy: RolloutPolicy) -> None:
    scene = deploying(READY, FETCHING, READY, policy=policy)
    answer = plan(scene, NOW)

    assert not begun(answer, scene)
    assert answer.preparations == tuple(Preparation(host, "app", 2, 2) for host in HOSTS)
    assert answer.waiting == "preparing the code: ready on 2 of 3 hosts"
    assert answer.doing == {
        "host1": "its code is ready",
        "host2": "fetching code: 40 %",
        "host3": "its code is ready",
    }
    assert not answer.settled
    assert begun(plan(replace(scene, code=dict.fromkeys(HOSTS, READY)), NOW), scene)


def test_code_that_a_host_cannot_make_ready_fails_the_rollout_before_anything_changed() -> None:
    scene = deploying(READY, FETCHING, BROKEN)
    answer = plan(scene, NOW)

    assert answer.failure == Failure(
        "host host3 cannot make the code ready: build failed: npm ci: exit code 1",
        WorkerId("app", "host3", 0, 2),
        "build failed: npm ci: exit code 1",
        ("no such package",),
    )
    assert not begun(answer, scene)


def test_a_paused_rollout_does_not_fail_by_it() -> None:
    scene = deploying(READY, READY, BROKEN)
    assert scene.rollout is not None
    answer = plan(replace(scene, rollout=scene.rollout.model_copy(update={"paused": True})), NOW)
    assert answer.failure is None
    assert answer.preparations


def test_an_agent_that_does_not_say_how_far_it_is_holds_up_nothing() -> None:
    scene = deploying(READY, None, READY)
    assert begun(plan(scene, NOW), scene)


def test_a_lost_host_holds_up_no_other_and_one_never_heard_of_does() -> None:
    lost = deploying(READY, READY, FETCHING, lost=("host3",))
    assert begun(plan(lost, NOW), lost)
    unheard = replace(lost, reported=frozenset(HOSTS[:2]))
    assert not begun(plan(unheard, NOW), unheard)


def test_a_rollout_without_new_code_asks_for_nothing() -> None:
    scene = replace(deploying(FETCHING, FETCHING, FETCHING), brings_code=False)
    answer = plan(scene, NOW)
    assert answer.preparations == ()
    assert begun(answer, scene)


def test_bytes_that_arrive_are_progress_and_a_fetch_that_stands_still_misses_the_deadline() -> None:
    policy = RolloutPolicy(progress_deadline_seconds=20)
    scene = deploying(READY, FETCHING, READY, policy=policy)
    first = plan(scene, NOW)
    moved = replace(scene, code={**scene.code, "host2": replace(FETCHING, received_bytes=41)}, memory=first.memory)
    second = plan(moved, NOW + 19)
    still = replace(moved, memory=second.memory)

    assert plan(still, NOW + 38).failure is None
    failure = plan(still, NOW + 39).failure
    assert failure is not None
    assert failure.text == "nothing got done for 20 s: preparing the code: ready on 2 of 3 hosts"


def test_the_next_leader_asks_again_and_waits_again() -> None:
    scene = replace(deploying(CodeView(), CodeView(), CodeView()), memory=Memory())
    answer = plan(scene, NOW)
    assert len(answer.preparations) == 3
    assert answer.waiting == "preparing the code: ready on 0 of 3 hosts"
    assert answer.doing["host1"] == "preparing the code"
