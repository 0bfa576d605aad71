"""Hosts that are about to stop their workers."""

from fleet_controller.planning.departures import drained, without_departing
from fleet_controller.planning.views import BalancerView, EndpointState
from fleet_core.ids import WorkerId

HERE = WorkerId("app", "web1", 1, 1)
THERE = WorkerId("app", "web2", 1, 1)
READY, DRAINING = EndpointState.READY, EndpointState.DRAINING


def balancer(**settings: object) -> BalancerView:
    defaults = {"name": "lb1", "connected": True, "applied": {HERE: DRAINING, THERE: READY}, "in_flight": {HERE: 0}}
    return BalancerView(**{**defaults, **settings})  # type: ignore[arg-type]


def test_endpoints_of_a_host_that_leaves_drain_and_no_others() -> None:
    assert without_departing({HERE: READY, THERE: READY}, {"web1"}) == {HERE: DRAINING, THERE: READY}


def test_a_worker_rests_once_every_balancer_stopped_choosing_it_and_its_requests_ended() -> None:
    assert drained([HERE], [balancer()])
    assert drained([HERE], [balancer(), balancer(name="lb2", applied={THERE: READY})])


def test_a_worker_does_not_rest_while_any_balancer_may_choose_it_or_waits_for_it_or_is_away() -> None:
    for other in (
        balancer(may_choose=frozenset({HERE})),
        balancer(in_flight={HERE: 1}),
        balancer(in_flight={}),
        balancer(connected=False),
        balancer(applied=None),
    ):
        assert not drained([HERE], [balancer(), other])


def test_without_workers_or_balancers_there_is_nothing_to_wait_for() -> None:
    assert drained([], [balancer(applied=None)])
    assert drained([HERE], [])
