"""Upstream lists and acknowledgements: what the planner may conclude from them."""

import asyncio
from dataclasses import replace

from fleet.v1 import balancer_pb2
from fleet_controller.balancers import ObservedBalancer, Upstreams
from fleet_controller.outbox import Outbox
from fleet_controller.planning.views import BalancerView, EndpointState, Life, Phase, WorkerView
from fleet_core.ids import Epoch, WorkerId
from fleet_core.route import RoutePolicy

EPOCH = Epoch(1, 7)
OLD = WorkerId("app", "host1", 1, 1)
NEW = WorkerId("app", "host1", 1, 2)
WORKERS = {
    worker: WorkerView(worker, 1, Life.READY, Phase.RUN, port=port, address="127.0.0.1")
    for worker, port in ((OLD, 1), (NEW, 2))
}
READY, DRAINING = EndpointState.READY, EndpointState.DRAINING


class Scene:
    """One pool and one balancer."""

    def __init__(self) -> None:
        self.upstreams = Upstreams(EPOCH, lambda: 0.0)
        self.upstreams.rename(["app"])
        self.outbox: Outbox[balancer_pb2.UpstreamMessage] = Outbox()
        self.balancer: ObservedBalancer = self.upstreams.subscribe(balancer_pb2.BalancerHello(name="lb1"), self.outbox)

    def send(self, **states: EndpointState) -> int:
        names = {"old": OLD, "new": NEW}
        self.upstreams.update("app", RoutePolicy(), {names[name]: state for name, state in states.items()}, WORKERS)
        return self.upstreams.lists["app"].version

    def acknowledge(self, version: int, epoch: Epoch = EPOCH, error: str = "") -> None:
        applied = balancer_pb2.Applied(epoch=epoch.to_proto(), pool="app", version=version, error=error)
        self.upstreams.acknowledge(self.balancer, applied)

    def count(self, **requests: int) -> None:
        heartbeat = balancer_pb2.BalancerHeartbeat()
        for name, in_flight in requests.items():
            worker = {"old": OLD, "new": NEW}[name]
            heartbeat.draining.add(pool="app", worker=worker.to_proto(), in_flight=in_flight)
        self.upstreams.loads(self.balancer, heartbeat)

    @property
    def view(self) -> BalancerView:
        return self.upstreams.views("app", ["lb1"])[0]


def test_nothing_is_known_of_a_balancer_before_it_acknowledged() -> None:
    scene = Scene()
    scene.send(old=READY)
    assert scene.view.applied is None


def test_a_list_that_was_sent_may_be_in_force_before_it_is_acknowledged() -> None:
    """Guards invariant 7: drained, made ready again, drained again, and only the first of these was acknowledged."""
    scene = Scene()
    scene.acknowledge(scene.send(old=DRAINING, new=READY))
    assert OLD not in scene.view.may_choose
    scene.send(old=READY)
    newest = scene.send(old=DRAINING, new=READY)
    assert OLD in scene.view.may_choose
    scene.acknowledge(newest)
    assert OLD not in scene.view.may_choose


def test_a_withdrawn_endpoint_is_in_no_list_and_may_be_chosen_until_that_is_acknowledged() -> None:
    """Guards invariant 7: a list from before may be in force for as long as no balancer says otherwise."""
    scene = Scene()
    scene.acknowledge(scene.send(old=READY, new=READY))
    scene.upstreams.withdraw("app", {OLD})
    pool = scene.upstreams.lists["app"]
    assert pool.endpoints.keys() == pool.addresses.keys() == {NEW}
    assert OLD in scene.view.may_choose
    planned = scene.send(new=READY)
    assert planned == pool.version == 2  # the planner's list is the one in force: nothing is sent again
    scene.acknowledge(planned)
    assert OLD not in scene.view.may_choose


