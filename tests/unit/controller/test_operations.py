"""What each mutation does to desired state, and what it refuses."""

import pytest

from fleet_controller.mutations import operations
from fleet_controller.mutations.changes import INVALID, NOT_FOUND, PRECONDITION, ROLLOUTS_KEPT, Ask, Refused
from fleet_controller.planning.placement import HostFact
from fleet_controller.planning.views import Life, Phase, WorkerView
from fleet_controller.records import AppRecord, AppState, RolloutKind, RolloutRecord, RolloutState, SizeMode
from fleet_core.ids import SlotId, WorkerId
from fleet_core.route import RoutePolicy
from fleet_core.spec import AppSpec

HOSTS = {
    "host1": HostFact("host1", 4, online=True),
    "host2": HostFact("host2", 2, online=True),
    "host3": HostFact("host3", 2, online=False),
}


def spec(http: str = "") -> AppSpec:
    return AppSpec(name="app", argv=("app",), cwd="/", route=RoutePolicy(http=http))


def running(**placement: int) -> AppRecord:
    return AppRecord(name="app", placement=placement, generation=3, floor=2, generations={2: 1, 3: 1}, rollout="r1")


def test_a_new_app_is_spread_over_the_hosts_that_are_online() -> None:
    change = operations.start_new(Ask("r1"), spec(), 5, (), HOSTS, {})
    assert change.app.placement == {"host1": 3, "host2": 2}
    assert change.app.size_mode is SizeMode.FLOATING
    assert change.rollout.steps == 5
    assert change.revision is not None
    assert change.revision.app_spec == spec()


def test_a_new_app_on_named_hosts_is_pinned_there() -> None:
    change = operations.start_new(Ask("r1"), spec(), 4, ("host2",), HOSTS, {})
    assert (change.app.placement, change.app.size_mode) == ({"host2": 4}, SizeMode.PINNED)


def test_an_app_that_etcd_had_lost_begins_above_the_numbers_its_workers_have_and_replaces_them() -> None:
    left = [
        WorkerView(WorkerId("app", "host1", 1, 7), 4, Life.READY, Phase.RUN),
        WorkerView(WorkerId("app", "host2", 1, 5), 3, Life.READY, Phase.RUN),
    ]
    change = operations.start_new(Ask("r1"), spec(), 2, (), HOSTS, {}, left=left)
    assert (change.app.generation, change.app.floor, change.app.revision) == (8, 8, 5)
    assert change.revision is not None
    assert change.revision.number == 5
    assert not any(change.app.accepts(worker.id.host, 1, worker.id.generation) for worker in left)


@pytest.mark.parametrize("other", ["127.0.0.1:80", "0.0.0.0:80", ":80"])
def test_two_apps_cannot_have_one_address(other: str) -> None:
    with pytest.raises(Refused, match="is the route of first already") as refused:
        operations.start_new(Ask("r1"), spec("127.0.0.1:80"), 1, (), HOSTS, {"first": RoutePolicy(http=other)})
    assert refused.value.kind == PRECONDITION


def test_no_app_starts_where_no_host_is_online() -> None:
    away = {"host3": HOSTS["host3"]}
    with pytest.raises(Refused, match="no host is online"):
        operations.start_new(Ask("r1"), spec(), 1, (), away, {})


@pytest.mark.parametrize(
    ("absolute", "relative", "placement"),
    [(8, None, {"host1": 4, "host2": 4}), (None, 2, {"host1": 3, "host2": 3}), (None, None, {"host1": 4, "host2": 2})],
)
def test_a_floating_size_is_a_number_a_difference_or_a_core_each(
    absolute: int | None, relative: int | None, placement: dict[str, int]
) -> None:
    plan = operations.plan_size(running(host1=2, host2=2), HOSTS, "", absolute, relative)
    assert plan.placement == placement
    assert plan.mode is SizeMode.FLOATING


@pytest.mark.parametrize(
    ("size", "placement"),
    [
        (12, {"host1": 4, "host2": 4, "host3": 4}),
        (15, {"host1": 5, "host2": 5, "host3": 5}),
        (21, {"host1": 8, "host2": 8, "host3": 5}),
    ],
)
def test_a_host_that_is_merely_unknown_keeps_its_share_and_gets_nothing_more(
    size: int, placement: dict[str, int]
) -> None:
    """Guards invariant 3: its workers may well be serving."""
    plan = operations.plan_size(running(host1=5, host2=5, host3=5), HOSTS, "", size, None)
    assert plan.placement == placement


