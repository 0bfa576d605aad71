"""Upstream lists, and what each balancer did with them. In memory only: derived from reports and desired state."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fleet.v1 import balancer_pb2, types_pb2
from fleet_controller.outbox import Outbox
from fleet_controller.planning.views import BalancerView, EndpointState, WorkerView
from fleet_core.ids import Epoch, WorkerId
from fleet_core.route import RoutePolicy

_VERSIONS_REMEMBERED = 256
_STATES = {
    EndpointState.READY: types_pb2.ENDPOINT_STATE_READY,
    EndpointState.DRAINING: types_pb2.ENDPOINT_STATE_DRAINING,
}


@dataclass(frozen=True, slots=True)
class Address:
    address: str
    port: int


@dataclass(slots=True)
class UpstreamList:
    """One pool: the newest list, and older ones until nobody can acknowledge them any more."""

    name: str
    route: RoutePolicy
    health_path: str = ""
    version: int = 0
    endpoints: dict[WorkerId, EndpointState] = field(default_factory=dict)
    addresses: dict[WorkerId, Address] = field(default_factory=dict)
    history: dict[int, dict[WorkerId, EndpointState]] = field(default_factory=dict)
    _route_written: tuple[RoutePolicy, types_pb2.RoutePolicy] | None = None
    _endpoints_written: dict[tuple[WorkerId, EndpointState, Address], types_pb2.Endpoint] = field(default_factory=dict)

    def message(self) -> balancer_pb2.Pool:
        pool = balancer_pb2.Pool(name=self.name, version=self.version, health_path=self.health_path)
        pool.route.CopyFrom(self._route_message())
        pool.endpoints.extend(self.endpoint_messages())
        return pool

    def endpoint_messages(self) -> Iterable[types_pb2.Endpoint]:
        """Written once: a worker leaves the list sooner if the others' need not be written again, for every balancer."""
        written = {}
        for worker, state in sorted(self.endpoints.items()):
            place = self.addresses[worker]
            key = worker, state, place
            written[key] = self._endpoints_written.get(key) or types_pb2.Endpoint(
                worker=worker.to_proto(), address=place.address, port=place.port, state=_STATES[state]
            )
        self._endpoints_written = written
        return written.values()

    def _route_message(self) -> types_pb2.RoutePolicy:
        if self._route_written is None or self._route_written[0] is not self.route:
            self._route_written = self.route, self.route.to_proto()
        return self._route_written[1]


@dataclass(slots=True)
class PoolAtBalancer:
    """What one balancer made of one pool."""

    version: int = 0
    applied: dict[WorkerId, EndpointState] | None = None
    in_flight: dict[WorkerId, int] = field(default_factory=dict)
    error: str = ""


@dataclass(slots=True)
class ObservedBalancer:
    """One balancer; `outbox` is None while it is not subscribed."""

    name: str
    uid: str = ""
    instance: str = ""
    """Of its process; empty: it does not say."""
    version: str = ""
    driver: str = ""
    driver_version: str = ""
    listen_address: str = ""
    notices: tuple[str, ...] = ()
    """What it said an operator should know of it."""
    outbox: Outbox[balancer_pb2.UpstreamMessage] | None = None
    left_at: float = 0.0
    """When its last subscription ended, by the leader's clock."""
    pools: dict[str, PoolAtBalancer] = field(default_factory=dict)

    def current(self, lists: Mapping[str, UpstreamList]) -> int:
        """Pools whose newest list it acknowledged."""
        return sum(name in self.pools and self.pools[name].version == pool.version for name, pool in lists.items())


