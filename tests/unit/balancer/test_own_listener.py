"""Which balancer listens where: the rule of docs/balancing.md."""

import pytest

from fleet.v1 import balancer_pb2
from fleet_balancer.driver import Pool, Target


@pytest.mark.parametrize(
    ("route", "own_address", "listens_on"),
    [
        (":8080", "0.0.0.0", "0.0.0.0:8080"),
        ("8080", "0.0.0.0", "0.0.0.0:8080"),
        ("127.0.0.1:8080", "0.0.0.0", "127.0.0.1:8080"),
        ("[::]:8080", "0.0.0.0", "[::]:8080"),
        (":8080", "::", "[::]:8080"),
        (":8080", "127.0.0.2", "127.0.0.2:8080"),
        ("0.0.0.0:8080", "127.0.0.2", "127.0.0.2:8080"),
        ("[::]:8080", "127.0.0.2", "127.0.0.2:8080"),
        ("127.0.0.2:8080", "127.0.0.2", "127.0.0.2:8080"),
        ("127.0.0.1:8080", "127.0.0.2", "None"),
        ("localhost:8080", "127.0.0.2", "None"),
        ("localhost:8080", "127.0.0.1", "127.0.0.1:8080"),
    ],
)
def test_a_route_is_served_on_the_balancers_own_address_or_left_to_another(
    route: str, own_address: str, listens_on: str
) -> None:
    message = balancer_pb2.Pool(name="web")
    message.route.http = route
    route_here = Pool.from_proto(message, own_address).route
    assert ("None" if route_here is None else str(*route_here.addresses)) == listens_on


def test_an_app_without_a_route_has_none_anywhere() -> None:
    assert Pool.from_proto(balancer_pb2.Pool(name="web"), "127.0.0.2").route is None


def test_two_balancers_on_one_machine_never_want_one_address() -> None:
    message = balancer_pb2.Pool(name="web")
    for route in (":8080", "127.0.0.1:8080", "127.0.0.2:8080"):
        message.route.http = route
        routes = [Pool.from_proto(message, own).route for own in ("127.0.0.1", "127.0.0.2")]
        held = [address for route_here in routes if route_here is not None for address in route_here.addresses]
        assert len(held) == len(set(held))
        assert held
    assert held == [Target("127.0.0.2", 8080)]