def test_a_size_for_one_host_pins_the_present_spread() -> None:
    plan = operations.plan_size(running(host1=2, host2=2), HOSTS, "host1", 8, None)
    assert (plan.placement, plan.mode, plan.shrinking_others) == ({"host1": 8, "host2": 2}, SizeMode.PINNED, ())


def test_a_plain_size_names_the_hosts_it_takes_from_though_the_app_grows() -> None:
    pinned = running(host1=8, host2=1).model_copy(update={"size_mode": SizeMode.PINNED})
    assert operations.plan_size(pinned, HOSTS, "", 10, None).shrinking_others == ("host1",)


def test_a_floating_app_that_shrinks_was_asked_to() -> None:
    assert operations.plan_size(running(host1=4, host2=4), HOSTS, "", 2, None).shrinking_others == ()


@pytest.mark.parametrize(
    ("host", "absolute", "relative", "kind"),
    [("nope", 1, None, NOT_FOUND), ("", None, -9, INVALID), ("", 5000, None, INVALID)],
)
def test_bad_sizes_are_refused(host: str, absolute: int | None, relative: int | None, kind: str) -> None:
    with pytest.raises(Refused) as refused:
        operations.plan_size(running(host1=2, host2=2), HOSTS, host, absolute, relative)
    assert refused.value.kind == kind


def test_a_restart_raises_the_floor_to_the_new_generation() -> None:
    change = operations.restart(Ask("r2"), running(host1=2), None, at_once=False)
    assert (change.app.generation, change.app.floor) == (4, 4)
    assert change.rollout.previous is not None
    assert change.rollout.previous.floor == 2


def test_the_restart_of_one_worker_raises_the_floor_of_its_slot_alone() -> None:
    change = operations.restart(Ask("r2"), running(host1=2), SlotId("app", "host1", 2), at_once=False)
    assert change.app.floor == 2
    assert (change.app.floor_of("host1", 1), change.app.floor_of("host1", 2)) == (2, 4)
    assert change.rollout.steps == 1


def test_a_worker_that_is_not_there_cannot_be_restarted() -> None:
    with pytest.raises(Refused, match="no worker is named app/host1/3"):
        operations.restart(Ask("r2"), running(host1=2), SlotId("app", "host1", 3), at_once=False)


def test_a_newer_operation_supersedes_the_one_under_way() -> None:
    first = operations.restart(Ask("r2"), running(host1=2), None, at_once=False)
    second = operations.stop(Ask("r3", (first.rollout,)), first.app, at_once=False, remove=False)
    assert second.superseded is not None
    assert (second.superseded.id, second.superseded.state) == ("r2", RolloutState.SUPERSEDED)
    assert second.rollout.sequence > first.rollout.sequence


def test_old_rollouts_are_forgotten_and_the_running_one_is_not() -> None:
    past = tuple(
        RolloutRecord(
            id=f"r{number}",
            app="app",
            kind=RolloutKind.RESTART,
            state=RolloutState.DONE if number else RolloutState.RUNNING,
            revision=1,
            generation=1,
            sequence=number,
        )
        for number in range(30)
    )
    change = operations.restart(Ask("new", past, supersede=True), running(host1=2), None, at_once=False)
    assert len(past) + 1 - len(change.forgotten) == ROLLOUTS_KEPT
    assert "r0" not in change.forgotten


def test_a_stopped_app_keeps_its_size_and_starts_again_in_it() -> None:
    stopped = operations.stop(Ask("r2"), running(host1=2, host2=1), at_once=False, remove=False).app
    assert stopped.state is AppState.STOPPED
    assert stopped.wanted_total == 0
    started = operations.start_again(Ask("r3"), stopped, 0, (), HOSTS, {}).app
    assert (started.wanted_total, started.placement) == (3, {"host1": 2, "host2": 1})


def test_what_runs_cannot_be_started_and_what_is_stopped_cannot_be_restarted() -> None:
    with pytest.raises(Refused, match="running already"):
        operations.start_again(Ask("r2"), running(host1=1), 0, (), HOSTS, {})
    stopped = operations.stop(Ask("r2"), running(host1=1), at_once=False, remove=False).app
    with pytest.raises(Refused, match="stopped"):
        operations.restart(Ask("r3"), stopped, None, at_once=False)