def test_what_is_sent_is_the_list_as_it_is_now_whatever_was_sent_before() -> None:
    """Guards invariant 7: what was written for an earlier list is used only where it says the same."""
    upstreams = Upstreams(EPOCH, lambda: 0.0)
    moved = {**WORKERS, OLD: replace(WORKERS[OLD], port=3, address="::1")}
    one, other = RoutePolicy(http="127.0.0.1:80"), RoutePolicy(http="127.0.0.1:81")
    lists = [
        (one, {OLD: READY, NEW: READY}, WORKERS),
        (one, {OLD: DRAINING, NEW: READY}, WORKERS),
        (other, {OLD: READY}, WORKERS),
        (other, {NEW: READY, OLD: READY}, moved),
        (one, {NEW: READY}, moved),
        (one, {OLD: READY, NEW: READY}, WORKERS),
    ]
    for route, endpoints, workers in lists:
        upstreams.update("app", route, endpoints, workers)
        fresh = Upstreams(EPOCH, lambda: 0.0)
        fresh.update("app", route, endpoints, workers)
        sent, expected = upstreams.lists["app"].message(), fresh.lists["app"].message()
        expected.version = sent.version
        assert sent == expected


def test_withdrawing_what_is_not_listed_sends_nothing() -> None:
    scene = Scene()
    version = scene.send(new=READY)
    scene.upstreams.withdraw("app", {OLD})
    scene.upstreams.withdraw("another", {NEW})
    assert scene.upstreams.lists["app"].version == version


def test_a_count_from_before_an_endpoint_was_ready_again_is_forgotten() -> None:
    """Guards invariant 7: no request then says nothing about requests now."""
    scene = Scene()
    scene.acknowledge(scene.send(old=DRAINING))
    scene.count(old=0)
    assert scene.view.in_flight == {OLD: 0}
    scene.acknowledge(scene.send(old=READY))
    scene.acknowledge(scene.send(old=DRAINING))
    assert scene.view.in_flight == {}


def test_an_acknowledgement_of_another_epoch_does_not_count() -> None:
    """Guards invariant 4."""
    scene = Scene()
    scene.acknowledge(scene.send(old=READY), epoch=Epoch(1, 6))
    assert scene.view.applied is None


def test_a_refused_list_is_not_in_force_and_is_told() -> None:
    scene = Scene()
    scene.acknowledge(scene.send(old=READY))
    scene.acknowledge(scene.send(new=READY), error="no such address")
    assert scene.view.applied == {OLD: READY}
    assert list(scene.upstreams.refusals("app")) == ["balancer lb1 refuses the upstream list: no such address"]


def test_an_equal_list_is_not_sent_again() -> None:
    scene = Scene()
    assert scene.send(old=READY) == scene.send(old=READY)


def test_what_a_balancer_did_in_an_earlier_subscription_counts_no_more() -> None:
    scene = Scene()
    scene.acknowledge(scene.send(old=READY))
    scene.upstreams.subscribe(balancer_pb2.BalancerHello(name="lb1"), Outbox())
    assert scene.view.applied is None


def test_old_lists_are_forgotten_once_every_balancer_has_passed_them() -> None:
    scene = Scene()
    for _ in range(50):
        scene.acknowledge(scene.send(old=READY))
        scene.acknowledge(scene.send(old=DRAINING))
    assert len(scene.upstreams.lists["app"].history) <= 2


def test_a_balancer_far_behind_is_told_to_begin_anew() -> None:
    scene = Scene()
    scene.acknowledge(scene.send(old=READY))
    for _ in range(200):
        scene.send(old=DRAINING)
        scene.send(old=READY)
    assert len(scene.upstreams.lists["app"].history) <= 300
    assert scene.outbox.closed


def test_a_list_whose_health_path_changed_is_sent_again() -> None:
    scene = Scene()
    first = scene.send(old=READY)
    scene.upstreams.update("app", RoutePolicy(), {OLD: READY}, WORKERS, "/healthz")
    assert scene.upstreams.lists["app"].version == first + 1
    assert scene.upstreams.lists["app"].message().health_path == "/healthz"


def test_a_balancer_that_comes_back_is_sent_every_list() -> None:
    scene = Scene()
    scene.acknowledge(scene.send(old=READY))
    scene.upstreams.leave(scene.balancer, scene.outbox)
    assert scene.view.applied is None
    again: Outbox[balancer_pb2.UpstreamMessage] = Outbox()
    scene.upstreams.subscribe(balancer_pb2.BalancerHello(name="lb1"), again)
    first = asyncio.run(_first(again))
    assert [pool.name for pool in first.lists.changed] == ["app"]
    assert list(first.lists.pools) == ["app"]


async def _first(outbox: "Outbox[balancer_pb2.UpstreamMessage]") -> balancer_pb2.UpstreamMessage:
    return await anext(outbox.messages())
