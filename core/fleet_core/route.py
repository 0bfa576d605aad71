"""Where clients reach an app and what is done with their requests: a user's wish, checked, and who may have which place.

A *place* is what only one app can have: an address, what is spoken there, a host name (or any), and a path prefix. Apps share an
address as long as they speak the same there and no two have the same host and path.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Self

from msgspec import Meta, field

from fleet.v1 import types_pb2
from fleet_core import wire
from fleet_core.addresses import EVERY_ADDRESS, check_address, parse_address
from fleet_core.checked import Checked, RuleError

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_PATH = re.compile(r"(/[A-Za-z0-9._~%+@:,=-]+)+/?|/")
_LONGEST_HOST = 253
_LONGEST_PATH = 512
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=86_400)]
Several = Annotated[tuple[str, ...], Meta(max_length=100)]


class Protocol(StrEnum):
    """What is spoken at an address; the field of RoutePolicy that names the address is called the same."""

    HTTP = "http"
    HTTPS = "https"
    TCP = "tcp"


class Forwarded(StrEnum):
    """What becomes of X-Forwarded-For, -Proto and -Host."""

    REPLACE = "replace"
    APPEND = "append"
    OFF = "off"


class TimeoutPolicy(Checked, frozen=True):
    """How long nothing may happen."""

    client_seconds: PositiveSeconds = 300
    connect_seconds: PositiveSeconds = 1
    queue_seconds: PositiveSeconds = 10
    server_seconds: PositiveSeconds = 300
    tunnel_seconds: PositiveSeconds = 3600


class RateLimitPolicy(Checked, frozen=True):
    """One client's requests to one balancer."""

    requests: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """0: no limit."""
    per_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 1


class CachePolicy(Checked, frozen=True):
    """Answers that a balancer keeps in memory."""

    max_age_seconds: Seconds = 0
    """Whole ones; 0: none are kept."""
    max_object_bytes: Annotated[int, Meta(ge=1, le=1 << 20)] = 64 * 1024

    def __post_init__(self) -> None:
        if self.max_age_seconds != int(self.max_age_seconds):
            raise RuleError("must be whole seconds", "max_age_seconds")


class AccessLogFormat(StrEnum):
    """What the lines of an access log are."""

    OFF = "off"
    JSON = "json"
    COMBINED = "combined"


class AccessLogPolicy(Checked, frozen=True):
    """A line for each request, in a file on each balancer's host."""

    format: AccessLogFormat = AccessLogFormat.OFF
    query: bool = False
    """Paths with what stands behind their question mark."""
    max_bytes: Annotated[int, Meta(ge=64 * 1024, le=1 << 40)] = 64 << 20
    max_files: Annotated[int, Meta(ge=0, le=1000)] = 5
    """Rotated ones."""


ERROR_PAGES = (429, 502, 503, 504)
"""What balancers themselves answer for an app. Not 400 and 408: those are said before it is known which app is meant, and
HAProxy's words for them are built in."""
LONGEST_PAGE = 12 * 1024
"""Bytes in UTF-8: HAProxy has answers of its own in one buffer of 16 KiB, with their head."""
_FOR_TCP = frozenset({"tcp", "max_connections", "timeouts", "slow_start_seconds", "access_log"})
"""What may be said of an app that is reached by TCP."""


