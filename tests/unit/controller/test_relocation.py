"""What moves when hosts are drained, relabelled, lost and back, and what does not."""

from dataclasses import replace

import pytest

from fleet_controller.mutations import endings, operations
from fleet_controller.mutations.changes import PRECONDITION, Ask, Refused
from fleet_controller.planning.placement import HostFact
from fleet_controller.planning.relocation import (
    MOST_MOVES_AT_ONCE,
    SETTLING_SECONDS,
    Placed,
    Relocation,
    Watch,
    at_rest,
    relocate,
)
from fleet_controller.records import (
    AppRecord,
    AppState,
    RolloutKind,
    RolloutRecord,
    RolloutState,
    Scheduling,
    SizeMode,
)
from fleet_core.spec import PlacementPolicy

NOW = 1000.0
LOST_AFTER = 150.0


def fleet(*names: str) -> dict[str, HostFact]:
    return {name: HostFact(name, 2, online=True) for name in names}


def lost(host: HostFact, seconds: float) -> HostFact:
    return replace(host, online=False, lost_since=NOW - seconds)


def drained(host: HostFact) -> HostFact:
    return replace(host, scheduling=Scheduling.DRAINING)


def floating(**placement: int) -> AppRecord:
    return AppRecord(name="app", placement=placement, rollout="r1")


def pinned(**placement: int) -> AppRecord:
    return floating(**placement).model_copy(update={"size_mode": SizeMode.PINNED})


def rollout(kind: RolloutKind, state: RolloutState) -> RolloutRecord:
    return RolloutRecord(id="r1", app="app", kind=kind, state=state, revision=1, generation=1)


def decide(
    app: AppRecord,
    hosts: dict[str, HostFact],
    *,
    policy: PlacementPolicy | None = None,
    newest: RolloutRecord | None = None,
    watch: Watch | None = None,
    now: float = NOW,
) -> Relocation:
    placed = Placed(app, policy or PlacementPolicy(lost_after_seconds=LOST_AFTER), newest, rollout_written_at=10)
    return relocate([placed], hosts, watch or Watch(), now)


def test_nothing_moves_where_every_host_is_as_it_shall_be() -> None:
    answer = decide(floating(a=2, b=2), fleet("a", "b", "c"))
    assert (answer.moves, answer.notices, answer.brake, answer.wake_at) == ((), {}, "", None)


def test_the_share_of_a_drained_host_goes_to_the_others_and_nothing_else_moves() -> None:
    hosts = fleet("a", "b", "c")
    hosts["b"] = drained(hosts["b"])
    (decided,) = decide(floating(a=4, b=4, c=4), hosts).moves
    assert decided.placement == {"a": 6, "c": 6}
    assert decided.cause == "host b is drained"
    assert decided.hosts == {"a", "b", "c"}


def test_odd_workers_go_to_where_fewest_of_the_app_are_then_to_where_least_runs() -> None:
    hosts = fleet("a", "b", "c", "d")
    hosts["d"] = drained(hosts["d"])
    app = Placed(AppRecord(name="z", placement={"a": 1, "b": 1, "c": 1, "d": 1}), PlacementPolicy())
    other = Placed(AppRecord(name="other", placement={"a": 5, "b": 1, "c": 5}), PlacementPolicy())
    (decided,) = relocate([app, other], hosts, Watch(), NOW).moves
    assert decided.placement == {"a": 1, "b": 2, "c": 1}


def test_many_small_apps_are_spread_over_the_hosts_that_take_them() -> None:
    hosts = fleet("a", "b", "c")
    hosts["a"] = drained(hosts["a"])
    apps = [Placed(AppRecord(name=f"app{n}", placement={"a": 1}), PlacementPolicy()) for n in range(6)]
    moves = relocate(apps, hosts, Watch(), NOW).moves
    assert sorted(next(iter(decided.placement)) for decided in moves) == ["b", "b", "b", "c", "c", "c"]


