"""What fleet-balancer asks of a load balancer: a small idempotent interface, and the values that cross it.

Membership is the controller's alone: a driver makes the given pools true in a running load balancer and reports what is. The
load balancer's own health checks may hide an endpoint, never add one.
"""

import ipaddress
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from fleet.v1 import balancer_pb2, types_pb2
from fleet_core.addresses import EVERY_ADDRESS, EVERYWHERE, parse_address
from fleet_core.ids import WorkerId, check_name
from fleet_core.route import Places, Protocol, RoutePolicy

_PLAIN_PATH = re.compile(r"/[!-~]*")


class DriverError(Exception):
    """The load balancer cannot do what was asked; the message is one line for the operator."""


@dataclass(frozen=True, order=True, slots=True)
class Target:
    """An address requests are sent to; `address` is a literal IP address."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A worker's target; a draining one finishes what it has and gets nothing new."""

    worker: WorkerId
    target: Target
    draining: bool = False

    @classmethod
    def from_proto(cls, message: types_pb2.Endpoint) -> "Endpoint":
        """Raises ValueError on an address that is not an IP address, a port out of range or an unknown state."""
        address = str(ipaddress.ip_address(message.address))
        if not 0 < message.port < 65_536:
            raise ValueError(f"port {message.port} of {WorkerId.from_proto(message.worker)} is not valid")
        if message.state == types_pb2.ENDPOINT_STATE_UNSPECIFIED:
            raise ValueError(f"the endpoint of {WorkerId.from_proto(message.worker)} has no state")
        draining = message.state != types_pb2.ENDPOINT_STATE_READY
        return cls(WorkerId.from_proto(message.worker), Target(address, message.port), draining)


def parse_route(text: str) -> Target:
    """Read a route "ADDRESS:PORT". Raises ValueError with one line on what is wrong."""
    address, port = parse_address(text)
    if address == "localhost":
        address = "127.0.0.1"
    try:
        return Target(str(ipaddress.ip_address(address)), port)
    except ValueError:
        raise ValueError(f"route {text!r} is not valid: write an IP address and a port, as in 127.0.0.1:8080") from None


def own_listener(route: Target, own_address: str) -> Target | None:
    """Where the balancer that listens on `own_address` listens for `route`; None: nowhere, it is another balancer's.

    A route without an address is served by every balancer, on its own one; a route with an address by the balancer whose own it
    is, and by those that listen everywhere.
    """
    if own_address in EVERY_ADDRESS and route.address != EVERYWHERE:
        return route
    if route.address in EVERY_ADDRESS:
        return Target(own_address, route.port)
    return route if route.address == own_address else None


@dataclass(frozen=True, order=True, slots=True)
class Entrance:
    """An address that is listened on, and what is spoken there."""

    protocol: Protocol
    address: Target


@dataclass(frozen=True, slots=True)
class Route:
    """How clients reach an app through this balancer, and what is done with their requests."""

    entrances: tuple[Entrance, ...]
    """At least one; those whose address is this balancer's."""
    policy: RoutePolicy
    """Its addresses are the user's words: where this balancer listens say `entrances`."""

    @classmethod
    def of(cls, policy: RoutePolicy, own_address: str = EVERYWHERE) -> "Route | None":
        """As the balancer that listens on `own_address` serves it; None: it has no part in it. Raises ValueError."""
        found = []
        for protocol, text in policy.written.items():
            address = own_listener(parse_route(text), own_address)
            if address is not None:
                found.append(Entrance(protocol, address))
        return cls(tuple(found), policy) if found else None

    @property
    def addresses(self) -> tuple[Target, ...]:
        return tuple(entrance.address for entrance in self.entrances)

    @property
    def matches(self) -> frozenset[tuple[str, str]]:
        """As RoutePolicy.matches."""
        return self.policy.matches

    @property
    def places(self) -> Places:
        """What it has that no other app can have."""
        held = {one.protocol: (one.address.address, one.address.port) for one in self.entrances}
        return Places(held, self.matches)


