"""HAProxy behind the driver interface: slots changed at run time, a new process beside the old one when structure changes.

At any time one process is the newest; older ones are retired: they accept nothing new and finish what they have. Every list goes
to all of them, because a client that keeps its connection to a retired process may send one more request there.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import TypeVar

from fleet_balancer.access_log.log import AccessLog
from fleet_balancer.certificates.store import CertificateStore
from fleet_balancer.driver import Driver, DriverError, Observed, Pool, Target
from fleet_balancer.haproxy import process as processes
from fleet_balancer.haproxy.binary import Binary
from fleet_balancer.haproxy.check import refusal, words
from fleet_balancer.haproxy.complaints import ConfigurationRefusedError
from fleet_balancer.haproxy.instance import Files, Instance, NotStartedError, Structure, remove_leftovers
from fleet_balancer.haproxy.keeping import Keeping, Lists
from fleet_balancer.haproxy.listeners import Listeners, probe
from fleet_balancer.haproxy.preparation import Preparation, addresses
from fleet_balancer.haproxy.refusals import Refusals, possible
from fleet_balancer.haproxy.routes import clash, clashes
from fleet_balancer.haproxy.runtime import RuntimeApiError
from fleet_balancer.haproxy.stopping import stop_all
from fleet_core.ids import WorkerId

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_RETIRED_FOR = 3600.0
"""Seconds a retired process may go on with what it has; longer where one of its routes lets a connection be silent for longer."""
_RETIREMENT_CHECK = 0.5
_RESTART_DELAYS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
_STABLE = 10.0
_DROPPED_CHECK = 2.0
"""Seconds between two questions how many lines of access logs HAProxy had to drop."""
_CERTIFICATE_CHECK = 2.0
"""Seconds between two looks at the folder of certificates."""


class HaproxyDriver(Driver):
    name = "haproxy"

    def __init__(
        self,
        runtime_dir: Path,
        binary: Binary,
        *,
        threads: int = 1,
        stored: Mapping[str, list[int]] | None = None,
        certificates: CertificateStore | None = None,
        access_log: AccessLog | None = None,
        secret: bytes = b"",
        retired_for: float = _RETIRED_FOR,
    ) -> None:
        """`stored`: descriptors from the service manager's fd store; the driver takes them all.

        `certificates`: for what is reached by HTTPS; None: the driver makes its own. `access_log`: which the driver
        closes; None: in the runtime folder. `secret`: the same at every balancer of the fleet, makes the cookies of sticky
        sessions. `retired_for`: as _RETIRED_FOR.
        """
        # Processes are recognised by this path: one spelling only.
        self._runtime_dir = runtime_dir.resolve()
        self._binary = binary
        self._listeners = Listeners()
        self._listeners.take_stored(stored or {})
        self._current: Instance | None = None
        self._retired: dict[Instance, asyncio.Task[None]] = {}
        self._standing: dict[str, Pool] = {}
        certificates = certificates or CertificateStore(self._runtime_dir / "given", self._runtime_dir / "made")
        self._access_log = access_log or AccessLog(self._runtime_dir / "access.fifo", self._runtime_dir / "access")
        self._preparation = Preparation(
            self._runtime_dir, threads, self._listeners, certificates, self._access_log, secret
        )
        self._refusals = Refusals(str(binary))
        self._keeping = Keeping()
        self._drain_began = asyncio.Event()
        self._numbers = 0
        self._retired_for = retired_for
        self._lock = asyncio.Lock()
        self._replaced = asyncio.Event()
        self._watches: list[asyncio.Task[None]] = []

    @property
    def version(self) -> str:
        return str(self._binary)

    @property
    def pid(self) -> int:
        """The newest process's; 0 while none runs."""
        return self._current.process.pid if self._current is not None else 0

    @property
    def notices(self) -> tuple[str, ...]:
        return (*self._preparation.notices, *self._access_log.notices)

    async def start(self, pools: Mapping[str, Pool]) -> dict[str, str]:
        async with self._lock:
            await self._adopt()
            refused = await self._apply(pools)
            if self._current is None:
                await self._replace({}, {})
            self._listeners.keep_only(addresses(self._standing))
        self._watches = [
            asyncio.create_task(self._keep_running(), name="haproxy"),
            asyncio.create_task(self._keep_certificates(), name="certificates"),
            asyncio.create_task(self._end_keeping(), name="sticky drains"),
            asyncio.create_task(self._count_dropped_lines(), name="access log"),
        ]
        return refused

    async def validate(self, pool: Pool) -> None:
        async with self._lock:
            problem = clash(pool, self._standing.values())
            if problem:
                raise DriverError(problem)
            for address in pool.route.addresses if pool.route is not None else ():
                if address not in self._listeners and not self._served(address):
                    probe(address)
            layouts = self._preparation.layouts({pool.name: pool})
        for layout in layouts:
            try:
                problem = await refusal(self._binary, self._runtime_dir, layout)
            except OSError as error:
                raise DriverError(f"{self._runtime_dir}: {error.strerror}") from error
            if problem:
                raise DriverError(self._refusals.told(problem, pool.name))

    async def apply(self, pools: Mapping[str, Pool]) -> dict[str, str]:
        async with self._lock:
            return await self._apply(pools)

    async def in_flight(self) -> dict[tuple[str, WorkerId], int]:
        async with self._lock:
            counts: dict[tuple[str, WorkerId], int] = {}
            for pool in self._standing.values():
                draining = pool.draining()
                if not draining:
                    continue
                found = await self._answer(self._pool_in_flight(pool.name, {one.target for one in draining}))
                for one in draining:
                    count = found.get(one.target, 0)
                    # While clients are kept, the next request may come at any moment: it is not drained.
                    counts[pool.name, one.worker] = (
                        max(1, count) if self._keeping.keeps(pool.name, one.target) else count
                    )
            return counts

    async def _pool_in_flight(self, pool: str, targets: set[Target]) -> dict[Target, int]:
        total: dict[Target, int] = {}
        for instance in self._alive():
            try:
                found = await instance.in_flight(pool, targets)
            except RuntimeApiError:
                # A process that just ended has no session left; one that does not answer may have.
                if instance.process.alive:
                    raise
                continue
            for target, count in found.items():
                total[target] = total.get(target, 0) + count
        return total

    async def observed(self) -> list[Observed]:
        async with self._lock:
            if self._current is None:
                raise DriverError("HAProxy does not run")
            rows = await self._answer(self._current.rows())
        return [Observed(pool, row.target, row.draining, row.hidden) for pool, row in rows if not row.maintenance]

    async def close(self) -> None:
        for task in [*self._retired.values(), *self._watches]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        async with self._lock:
            for instance in self._all():
                await instance.close()
            self._current = None
            self._retired.clear()
            self._watches = []
        self._listeners.close()
        await asyncio.to_thread(self._access_log.close)

    async def stop(self, grace: float) -> None:
        await self.close()
        await stop_all(self._runtime_dir, grace)

    # What runs

    def _all(self) -> list[Instance]:
        return [*([self._current] if self._current is not None else []), *self._retired]

    def _alive(self) -> list[Instance]:
        return [instance for instance in self._all() if instance.process.alive]

    def _served(self, address: Target) -> bool:
        """Whether the newest process listens there, held by us or not."""
        return (
            self._current is not None and self._current.process.alive and address in self._current.structure.listeners
        )

    async def _answer(self, question: Awaitable[_T]) -> _T:
        try:
            return await question
        except RuntimeApiError as error:
            raise DriverError(str(error)) from error

    async def _adopt(self) -> None:
        """Take over what runs: the process with the highest number that answers is the newest, all others are retired."""
        found = processes.running(self._runtime_dir)
        self._numbers = max(self._numbers, remove_leftovers(self._runtime_dir, found))
        for number in sorted(found, reverse=True):
            files = Files(self._runtime_dir, number)
            try:
                structure = Structure.load(files.structure.read_bytes())
                instance = Instance(found[number], files, structure)
                await instance.await_ready()
            except (OSError, ValueError, DriverError) as error:
                _log.warning("haproxy %d (pid %d) cannot be adopted and is ended: %s", number, found[number].pid, error)
                await found[number].end(signal.SIGTERM, 5.0)
                found[number].close()
                files.remove()
                continue
            self._listeners.take_from(found[number].pidfd, structure.listeners)
            if self._current is None:
                self._current = instance
                _log.info("adopted haproxy %d (pid %d)", number, instance.process.pid)
            else:
                await self._retire(instance)

    # Lists

    async def _apply(self, pools: Mapping[str, Pool]) -> dict[str, str]:
        refused = clashes(pools, self._standing)
        for name, pool in pools.items():
            if pool.route is None or name in refused:
                continue
            if known := self._refusals.known(pool):
                refused[name] = known
                continue
            try:
                for address in pool.route.addresses:
                    if not self._served(address):
                        self._listeners.bind(address)
            except DriverError as error:
                refused[name] = str(error)
        wanted = possible(pools, refused, self._standing)
        while True:
            try:
                await self._make_true(wanted)
                break
            except ConfigurationRefusedError as error:
                given_up = self._refusals.given_up(wanted, self._standing, error, serving=bool(self._alive()))
                if not given_up:
                    return self._all_refused(pools, refused, error)
                if not self._alive():
                    self._standing = {
                        name: pool
                        for name, pool in self._standing.items()
                        if name not in given_up or pool != wanted[name]
                    }
                refused.update((name, str(error)) for name in given_up)
                wanted = possible(pools, refused, self._standing)
            except (DriverError, RuntimeApiError) as error:
                return self._all_refused(pools, refused, error)
        self._standing = wanted
        self._listeners.keep_only(addresses(wanted))
        return refused

    def _all_refused(self, pools: Mapping[str, Pool], refused: dict[str, str], error: Exception) -> dict[str, str]:
        """What stands stays."""
        refused.update((name, str(error)) for name in pools if pools[name] != self._standing.get(name))
        self._listeners.keep_only(addresses(self._standing))
        return refused

    async def _make_true(self, wanted: Mapping[str, Pool]) -> None:
        newest = self._current
        # Before anybody can be sent to a new worker.
        self._access_log.know(wanted)
        await self._preparation.choose_certificates(wanted)
        lists = self._keeping.lists(wanted, asyncio.get_running_loop().time())
        for instance in self._retired:
            await self._bring_up_to_date(instance, wanted, lists)
        if (
            newest is None
            or not newest.process.alive
            or newest.structure.skeleton != self._preparation.skeleton(wanted)
        ):
            await self._replace(wanted, lists)
        else:
            for name in newest.structure.pools:
                if await newest.apply(name, lists[name], keeps=wanted[name].keeps_for > 0):
                    _log.info("%s needs more server slots: haproxy is replaced", name)
                    await self._replace(wanted, lists)
                    break
        self._keeping.stands(wanted, lists)
        self._drain_began.set()

    async def _bring_up_to_date(self, instance: Instance, wanted: Mapping[str, Pool], lists: Lists) -> None:
        """Apply to a retired process; targets it has no slot for are the newest one's business."""
        for name in instance.structure.pools:
            try:
                if name in wanted:
                    await instance.apply(name, lists[name], keeps=wanted[name].keeps_for > 0)
                else:
                    await instance.apply(name, {})
            except RuntimeApiError:
                if instance.process.alive:
                    raise

    async def _end_keeping(self) -> None:
        """Take a draining worker from the clients that stick to it when their time is over."""
        while True:
            self._drain_began.clear()
            end = self._keeping.next_end(self._standing)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await self._drain_began.wait()
                    continue
            async with self._lock:
                try:
                    await self._make_true(self._standing)
                except (DriverError, RuntimeApiError) as error:
                    _log.error("%s", error)
                    await asyncio.sleep(_RETIREMENT_CHECK)

    # Processes

    async def _replace(self, wanted: Mapping[str, Pool], lists: Lists) -> None:
        """Start a process for `wanted`, then retire the one before. Raises DriverError; then the one before goes on."""
        for address in addresses(wanted):
            self._listeners.bind(address)
        instance = await self._started(wanted, lists)
        before, self._current = self._current, instance
        self._replaced.set()
        _log.info("started haproxy %d (pid %d)", instance.files.number, instance.process.pid)
        if before is None:
            return
        if not before.process.alive:
            await self._discard(before)
            return
        # From here on `wanted` is true in the new process; the old one must follow before anything is acknowledged.
        await self._retire(before)
        await self._bring_up_to_date(before, wanted, lists)

    async def _started(self, wanted: Mapping[str, Pool], lists: Lists) -> Instance:
        self._numbers += 1
        files = Files(self._runtime_dir, self._numbers)
        process: processes.HaproxyProcess | None = None
        try:
            structure = self._preparation.write(files, wanted)
            inherited = tuple(self._preparation.inherited(structure))
            process = processes.spawn(self._binary, files.configuration, files.log, inherited)
            instance = Instance(process, files, structure)
            try:
                await instance.await_ready()
            except NotStartedError as error:
                said = await words(self._binary, files.configuration, inherited)
                raise (self._refusals.of(said, files, wanted) or error) from None
            for name in structure.pools:
                if wanted[name].keeps_for > 0:
                    await instance.apply(name, lists[name], keeps=True)
        except BaseException as error:
            if process is not None:
                await process.end(signal.SIGKILL, 5.0)
                process.close()
            files.remove()
            if isinstance(error, OSError):
                raise DriverError(f"{self._runtime_dir}: {error.strerror}") from error
            raise
        return instance

    async def _keep_certificates(self) -> None:
        """Bring what changed on disk before clients, by a process that takes over hitlessly."""
        while True:
            await asyncio.sleep(_CERTIFICATE_CHECK)
            async with self._lock:
                try:
                    if await self._preparation.choose_certificates(self._standing, anew=True):
                        _log.info("certificates changed: haproxy is replaced")
                        await self._make_true(self._standing)
                except (DriverError, RuntimeApiError) as error:
                    _log.error("%s", error)

    async def _count_dropped_lines(self) -> None:
        while True:
            await asyncio.sleep(_DROPPED_CHECK)
            if self._access_log.active:
                for instance in self._all():
                    with contextlib.suppress(RuntimeApiError):
                        self._access_log.count_dropped(instance.files.number, await instance.dropped_lines())

    async def _retire(self, instance: Instance) -> None:
        self._retired[instance] = asyncio.create_task(self._see_off(instance), name=f"haproxy {instance.files.number}")
        try:
            await instance.retire()
        except RuntimeApiError:
            if instance.process.alive:
                raise

    async def _see_off(self, instance: Instance) -> None:
        """End a retired process once no client is connected to it, or its time is over."""
        deadline = asyncio.get_running_loop().time() + max(self._retired_for, instance.structure.patience)
        while instance.process.alive and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_RETIREMENT_CHECK)
            try:
                await instance.retire()
                if await instance.client_connections() == 0:
                    break
            except RuntimeApiError as error:
                if instance.process.alive:
                    _log.warning("retired haproxy %d: %s", instance.files.number, error)
        await instance.process.end(signal.SIGTERM, 5.0)
        async with self._lock:
            del self._retired[instance]
            await self._discard(instance)
        _log.info("haproxy %d (pid %d) ended", instance.files.number, instance.process.pid)

    async def _discard(self, instance: Instance) -> None:
        instance.process.reap()
        await instance.close()
        instance.files.remove()

    async def _keep_running(self) -> None:
        """Start HAProxy again, with the present lists, whenever the newest process ends."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            self._replaced.clear()
            if self._current is not None and not await self._current.process.ends_before(self._replaced):
                continue
            if loop.time() - began > _STABLE:
                failures = 0
            await asyncio.sleep(_RESTART_DELAYS[min(failures, len(_RESTART_DELAYS) - 1)])
            async with self._lock:
                if self._current is None or self._current.process.alive:
                    continue
                failures += 1
                _log.error("haproxy (pid %d) ended unexpectedly: starting it again", self._current.process.pid)
                try:
                    await self._make_true(self._standing)
                except (DriverError, RuntimeApiError) as error:
                    _log.error("%s", error)