def test_a_cordoned_host_keeps_what_it_runs_and_takes_nothing_of_a_drained_one() -> None:
    hosts = fleet("a", "b", "c")
    hosts["a"] = drained(hosts["a"])
    hosts["b"] = replace(hosts["b"], scheduling=Scheduling.CORDONED)
    (decided,) = decide(floating(a=2, b=2, c=2), hosts).moves
    assert decided.placement == {"b": 2, "c": 4}


def test_a_host_without_the_labels_loses_its_share_to_one_that_has_them() -> None:
    hosts = fleet("a", "b", "c")
    hosts["c"] = replace(hosts["c"], labels={"disk": "fast"})
    policy = PlacementPolicy(labels={"disk": "fast"})
    (decided,) = decide(floating(a=2, c=1), hosts, policy=policy).moves
    assert (decided.placement, decided.cause) == ({"c": 3}, "host a lacks disk=fast")


def test_where_no_host_takes_workers_they_stay_and_the_reason_is_said() -> None:
    hosts = fleet("a", "b")
    hosts["a"] = drained(hosts["a"])
    hosts["b"] = replace(hosts["b"], scheduling=Scheduling.CORDONED)
    answer = decide(floating(a=2), hosts)
    assert answer.moves == ()
    (notice,) = answer.notices["app"]
    assert "host a is drained" in notice
    assert "no other host takes workers" in notice
    assert "fleetctl host uncordon" in notice


def test_a_lost_host_keeps_its_share_until_lost_after_and_the_deadline_wakes() -> None:
    hosts = fleet("a", "b", "c")
    hosts["a"] = lost(hosts["a"], LOST_AFTER - 1)
    waiting = decide(floating(a=2, b=2, c=2), hosts)
    assert (waiting.moves, waiting.wake_at) == ((), NOW + 1)
    (decided,) = decide(floating(a=2, b=2, c=2), hosts, now=NOW + 1).moves
    assert (decided.placement, decided.cause) == ({"b": 3, "c": 3}, "host a was lost for 150 s")


def test_an_app_may_ask_that_lost_hosts_keep_its_workers_for_ever() -> None:
    hosts = fleet("a", "b", "c")
    hosts["a"] = lost(hosts["a"], 1e6)
    answer = decide(floating(a=2, b=2), hosts, policy=PlacementPolicy(lost_after_seconds=0))
    assert (answer.moves, answer.notices, answer.wake_at) == ((), {}, None)


@pytest.mark.parametrize(
    ("hosts", "away", "braked"), [(2, 1, False), (3, 1, False), (3, 2, True), (6, 2, False), (6, 3, True)]
)
def test_the_brake_holds_while_more_than_one_and_more_than_a_third_are_lost(
    hosts: int, away: int, *, braked: bool
) -> None:
    names = [f"h{number}" for number in range(hosts)]
    facts = fleet(*names)
    for name in names[:away]:
        facts[name] = lost(facts[name], 1e6)
    answer = decide(floating(**dict.fromkeys(names, 2)), facts)
    assert bool(answer.brake) is braked
    assert bool(answer.moves) is not braked
    if braked:
        (notice,) = answer.notices["app"]
        assert "fleetctl host drain" in notice
        assert all(name in notice for name in names[:away])


def test_a_drain_forces_the_move_of_one_host_and_does_not_release_the_brake_for_the_others() -> None:
    hosts = fleet("a", "b", "c")
    hosts["a"] = replace(drained(lost(hosts["a"], 1e6)), workers_left=2)
    hosts["b"] = lost(hosts["b"], 1e6)
    answer = decide(floating(a=2, b=2, c=2), hosts)
    assert answer.brake
    assert [decided.placement for decided in answer.moves] == [{"b": 2, "c": 4}]


def test_a_host_that_was_drained_and_is_away_does_not_count_as_lost() -> None:
    hosts = fleet("a", "b", "c")
    hosts["a"] = drained(lost(hosts["a"], 1e6))
    hosts["b"] = lost(hosts["b"], LOST_AFTER)
    (decided,) = decide(floating(b=2, c=2), hosts).moves
    assert decided.placement == {"c": 4}


