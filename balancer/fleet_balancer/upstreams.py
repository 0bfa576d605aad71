"""Keeps the load balancer equal to the lists: what is wanted, what stands, what is in flight where workers drain."""

import asyncio
import logging
from collections.abc import Mapping

from fleet.v1 import balancer_pb2
from fleet_balancer.driver import Driver, DriverError, Parsed, Pool
from fleet_balancer.holdings import Holdings
from fleet_core.addresses import EVERYWHERE
from fleet_core.ids import WorkerId
from fleet_core.route import RoutePolicy

_log = logging.getLogger(__name__)


class Upstreams:
    """The lists as the controller wants them, made true by the driver and then durable. Outlives subscriptions."""

    def __init__(self, driver: Driver, holdings: Holdings, own_address: str = EVERYWHERE) -> None:
        """`own_address`: as BalancerConfig.listen_address."""
        self._driver = driver
        self._own_address = own_address
        self._holdings = holdings
        self._wanted: dict[str, balancer_pb2.Pool] = dict(holdings.messages)
        self._refused: dict[str, str] = {}
        self._known: dict[str, Parsed] = {}
        """By pool: the newest message that could be read."""
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Serve the lists on disk. Raises DriverError when no load balancer can be run, HoldingsError on damaged lists."""
        async with self._lock:
            self._refused = await self._driver.start(self._holdings.pools(self._own_address))
        for name, reason in sorted(self._refused.items()):
            _log.error("%s: refused: %s", name, reason)

    @property
    def something_refused(self) -> bool:
        return bool(self._refused)

    @property
    def refused(self) -> Mapping[str, str]:
        """Of which pools the newest list does not stand, and why."""
        return self._refused

    @property
    def notices(self) -> tuple[str, ...]:
        """As Driver.notices."""
        return self._driver.notices

    async def apply(self, lists: balancer_pb2.UpstreamLists) -> dict[str, str]:
        """Make `lists` true and durable. Returns for every changed pool why it was refused, or "".

        Raises ValueError, with nothing changed, when they come from an older etcd than lists before.
        """
        async with self._lock:
            self._holdings.check_told(lists.etcd_revision)
            named = set(lists.pools)
            self._wanted = {name: pool for name, pool in self._wanted.items() if name in named}
            self._wanted.update((pool.name, pool) for pool in lists.changed if pool.name in named)
            await self._make_true()
            if lists.etcd_revision > self._holdings.etcd_revision:
                await asyncio.to_thread(self._holdings.tell, lists.etcd_revision)
            return {pool.name: self._refused.get(pool.name, "") for pool in lists.changed}

    async def retry(self) -> dict[str, balancer_pb2.Pool]:
        """Try what was refused again. Returns the pools that stand now, by name."""
        async with self._lock:
            before = set(self._refused)
            await self._make_true()
            return {name: self._wanted[name] for name in before - set(self._refused) if name in self._wanted}

    async def _make_true(self) -> None:
        standing = self._holdings.messages
        parsed: dict[str, Pool] = {}
        self._known = {name: known for name, known in self._known.items() if name in self._wanted}
        refused: dict[str, str] = {}
        for name, message in self._wanted.items():
            try:
                parsed[name] = self._parsed(name, message)
            except ValueError as error:
                refused[name] = str(error)
                if name in standing:
                    parsed[name] = Pool.from_proto(standing[name], self._own_address)
                continue
            self._known[name] = Parsed(message, parsed[name])
        # A pool whose standing version stays may be refused too, when another one's change fails with it.
        refused.update(await self._driver.apply(parsed))
        for name in sorted(refused.keys() - self._refused.keys()):
            _log.error("%s: refused: %s", name, refused[name])
        self._refused = refused
        stands = {
            name: standing[name] if name in refused else message
            for name, message in self._wanted.items()
            if name not in refused or name in standing
        }
        await asyncio.to_thread(self._holdings.stand, stands)

    def _parsed(self, name: str, message: balancer_pb2.Pool) -> Pool:
        """Parsed once: most lists are as they were. Raises ValueError."""
        known = self._known.get(name)
        if known is not None and known.message is message:
            return known.pool
        return Pool.from_proto(message, self._own_address, known)

    async def validate(self, message: balancer_pb2.Pool) -> balancer_pb2.Validated:
        """Whether the pool could be applied, and whether its route is this balancer's; without the request's id."""
        try:
            pool = Pool.from_proto(message, self._own_address)
            await self._driver.validate(pool)
        except (ValueError, DriverError) as error:
            return balancer_pb2.Validated(error=str(error))
        return balancer_pb2.Validated(elsewhere=RoutePolicy.from_proto(message.route).routed and pool.route is None)

    async def in_flight(self) -> Mapping[tuple[str, WorkerId], int]:
        """As Driver.in_flight; empty while the load balancer cannot be asked: no count is not a count of none."""
        try:
            return await self._driver.in_flight()
        except DriverError as error:
            _log.warning("requests in flight are unknown: %s", error)
            return {}
