from pathlib import Path
from typing import Any

import pytest

from fleet.v1 import balancer_pb2, types_pb2
from fleet_balancer.driver import Endpoint, Pool, Route, Target, parse_route
from fleet_balancer.haproxy.config import render
from fleet_balancer.haproxy.instance import Structure
from fleet_balancer.haproxy.layout import Layout, PoolLayout
from fleet_balancer.haproxy.routes import clash, clashes
from fleet_balancer.haproxy.slots import Slot, SlotState
from fleet_core.ids import WorkerId
from fleet_core.route import RoutePolicy


def reached(name: str, http: str, **settings: Any) -> Pool:
    return Pool(name, Route.of(RoutePolicy(http=http, **settings)))


def rendered() -> list[str]:
    slots = (
        Slot(1, SlotState.ACTIVE, Target("10.0.0.1", 80)),
        Slot(2),
        Slot(3, SlotState.ACTIVE, Target("fd00::1", 81)),
    )
    route = Route.of(RoutePolicy(http=":80"))
    assert route is not None
    layout = Layout(
        socket=Path('/run/a "b" $c/s.sock'),
        map="1.map",
        certificates="1.certificates",
        threads=2,
        max_connections=500,
        listeners={Target("0.0.0.0", 80): 7},
        pools=(PoolLayout("web", route, slots),),
    )
    return [line.strip() for line in render(layout).splitlines()]


def test_the_present_list_is_in_the_configuration_so_that_a_start_is_complete() -> None:
    lines = rendered()
    assert "server s1 10.0.0.1:80 id 1" in lines
    assert "server s2 127.0.0.1:1 id 2 disabled" in lines
    assert "server s3 [fd00::1]:81 id 3" in lines
    assert "server s3 [fd00::1]:81 id 3 track web.replay/s3" in lines


def test_only_requests_of_safe_methods_reuse_connections_or_are_sent_again() -> None:
    lines = rendered()
    once = lines[lines.index("backend web.once") :]
    replay = lines[lines.index("backend web.replay") : lines.index("backend web.once")]
    assert "use_backend web.once if !{ method GET HEAD OPTIONS TRACE }" in lines
    assert {"http-reuse never", "retry-on conn-failure", "http-request disable-l7-retry"} <= set(once)
    assert "retry-on conn-failure empty-response" in replay


def test_a_path_with_special_characters_is_quoted() -> None:
    assert 'stats socket "/run/a \\"b\\" \\$c/s.sock" mode 600 level admin' in rendered()


def test_the_listener_is_the_inherited_descriptor() -> None:
    assert "bind fd@7" in rendered()


def test_a_structure_survives_its_file() -> None:
    structure = Structure({Target("127.0.0.1", 8080): 7}, ("http-127.0.0.1:8080",), {"web": "/healthz"}, "1a2b", 90.0)
    assert Structure.load(structure.dump()) == structure
    # Of a process started before apps shared addresses: it is found, and another one takes its place.
    old = Structure.load(b'{"pools": {"web": ["127.0.0.1", 8080, 7, "/healthz"], "api": ["127.0.0.1", 8081, 8]}}')
    assert old.listeners == {Target("127.0.0.1", 8080): 7, Target("127.0.0.1", 8081): 8}
    assert (old.frontends, old.pools, old.skeleton) == (("web", "api"), {"web": "/healthz", "api": ""}, "")
    assert old.patience == 3600
    with pytest.raises(ValueError, match="not readable"):
        Structure.load(b"[]")


def test_a_pool_keeps_the_address_it_has_against_a_newcomer() -> None:
    mine = {"web": reached("web", "127.0.0.1:80")}
    refused = clashes({**mine, "api": reached("api", "127.0.0.1:80")}, mine)
    assert refused == {"api": "127.0.0.1:80 is the route of web already: give api another address, host or path"}


@pytest.mark.parametrize("address", ["0.0.0.0", "[::]"])
def test_every_address_clashes_with_one_of_the_same_port(address: str) -> None:
    others = [reached("api", "127.0.0.1:80")]
    assert clash(reached("web", f"{address}:80"), others)
    assert clash(reached("web", f"{address}:80", hosts=("a.test",)), others), "both cannot be listened on"
    assert not clash(reached("web", f"{address}:81"), others)
    assert not clash(reached("api", f"{address}:80"), others)


def test_routes_are_read() -> None:
    assert parse_route(":80") == Target("0.0.0.0", 80)
    assert parse_route("localhost:80") == Target("127.0.0.1", 80)
    assert str(parse_route("[::1]:80")) == "[::1]:80"
    with pytest.raises(ValueError, match="write an IP address"):
        parse_route("example.org:80")


def test_an_endpoint_that_is_no_ip_address_is_refused_before_it_reaches_a_configuration() -> None:
    message = balancer_pb2.Pool(name="web")
    message.endpoints.add(address="10.0.0.1 check", port=80, state=types_pb2.ENDPOINT_STATE_READY)
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        Pool.from_proto(message)


def test_a_target_shared_by_a_draining_and_a_ready_worker_is_ready() -> None:
    target = Target("127.0.0.1", 80)
    old, new = (WorkerId("web", "h", 1, generation) for generation in (1, 3))
    for endpoints in (
        (Endpoint(old, target, True), Endpoint(new, target)),
        (Endpoint(new, target), Endpoint(old, target, True)),
    ):
        assert Pool("web", None, endpoints).targets() == {target: False}