def test_when_the_brake_is_released_the_last_lost_host_is_given_time_to_follow() -> None:
    hosts = fleet("a", "b", "c")
    hosts["a"] = lost(hosts["a"], 600)
    released = decide(floating(a=2, b=2, c=2), hosts, watch=Watch(braked=True))
    assert (released.moves, released.wake_at) == ((), NOW + SETTLING_SECONDS)
    late = decide(floating(a=2, b=2, c=2), hosts, watch=released.watch, now=NOW + SETTLING_SECONDS)
    assert len(late.moves) == 1


def test_the_share_of_a_lost_host_is_started_elsewhere_while_a_rollout_goes_back() -> None:
    """Guards invariant 6: the way back waits for enough workers to serve, which the lost host's may never do again."""
    hosts = fleet("a", "b", "c")
    hosts["c"] = lost(hosts["c"], LOST_AFTER)
    going_back = rollout(RolloutKind.UPDATE, RolloutState.ROLLING_BACK)
    (decided,) = decide(floating(a=1, b=1, c=1), hosts, newest=going_back).moves
    assert (decided.placement, decided.within) == ({"a": 2, "b": 1}, going_back)
    app, going = operations.move_while_going_back(decided.app, going_back, decided.placement, decided.cause)
    assert (app.placement, going.state, going.message) == (
        {"a": 2, "b": 1},
        RolloutState.ROLLING_BACK,
        "host c was lost for 150 s, so its workers were started elsewhere",
    )


@pytest.mark.parametrize(
    ("kind", "state", "is_lost"),
    [
        (RolloutKind.UPDATE, RolloutState.RUNNING, True),
        (RolloutKind.MOVE, RolloutState.ROLLING_BACK, True),
        (RolloutKind.UPDATE, RolloutState.ROLLING_BACK, False),
    ],
)
def test_what_does_not_keep_a_way_back_from_its_end_waits_for_it(
    kind: RolloutKind, state: RolloutState, is_lost: bool
) -> None:
    hosts = fleet("a", "b", "c")
    hosts["c"] = lost(hosts["c"], LOST_AFTER) if is_lost else drained(hosts["c"])
    answer = decide(floating(a=1, b=1, c=1), hosts, newest=rollout(kind, state))
    assert answer.moves == ()
    assert "fleetctl rollout status app" in answer.notices["app"][0]


def test_nothing_moves_while_another_rollout_is_under_way() -> None:
    hosts = fleet("a", "b")
    hosts["a"] = drained(hosts["a"])
    answer = decide(floating(a=2), hosts, newest=rollout(RolloutKind.UPDATE, RolloutState.RUNNING))
    assert answer.moves == ()
    assert "fleetctl rollout status app" in answer.notices["app"][0]


def test_a_move_a_user_aborted_is_not_begun_again_until_the_host_is_told_anew() -> None:
    hosts = fleet("a", "b")
    hosts["a"] = replace(drained(hosts["a"]), written_at=5)
    aborted = rollout(RolloutKind.MOVE, RolloutState.ABORTED)
    answer = decide(floating(a=2), hosts, newest=aborted)
    assert answer.moves == ()
    assert "aborted" in answer.notices["app"][0]
    hosts["a"] = replace(hosts["a"], written_at=11)
    assert len(decide(floating(a=2), hosts, newest=aborted).moves) == 1


def test_an_aborted_move_puts_the_share_back_and_replaces_nothing_else() -> None:
    app = floating(a=2, b=2)
    change = operations.move(Ask("r2", cause="host a is drained"), app, {"b": 4})
    back, going = endings.aborted(change.app, change.rollout)
    assert (back.placement, back.generation, back.rejected) == (app.placement, app.generation, frozenset())
    back, ended = endings.done(back, going, 1.0)
    assert (ended.kind, ended.state) == (RolloutKind.MOVE, RolloutState.ABORTED)
    hosts = fleet("a", "b")
    hosts["a"] = replace(drained(hosts["a"]), written_at=5)
    assert decide(back, hosts, newest=ended).moves == ()