class Upstreams:
    """All pools and all balancers that spoke to this leader."""

    def __init__(self, epoch: Epoch, clock: Callable[[], float], newest: Callable[[], int] = lambda: 0) -> None:
        """`newest`: etcd's revision after the leader's last change."""
        self._epoch = epoch
        self._clock = clock
        self._newest = newest
        self._began = clock()
        self.lists: dict[str, UpstreamList] = {}
        self.balancers: dict[str, ObservedBalancer] = {}
        self._names: frozenset[str] | None = None  # not known yet: an empty answer would drop every pool

    def subscribe(
        self, hello: balancer_pb2.BalancerHello, outbox: Outbox[balancer_pb2.UpstreamMessage]
    ) -> ObservedBalancer:
        """A subscription began: it gets every pool. What the balancer did before counts no more."""
        balancer = self.balancers.setdefault(hello.name, ObservedBalancer(hello.name))
        if balancer.outbox is not None:
            balancer.outbox.close()
        balancer.uid = hello.balancer_uid
        balancer.instance = hello.instance
        balancer.version = hello.balancer_version
        balancer.driver = hello.driver
        balancer.driver_version = hello.driver_version
        balancer.listen_address = hello.listen_address
        balancer.notices = ()
        balancer.outbox = outbox
        balancer.pools = {}
        self._send_all(balancer)
        return balancer

    def double(self, hello: balancer_pb2.BalancerHello) -> str:
        """As Hosts.double."""
        present = self.balancers.get(hello.name)
        if present is None or present.outbox is None:
            return ""
        if present.uid != hello.balancer_uid:
            return f"another live balancer is named {hello.name}: give this one another name"
        if hello.instance and present.instance and hello.instance != present.instance:
            return (
                f"another live balancer has this one's name and folder, {hello.name}: if that is the process before this one, "
                "its session ends in a moment; if the folder was copied, stop this balancer, remove its state_dir and rename it"
            )
        return ""

    def leave(self, balancer: ObservedBalancer, outbox: Outbox[balancer_pb2.UpstreamMessage]) -> bool:
        """That subscription ended; False: another one had taken its place already."""
        if balancer.outbox is not outbox:
            return False
        balancer.outbox = None
        balancer.left_at = self._clock()
        balancer.pools = {}
        balancer.notices = ()
        return True

    def absent_seconds(self, name: str) -> float:
        """For how long a registered balancer has not been subscribed, as far as this leader knows."""
        balancer = self.balancers.get(name)
        if balancer is not None and balancer.outbox is not None:
            return 0.0
        return self._clock() - (balancer.left_at if balancer is not None else self._began)

    def rename(self, names: Iterable[str]) -> None:
        """These are all the pools there are: lists of others are dropped, here and at the balancers."""
        wanted = frozenset(names)
        if wanted == self._names:
            return
        self._names = wanted
        for name in set(self.lists) - wanted:
            del self.lists[name]
        for balancer in self.balancers.values():
            for name in set(balancer.pools) - wanted:
                del balancer.pools[name]
            self._send_names(balancer)

    def update(
        self,
        name: str,
        route: RoutePolicy,
        endpoints: Mapping[WorkerId, EndpointState],
        workers: Mapping[WorkerId, WorkerView],
        health_path: str = "",
    ) -> None:
        """Make this the pool's list; nothing happens when it is already."""
        addresses = {worker: Address(workers[worker].address, workers[worker].port) for worker in endpoints}
        pool = self.lists.setdefault(name, UpstreamList(name, route))
        before = (pool.endpoints, pool.addresses, pool.route, pool.health_path)
        if pool.version and before == (endpoints, addresses, route, health_path):
            return
        pool.route = route
        pool.health_path = health_path
        self._issue(pool, dict(endpoints), addresses)

    def withdraw(self, name: str, gone: Collection[WorkerId]) -> bool:
        """Take these out of the pool's list now, before the planner, whose next list lacks them too, had its turn.

        False: none is in it, and nothing is sent.
        """
        pool = self.lists.get(name)
        if pool is None or pool.endpoints.keys().isdisjoint(gone):
            return False
        endpoints = {worker: state for worker, state in pool.endpoints.items() if worker not in gone}
        self._issue(pool, endpoints, {worker: pool.addresses[worker] for worker in endpoints})
        return True

    def _issue(
        self, pool: UpstreamList, endpoints: dict[WorkerId, EndpointState], addresses: dict[WorkerId, Address]
    ) -> None:
        """A new version of the list."""
        pool.version += 1
        pool.endpoints = endpoints
        pool.addresses = addresses
        pool.history[pool.version] = endpoints
        self._forget_history(pool)
        for balancer in self.balancers.values():
            self._send(balancer, pool.name)

    def acknowledge(self, balancer: ObservedBalancer, applied: balancer_pb2.Applied) -> None:
        pool = self.lists.get(applied.pool)
        if pool is None or Epoch.from_proto(applied.epoch) != self._epoch:
            return
        state = balancer.pools.setdefault(applied.pool, PoolAtBalancer())
        state.error = applied.error
        endpoints = pool.history.get(applied.version)
        if applied.error or endpoints is None or applied.version < state.version:
            return
        state.version = applied.version
        state.applied = endpoints
        # A count from before this list says nothing about an endpoint that was chosen in between.
        drained = {worker for worker, how in endpoints.items() if how is EndpointState.DRAINING}
        state.in_flight = {worker: count for worker, count in state.in_flight.items() if worker in drained}

    def loads(self, balancer: ObservedBalancer, heartbeat: balancer_pb2.BalancerHeartbeat) -> set[str]:
        """Take the counts of a heartbeat; returns the pools whose counts changed."""
        balancer.notices = tuple(heartbeat.notices)
        counts: dict[str, dict[WorkerId, int]] = {}
        for load in heartbeat.draining:
            counts.setdefault(load.pool, {})[WorkerId.from_proto(load.worker)] = load.in_flight
        changed = set()
        for name, state in balancer.pools.items():
            applied = state.applied or {}
            fresh = {
                worker: count
                for worker, count in counts.get(name, {}).items()
                if applied.get(worker) is EndpointState.DRAINING
            }
            if fresh != state.in_flight:
                state.in_flight = fresh
                changed.add(name)
        return changed

    def views(self, pool: str, registered: Iterable[str]) -> tuple[BalancerView, ...]:
        """How the planner sees the registered balancers, for one pool."""
        views = []
        for name in sorted(registered):
            balancer = self.balancers.get(name)
            state = balancer.pools.get(pool) if balancer is not None and pool in self.lists else None
            connected = balancer is not None and balancer.outbox is not None
            absent = self.absent_seconds(name)
            if state is None:
                views.append(BalancerView(name, connected, None, absent))
            else:
                choosable = self._choosable(pool, state)
                views.append(
                    BalancerView(name, connected, state.applied, absent, choosable, state.in_flight, state.error)
                )
        return tuple(views)

    def _forget_history(self, pool: UpstreamList) -> None:
        """Versions that every subscriber has passed; a subscriber far behind is told to begin anew."""
        oldest = pool.version - _VERSIONS_REMEMBERED
        for balancer in self.balancers.values():
            state = balancer.pools.get(pool.name)
            if balancer.outbox is not None and state is not None and state.version < oldest:
                balancer.outbox.close()
        passed = [
            balancer.pools[pool.name].version if pool.name in balancer.pools else 0
            for balancer in self.balancers.values()
            if balancer.outbox is not None
        ]
        first_needed = max(min(passed, default=pool.version), oldest)
        for version in [version for version in pool.history if version < first_needed]:
            del pool.history[version]

    def _choosable(self, pool: str, state: PoolAtBalancer) -> frozenset[WorkerId]:
        """Ready in the list it acknowledged, or in one sent since, which it may have applied without our knowing yet."""
        lists = [endpoints for version, endpoints in self.lists[pool].history.items() if version > state.version]
        lists.append(state.applied or {})
        ready = (worker for endpoints in lists for worker, how in endpoints.items() if how is EndpointState.READY)
        return frozenset(ready)

    def refusals(self, pool: str) -> Iterator[str]:
        """Why balancers refused the pool's newest list, in words."""
        for balancer in self.balancers.values():
            state = balancer.pools.get(pool)
            if state is not None and state.error:
                yield f"balancer {balancer.name} refuses the upstream list: {state.error}"

    def _send(self, balancer: ObservedBalancer, pool: str) -> None:
        if balancer.outbox is not None and self._names is not None:
            balancer.outbox.put(("pool", pool), lambda: self._message([pool]))

    def _send_names(self, balancer: ObservedBalancer) -> None:
        if balancer.outbox is not None and self._names is not None:
            balancer.outbox.put("names", lambda: self._message([]))

    def _send_all(self, balancer: ObservedBalancer) -> None:
        if balancer.outbox is not None and self._names is not None:
            balancer.outbox.put("all", lambda: self._message(list(self.lists)))

    def _message(self, changed: Iterable[str]) -> balancer_pb2.UpstreamMessage:
        message = balancer_pb2.UpstreamMessage(epoch=self._epoch.to_proto())
        message.lists.changed.extend(self.lists[name].message() for name in changed if name in self.lists)
        message.lists.pools.extend(sorted(self._names or ()))
        message.lists.etcd_revision = self._newest()
        return message