class RoutePolicy(Checked, frozen=True):
    http: str = ""
    https: str = ""
    tcp: str = ""
    """Connections are passed on as they are; then nothing of this is said that is about HTTP."""
    hosts: Several = ()
    """Lower case; "*.example.com" is each name with exactly one label more."""
    paths: Several = ()
    """Prefixes, whole segments: "/api" is /api and /api/…, and not /apis. None: every path."""
    strip_path: bool = False
    redirect_https: bool = False
    forwarded: Forwarded = Forwarded.REPLACE
    sticky: bool = False
    sticky_drain_seconds: Seconds = 10
    max_connections: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """0: no limit."""
    max_queue: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """0: no limit."""
    timeouts: TimeoutPolicy = TimeoutPolicy()
    compression: bool = False
    rate_limit: RateLimitPolicy = RateLimitPolicy()
    error_pages: dict[int, str] = field(default_factory=dict)
    """Status → HTML."""
    cache: CachePolicy = CachePolicy()
    slow_start_seconds: Annotated[float, Meta(ge=0, le=3600)] = 0
    access_log: AccessLogPolicy = AccessLogPolicy()

    def __post_init__(self) -> None:
        for protocol, address in self.written.items():
            check_address(address, protocol.value)
        self._check_ports()
        if self.tcp:
            self._check_tcp()
        for host in self.hosts:
            _check_host(host)
        for path in self.paths:
            _check_path(path)
        for several in ("hosts", "paths"):
            if getattr(self, several) and not self.routed:
                raise RuleError(f"{several} without an address: say where it listens with http or https", several)
        if self.strip_path and not self.paths:
            raise RuleError("strip_path without paths: there is nothing to take away", "strip_path")

        if self.max_queue and not self.max_connections:
            raise RuleError("max_queue without max_connections: where nothing is limited nothing waits", "max_queue")
        self._check_pages()
        if self.cache.max_age_seconds and self.sticky:
            raise RuleError("cache with sticky: an answer that gives a client its cookie is not for others", "cache")
        if self.redirect_https and not (self.http and self.https):
            raise RuleError("redirect_https needs both http, where it redirects, and https, where to", "redirect_https")

    def _check_pages(self) -> None:
        for status, page in self.error_pages.items():
            if status not in ERROR_PAGES:
                known = ", ".join(map(str, ERROR_PAGES))
                raise RuleError(f"no balancer answers {status} by itself: there are pages for {known}", "error_pages")
            if not page or len(page.encode()) > LONGEST_PAGE:
                raise RuleError(f"the page for {status} must have 1 to {LONGEST_PAGE} bytes", "error_pages")
        if 429 in self.error_pages and not self.rate_limit.requests:
            raise RuleError("a page for 429 without rate_limit: nobody would see it", "error_pages")

    def _check_tcp(self) -> None:
        if self.http or self.https:
            raise RuleError("an app is reached by tcp or by http and https: the workers have one port each", "tcp")
        for name in self.__struct_fields__:
            if name not in _FOR_TCP and getattr(self, name) != getattr(_UNSAID, name):
                raise RuleError(f"{name} is about HTTP: it does not go with tcp", name)
        if self.access_log.format is AccessLogFormat.COMBINED or self.access_log.query:
            raise RuleError("of tcp there are lines of json, which have no path and so no query", "access_log")

    def _check_ports(self) -> None:
        """No two of its addresses may be one socket."""
        register = Register()
        for protocol, address in self.addresses.items():
            if register.enter(protocol, Places({protocol: _literal(address)}, self.matches)):
                raise RuleError(f"another of its addresses has port {address[1]} already: give each its own", protocol)

    def to_proto(self) -> types_pb2.RoutePolicy:
        return wire.filled(types_pb2.RoutePolicy(), self.plain())

    @classmethod
    def from_proto(cls, message: types_pb2.RoutePolicy) -> Self:
        """As AppSpec.from_proto. Raises CheckError."""
        return cls.model_validate(wire.plain(message))

    @property
    def written(self) -> dict[Protocol, str]:
        """Its addresses as the user wrote them, by what is spoken there."""
        return {protocol: address for protocol in Protocol if (address := getattr(self, protocol.value))}

    @property
    def routed(self) -> bool:
        """Clients reach it somewhere."""
        return bool(self.written)

    @property
    def addresses(self) -> dict[Protocol, tuple[str, int]]:
        """As `parse_address` reads them, by what is spoken there."""
        return {protocol: parse_address(address) for protocol, address in self.written.items()}

    @property
    def matches(self) -> frozenset[tuple[str, str]]:
        """Every (host, path prefix) it is reached by: host "" is any, paths end with a slash."""
        hosts = self.hosts or ("",)
        return frozenset((host, f"{path.rstrip('/')}/") for host in hosts for path in self.paths or ("/",))


def _check_host(host: str) -> None:
    if len(host) > _LONGEST_HOST or _HOST.fullmatch(host) is None:
        text = "write a name in lower case without a port, as in shop.example.com or *.example.com"
        raise RuleError(f"host {host!r} is not valid: {text}", "hosts")


def _check_path(path: str) -> None:
    if len(path) > _LONGEST_PATH or _PATH.fullmatch(path) is None:
        text = "write a prefix that begins with a slash, of letters, digits and ._~%+@:,=-, as in /api/v1"
        raise RuleError(f"path {path!r} is not valid: {text}", "paths")


@dataclass(frozen=True, slots=True)
class Places:
    """What an app has, or wants: at each of its addresses the same hosts and paths."""

    addresses: Mapping[Protocol, tuple[str, int]]
    matches: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, route: RoutePolicy) -> "Places":
        return cls({protocol: _literal(address) for protocol, address in route.addresses.items()}, route.matches)


class Register:
    """Who has which place."""

    def __init__(self) -> None:
        self._by_port: dict[int, dict[str, tuple[str, dict[tuple[str, str], str]]]] = {}

    def enter(self, app: str, places: Places) -> str:
        """Give `app` its places and return ""; or give it nothing, and say in a line who has one of them."""
        refusal = self._refusal(app, places)
        if not refusal:
            for protocol, (address, port) in places.addresses.items():
                _, matches = self._by_port.setdefault(port, {}).setdefault(address, (protocol, {}))
                matches.update(dict.fromkeys(places.matches, app))
        return refusal

    def _refusal(self, app: str, places: Places) -> str:
        for protocol, (address, port) in places.addresses.items():
            for other, (spoken, matches) in self._by_port.get(port, {}).items():
                shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
                first = min(matches.values())
                if other != address and (other in EVERY_ADDRESS or address in EVERY_ADDRESS):
                    return f"{shown} is the route of {first} already: give {app} another address, or write it as {first} does"
                if other == address and spoken != protocol:
                    return f"{shown} speaks {spoken} for {first} already: give {app} another address"
                if other == address and protocol is Protocol.TCP:
                    return f"{shown} is the route of {first} already: give {app} another address"
                if other == address and (both := sorted(places.matches & matches.keys())):
                    what = f"{shown}{_match_shown(*both[0])}"
                    return (
                        f"{what} is the route of {matches[both[0]]} already: give {app} another address, host or path"
                    )
        return ""


def _literal(address: tuple[str, int]) -> tuple[str, int]:
    return ("127.0.0.1", address[1]) if address[0] == "localhost" else address


def _match_shown(host: str, path: str) -> str:
    """ " for a.test/api"; empty: everything."""
    where = f"{host or '*'}{'' if path == '/' else path.rstrip('/')}"
    return "" if where == "*" else f" for {where}"


_UNSAID = RoutePolicy()
