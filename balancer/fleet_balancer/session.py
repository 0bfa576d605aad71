"""The subscription with the leading controller: find it, say who we are, obey its lists, report what is true."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Iterable, Mapping

from fleet.v1 import balancer_pb2
from fleet_balancer.driver import Driver
from fleet_balancer.holdings import Holdings
from fleet_balancer.upstreams import Upstreams
from fleet_core.config import BalancerConfig
from fleet_core.controller_link.calls import Call, CallError, ControllerConnection
from fleet_core.ids import Epoch, WorkerId
from fleet_core.leader_search import LEADER_METADATA, LeaderSearch
from fleet_core.version import PROTOCOL_VERSION, program_version

_log = logging.getLogger(__name__)

_SUBSCRIBE = f"/{balancer_pb2.DESCRIPTOR.services_by_name['BalancerService'].full_name}/Subscribe"
_Call = Call[balancer_pb2.BalancerMessage, balancer_pb2.UpstreamMessage]
_WELCOME_TIMEOUT = 10.0
_WRITE_TIMEOUT = 20.0
_SPREAD_SECONDS = 0.1
_IN_FLIGHT_POLL = 0.05
_RETRY_REFUSED = 2.0
_INSTANCE = uuid.uuid4().hex
"""Of this process."""


class SessionEnded(Exception):  # noqa: N818 (an ending, not always an error)
    """This subscription is over; the message is one line, `leader` whom to ask instead, if the peer said so."""

    def __init__(self, message: str, leader: str = "") -> None:
        super().__init__(message)
        self.leader = leader


class Session:
    """Subscribes, again and again, until cancelled."""

    def __init__(self, config: BalancerConfig, driver: Driver, upstreams: Upstreams, holdings: Holdings) -> None:
        self._config = config
        self._driver = driver
        self._upstreams = upstreams
        self._holdings = holdings

    async def run(self) -> None:
        """Runs until cancelled."""
        search = LeaderSearch(self._config.controllers, _SPREAD_SECONDS)
        told = ""
        while True:
            address, leader = search.address, ""
            subscription = Subscription(self._hello(), self._upstreams, self._holdings)
            try:
                await self._subscribe(search, subscription)
            except SessionEnded as end:
                leader = end.leader
                if str(end) != told or subscription.welcomed:
                    _log.warning("controller %s: %s", address, end)
                told = str(end)
            if subscription.welcomed:
                search.welcomed()
                told = ""
            await asyncio.sleep(search.ended(leader))

    def _hello(self) -> balancer_pb2.BalancerHello:
        return balancer_pb2.BalancerHello(
            protocol_version=PROTOCOL_VERSION,
            balancer_uid=self._holdings.uid,
            name=self._config.name,
            balancer_version=program_version(),
            highest_epoch=self._holdings.epoch.to_proto(),
            driver=self._driver.name,
            driver_version=self._driver.version,
            listen_address=self._config.listen_address,
            fleet_id=self._holdings.fleet_id,
            etcd_revision=self._holdings.etcd_revision,
            instance=_INSTANCE,
        )

    async def _subscribe(self, search: LeaderSearch, subscription: "Subscription") -> None:
        files = self._config.tls.files()
        try:
            files.read()
        except OSError as error:
            raise SessionEnded(f"a certificate cannot be read: {error}") from error
        try:
            connection = await ControllerConnection.connect(search.address, files)
        except OSError as error:
            raise SessionEnded(str(error)) from error
        try:
            call = connection.call(
                _SUBSCRIBE, balancer_pb2.BalancerMessage, balancer_pb2.UpstreamMessage, search.metadata
            )
            try:
                await subscription.run(call)
            finally:
                call.cancel()
        except CallError as error:
            reason = " ".join((error.details or error.code.name).split())
            raise SessionEnded(reason, error.metadata.get(LEADER_METADATA, "")) from error
        except TimeoutError as error:
            raise SessionEnded("no answer in time") from error
        finally:
            connection.close()


class Subscription:
    """One stream, from hello to its end."""

    def __init__(self, hello: balancer_pb2.BalancerHello, upstreams: Upstreams, holdings: Holdings) -> None:
        self.welcomed = False
        self._hello = hello
        self._upstreams = upstreams
        self._holdings = holdings
        self._lists_changed = asyncio.Event()
        self._epoch = Epoch()

    async def run(self, call: _Call) -> None:
        """Raises SessionEnded, CallError or TimeoutError at the end."""
        await self._write(call, balancer_pb2.BalancerMessage(hello=self._hello))
        async with asyncio.timeout(_WELCOME_TIMEOUT):
            first = await self._read(call)
        if first.WhichOneof("message") != "welcome":
            raise SessionEnded("did not begin with a welcome")
        if first.welcome.protocol_version != PROTOCOL_VERSION:
            raise SessionEnded(
                f"speaks protocol version {first.welcome.protocol_version}, this balancer {PROTOCOL_VERSION}: upgrade one"
            )
        try:
            await asyncio.to_thread(self._holdings.belong, first.welcome.fleet_id)
        except ValueError as error:
            raise SessionEnded(f"refused: {error}") from error
        self.welcomed = True
        _log.info("subscribed, epoch %s", self._epoch)
        interval = first.welcome.heartbeat_interval_seconds or 1.0
        tasks = [
            asyncio.create_task(self._report_loads(call, interval), name="report loads"),
            asyncio.create_task(self._retry_refused(call), name="retry refused"),
            asyncio.create_task(self._obey(call), name="obey"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, call: _Call) -> balancer_pb2.UpstreamMessage:
        message = await call.read()
        if message is None:
            raise SessionEnded("ended the subscription")
        epoch = Epoch.from_proto(message.epoch)
        try:
            # Nearly every message is of the epoch obeyed already: then there is nothing to write, and no thread to wait for.
            if epoch != self._holdings.epoch:
                await asyncio.to_thread(self._holdings.obey, epoch)
        except ValueError as error:
            raise SessionEnded(f"refused: {error}") from error
        self._epoch = epoch
        return message

    async def _write(self, call: _Call, message: balancer_pb2.BalancerMessage) -> None:
        async with asyncio.timeout(_WRITE_TIMEOUT):
            await call.write(message)

    async def _obey(self, call: _Call) -> None:
        while True:
            message = await self._read(call)
            kind = message.WhichOneof("message")
            if kind == "lists":
                await self._apply(call, message.lists)
            elif kind == "validate":
                answer = await self._upstreams.validate(message.validate.pool)
                answer.request_id = message.validate.request_id
                await self._write(call, balancer_pb2.BalancerMessage(validated=answer))

    async def _apply(self, call: _Call, lists: balancer_pb2.UpstreamLists) -> None:
        try:
            answers = await self._upstreams.apply(lists)
        except ValueError as error:
            raise SessionEnded(f"refused: {error}") from error
        for pool in lists.changed:
            await self._acknowledge(call, pool, answers[pool.name])
        self._lists_changed.set()

    async def _acknowledge(self, call: _Call, pool: balancer_pb2.Pool, error: str = "") -> None:
        applied = balancer_pb2.Applied(epoch=self._epoch.to_proto(), pool=pool.name, version=pool.version, error=error)
        await self._write(call, balancer_pb2.BalancerMessage(applied=applied))

    async def _retry_refused(self, call: _Call) -> None:
        """An address may become free: what was refused is tried again, and acknowledged once it stands."""
        while True:
            await asyncio.sleep(_RETRY_REFUSED)
            if self._upstreams.something_refused:
                for pool in (await self._upstreams.retry()).values():
                    await self._acknowledge(call, pool)

    async def _report_loads(self, call: _Call, interval: float) -> None:
        """Heartbeats; while a draining endpoint has requests they are counted often, and its last one's end is told at once."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        last: Mapping[tuple[str, WorkerId], int] = {}
        while True:
            self._lists_changed.clear()
            counts = await self._upstreams.in_flight()
            ended = any(count == 0 and last.get(key) != 0 for key, count in counts.items())
            if ended or loop.time() >= due:
                if self._holdings.behind:
                    await asyncio.to_thread(self._holdings.catch_up)
                trouble = [self._holdings.trouble] if self._holdings.trouble else []
                await self._write(call, _heartbeat(counts, [*trouble, *self._upstreams.notices]))
                due = loop.time() + interval
            last = counts
            wait = due - loop.time()
            if any(counts.values()):
                wait = min(wait, _IN_FLIGHT_POLL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wait)):
                    await self._lists_changed.wait()


def _heartbeat(counts: Mapping[tuple[str, WorkerId], int], notices: Iterable[str]) -> balancer_pb2.BalancerMessage:
    loads = [
        balancer_pb2.EndpointLoad(pool=pool, worker=worker.to_proto(), in_flight=count)
        for (pool, worker), count in sorted(counts.items())
    ]
    return balancer_pb2.BalancerMessage(heartbeat=balancer_pb2.BalancerHeartbeat(draining=loads, notices=notices))