@dataclass(frozen=True, slots=True)
class Pool:
    """One app's endpoints and the route clients reach them by; without a route nothing leads there."""

    name: str
    route: Route | None = None
    endpoints: tuple[Endpoint, ...] = ()
    health_path: str = ""
    """What health checks ask for; empty: they only connect."""

    @classmethod
    def from_proto(
        cls, message: balancer_pb2.Pool, own_address: str = EVERYWHERE, before: "Parsed | None" = None
    ) -> "Pool":
        """As the balancer that listens on `own_address` serves it. Raises ValueError with one line on what is wrong.

        What is as it was `before`, read for the same address, is taken from there: between two lists it is nearly all.
        """
        known: dict[bytes, Endpoint] = {}
        if before is not None:
            known = dict(zip(map(_content, before.message.endpoints), before.pool.endpoints, strict=True))
        endpoints = tuple(known.get(_content(one)) or Endpoint.from_proto(one) for one in message.endpoints)
        if before is not None and before.message.route == message.route:
            route = before.pool.route
        else:
            route = Route.of(RoutePolicy.from_proto(message.route), own_address)
        # What cannot stand in a request line is not worth refusing a list for.
        path = message.health_path if _PLAIN_PATH.fullmatch(message.health_path) else ""
        return cls(check_name("pool", message.name), route, endpoints, path)

    @property
    def keeps_for(self) -> float:
        """For how many seconds a worker that drains keeps the clients that stick to it; 0: there are none."""
        policy = self.route.policy if self.route is not None else RoutePolicy()
        return policy.sticky_drain_seconds if policy.sticky else 0.0

    def targets(self) -> dict[Target, bool]:
        """Every target and whether it drains. One that a ready and a draining worker share is ready."""
        draining: dict[Target, bool] = {}
        for endpoint in self.endpoints:
            draining[endpoint.target] = endpoint.draining and draining.get(endpoint.target, True)
        return draining

    def draining(self) -> tuple[Endpoint, ...]:
        return tuple(endpoint for endpoint in self.endpoints if endpoint.draining)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A message, and what it was read into."""

    message: balancer_pb2.Pool
    pool: Pool


def _content(endpoint: types_pb2.Endpoint) -> bytes:
    return endpoint.SerializeToString(deterministic=True)


@dataclass(frozen=True, slots=True)
class Observed:
    """What the load balancer does with one target of a pool."""

    pool: str
    target: Target
    draining: bool
    hidden: bool
    """Its health checks fail: it gets nothing although the controller lists it."""


class Driver(ABC):
    """One load balancer. Every method may be repeated without harm; calls that change something are serialised within.

    The load balancer outlives the driver: `close` lets go of it, `start` finds it again.
    """

    name: str
    """The driver's name in hello, for example "haproxy"."""

    @property
    @abstractmethod
    def version(self) -> str:
        """The load balancer's own version."""

    @property
    @abstractmethod
    def notices(self) -> tuple[str, ...]:
        """What an operator should know of this balancer, in some twenty lines at most; it goes on serving."""

    @abstractmethod
    async def start(self, pools: Mapping[str, Pool]) -> dict[str, str]:
        """Adopt the load balancer that runs, or start one, then `apply`. Raises DriverError when none can be run."""

    @abstractmethod
    async def validate(self, pool: Pool) -> None:
        """Raise DriverError if `pool` could not be applied beside those that stand; change nothing."""

    @abstractmethod
    async def apply(self, pools: Mapping[str, Pool]) -> dict[str, str]:
        """Make exactly these pools true. Returns why pools were refused, by name: of those the version before stands.

        When it returns, no target that is draining or gone is chosen for a new request.
        """

    @abstractmethod
    async def in_flight(self) -> dict[tuple[str, WorkerId], int]:
        """Requests and other sessions of every draining endpoint, by (pool, worker). Raises DriverError if unknown now."""

    @abstractmethod
    async def observed(self) -> list[Observed]:
        """What the load balancer would do now. Raises DriverError if it cannot be asked."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the load balancer, which goes on serving."""

    @abstractmethod
    async def stop(self, grace: float) -> None:
        """End the load balancer: no new connections, those that stand get `grace` seconds."""
