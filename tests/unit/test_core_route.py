"""What a route may say, and who may have which place."""

from typing import Any

import pytest

from fleet_core.checked import CheckError
from fleet_core.route import Places, Register, RoutePolicy


def route(**fields: Any) -> RoutePolicy:
    return RoutePolicy.model_validate(fields)


def entered(*routes: RoutePolicy) -> list[str]:
    """What each is told: the apps are called a, b, …"""
    register = Register()
    return [register.enter(name, Places.of(one)) for name, one in zip("abc", routes, strict=False)]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"http": "nowhere"}, "http: address 'nowhere' is not valid: write ADDRESS:PORT"),
        ({"http": ":80", "hosts": ("A.test",)}, "hosts: host 'A.test' is not valid: write a name in lower case"),
        ({"http": ":80", "hosts": ("a.test:80",)}, "without a port"),
        ({"http": ":80", "hosts": ("*",)}, "host '*' is not valid"),
        ({"http": ":80", "hosts": ("a.*.test",)}, "is not valid"),
        ({"http": ":80", "hosts": ("a test",)}, "is not valid"),
        ({"http": ":80", "hosts": ("a" * 64 + ".test",)}, "is not valid"),
        ({"http": ":80", "paths": ("api",)}, "paths: path 'api' is not valid: write a prefix that begins with a slash"),
        ({"http": ":80", "paths": ("/a'b",)}, "is not valid"),
        ({"http": ":80", "paths": ("/a b",)}, "is not valid"),
        ({"http": ":80", "paths": ("//",)}, "is not valid"),
        ({"hosts": ("a.test",)}, "hosts: hosts without an address: say where it listens"),
        ({"http": ":80", "https": "127.0.0.1:80"}, "https: another of its addresses has port 80 already"),
        ({"https": ":80", "redirect_https": True}, "redirect_https: redirect_https needs both http"),
        ({"http": ":80", "forwarded": "never"}, "forwarded"),
        ({"tcp": ":80", "http": ":81"}, "tcp: an app is reached by tcp or by http and https"),
        ({"tcp": ":80", "sticky": True}, "sticky: sticky is about HTTP: it does not go with tcp"),
        ({"tcp": ":80", "paths": ("/a",)}, "paths: paths is about HTTP"),
        ({"http": ":80", "error_pages": {404: "x"}}, "no balancer answers 404 by itself: there are pages for 429, 502"),
        ({"http": ":80", "error_pages": {503: "ü" * 6145}}, "the page for 503 must have 1 to 12288 bytes"),
        ({"http": ":80", "error_pages": {429: "x"}}, "a page for 429 without rate_limit: nobody would see it"),
        ({"http": ":80", "sticky": True, "cache": {"max_age_seconds": 1}}, "cache with sticky"),
        ({"http": ":80", "cache": {"max_age_seconds": 1.5}}, "cache.max_age_seconds: must be whole seconds"),
        ({"http": ":80", "strip_path": True}, "strip_path: strip_path without paths"),
    ],
)
def test_a_mistake_is_told_with_its_field(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckError) as refused:
        route(**fields)
    assert words in str(refused.value)


def test_a_route_crosses_the_wire_unchanged() -> None:
    one = route(
        http=":80",
        https=":443",
        hosts=("a.test", "*.b.test"),
        paths=("/api", "/v1/"),
        strip_path=True,
        redirect_https=True,
        forwarded="append",
        sticky=True,
        sticky_drain_seconds=2.5,
        max_connections=3,
        max_queue=7,
        timeouts={"server_seconds": 1.5},
        compression=True,
        rate_limit={"requests": 5, "per_seconds": 2.5},
        error_pages={503: "<p>ü</p>", 429: "<p>slowly</p>"},
    )
    slow = route(tcp=":5432", slow_start_seconds=2.5)
    assert RoutePolicy.from_proto(slow.to_proto()) == slow
    logged = route(http=":80", access_log={"format": "combined", "query": True, "max_bytes": 1 << 20, "max_files": 0})
    assert RoutePolicy.from_proto(logged.to_proto()) == logged
    cached, plain = route(http=":80", cache={"max_age_seconds": 3, "max_object_bytes": 9}), route(tcp=":5432")
    assert RoutePolicy.from_proto(cached.to_proto()) == cached
    assert RoutePolicy.from_proto(plain.to_proto()) == plain
    assert RoutePolicy.from_proto(one.to_proto()) == one
    assert RoutePolicy.from_proto(RoutePolicy().to_proto()) == RoutePolicy()


def test_apps_share_an_address_by_host_and_by_path() -> None:
    assert entered(
        route(http=":80", hosts=("a.test",)),
        route(http="0.0.0.0:80", hosts=("*.a.test",)),
        route(http="80", paths=("/api",)),
    ) == ["", "", ""]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({}, {}, "127.0.0.1:80 is the route of a already"),
        ({"hosts": ("x.test", "y.test")}, {"hosts": ("y.test",)}, "127.0.0.1:80 for y.test is the route of a already"),
        ({"paths": ("/api",)}, {"paths": ("/api/",)}, "127.0.0.1:80 for */api is the route of a already"),
        (
            {"hosts": ("x.test",)},
            {"hosts": ("x.test",), "paths": ("/",)},
            "127.0.0.1:80 for x.test is the route of a already",
        ),
    ],
)
def test_the_same_host_and_path_cannot_be_had_twice(first: dict[str, Any], second: dict[str, Any], words: str) -> None:
    told = entered(route(http="127.0.0.1:80", **first), route(http="localhost:80", **second))
    assert told[0] == ""
    assert told[1].startswith(words)
    assert told[1].endswith("give b another address, host or path")


def test_an_address_speaks_one_language() -> None:
    told = entered(route(http=":80", hosts=("a.test",)), route(https=":80", hosts=("b.test",)))
    assert told == ["", "0.0.0.0:80 speaks http for a already: give b another address"]
    assert entered(route(http=":80", https=":443"), route(https=":443", hosts=("b.test",))) == ["", ""]


def test_an_address_is_of_one_tcp_app() -> None:
    words = "0.0.0.0:80 is the route of a already: give b another address"
    assert entered(route(tcp=":80"), route(tcp=":80"), route(tcp=":81")) == ["", words, ""]
    words = "0.0.0.0:80 speaks http for a already: give b another address"
    assert entered(route(http=":80", paths=("/a",)), route(tcp=":80")) == ["", words]


@pytest.mark.parametrize("other", [":80", "[::]:80"])
def test_an_address_and_every_address_cannot_both_be_listened_on(other: str) -> None:
    told = entered(route(http="127.0.0.1:80", hosts=("x.test",)), route(http=other, hosts=("y.test",)))
    assert "is the route of a already: give b another address, or write it as a does" in told[1]


def test_who_is_refused_holds_nothing() -> None:
    told = entered(route(http=":80"), route(http=":80", hosts=("b.test",), paths=("/",)), route(http=":81"))
    assert told == ["", "", ""]
    register = Register()
    assert register.enter("a", Places.of(route(http=":80", hosts=("a.test",)))) == ""
    assert register.enter("b", Places.of(route(http=":80", hosts=("a.test", "b.test")))) != ""
    assert register.enter("c", Places.of(route(http=":80", hosts=("b.test",)))) == ""