def test_only_so_many_apps_move_at_the_same_time() -> None:
    hosts = fleet("a", "b")
    hosts["a"] = drained(hosts["a"])
    names = [f"app{number:02}" for number in range(MOST_MOVES_AT_ONCE + 2)]
    apps = [Placed(AppRecord(name=name, placement={"a": 1}), PlacementPolicy()) for name in names]
    answer = relocate(apps, hosts, Watch(), NOW)
    assert [decided.app.name for decided in answer.moves] == names[:MOST_MOVES_AT_ONCE]
    assert set(answer.notices) == set(names[MOST_MOVES_AT_ONCE:])


def test_a_host_is_not_given_more_workers_than_it_takes() -> None:
    hosts = fleet("a", "b")
    hosts["a"] = drained(hosts["a"])
    answer = decide(floating(a=600, b=600), hosts)
    assert answer.moves == ()
    assert "1000 is the most" in answer.notices["app"][0]


def test_a_pinned_app_rests_on_a_drained_host_and_its_record_keeps_its_share() -> None:
    hosts = fleet("a", "b")
    hosts["a"] = drained(hosts["a"])
    app = pinned(a=3, b=1)
    answer = decide(app, hosts)
    assert answer.moves == ()
    assert "fleetctl host uncordon a" in answer.notices["app"][0]
    resting = at_rest(app, {"a"})
    assert (resting.wanted("a"), resting.wanted("b"), resting.wanted_total) == (0, 1, 1)
    assert at_rest(app, {"c"}) is app
    assert at_rest(floating(a=3), {"a"}).wanted("a") == 3


def test_a_pinned_app_waits_for_a_lost_host() -> None:
    hosts = fleet("a", "b")
    hosts["a"] = lost(hosts["a"], 1e6)
    answer = decide(pinned(a=3, b=1), hosts)
    assert (answer.moves, answer.notices, answer.wake_at) == ((), {}, None)


def test_a_stopped_app_is_placed_elsewhere_too_and_one_that_is_removed_is_left_alone() -> None:
    hosts = fleet("a", "b")
    hosts["a"] = drained(hosts["a"])
    stopped = floating(a=2).model_copy(update={"state": AppState.STOPPED})
    (decided,) = decide(stopped, hosts).moves
    assert operations.move(Ask("r2"), stopped, decided.placement).rollout.steps == 0
    removing = floating(a=2).model_copy(update={"state": AppState.REMOVING})
    assert decide(removing, hosts).moves == ()


def test_a_removed_host_is_forgotten_by_what_is_being_removed_and_by_nothing_else() -> None:
    """Guards invariant 6. A removal that waits for a host that is gone for good ends with `host remove`."""
    removing = floating(a=1, b=2).model_copy(update={"state": AppState.REMOVING})
    assert [app.placement for app in operations.without_host("a", [removing, floating(b=1)])] == [{"b": 2}]
    for staying, words in ((floating(a=1), "still placed on a"), (pinned(a=1), "pinned to a")):
        with pytest.raises(Refused, match=words):
            operations.without_host("a", [removing, staying])


def test_a_move_changes_the_placement_and_nothing_else() -> None:
    app = floating(a=2, b=2)
    change = operations.move(Ask("r2", cause="host a is drained"), app, {"b": 4})
    assert change.app == app.model_copy(update={"placement": {"b": 4}, "rollout": "r2"})
    assert (change.rollout.kind, change.rollout.cause) == (RolloutKind.MOVE, "host a is drained")
    assert change.rollout.host_steps == {"a": 2, "b": 2}


def test_a_move_takes_the_place_of_no_other_rollout() -> None:
    running = rollout(RolloutKind.RESTART, RolloutState.RUNNING)
    with pytest.raises(Refused, match="a restart of app is under way") as refused:
        operations.move(Ask("r2", (running,)), floating(a=2), {"b": 2})
    assert refused.value.kind == PRECONDITION


def test_one_worker_per_core_counts_only_hosts_that_take_workers() -> None:
    hosts = {"a": HostFact("a", 4, online=True), "b": HostFact("b", 8, online=True, scheduling=Scheduling.DRAINING)}
    hosts["c"] = HostFact("c", 16, online=True, scheduling=Scheduling.CORDONED)
    plan = operations.plan_size(floating(a=1, b=2, c=3), hosts, "", None, None)
    assert plan.placement == {"a": 4, "c": 3}
