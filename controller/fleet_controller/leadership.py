"""One controller's life: campaign, lead for a term, campaign again; and everything that belongs to one term."""

import asyncio
import json
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import TypeVar

from fleet_controller.admission import Admission
from fleet_controller.balancers import Upstreams
from fleet_controller.conductor import Conductor
from fleet_controller.desired import Desired
from fleet_controller.hosts import Hosts
from fleet_controller.leader import LEADER_KEY, Election, Term
from fleet_controller.lineage import Lineage, establish
from fleet_controller.mutations import operations
from fleet_controller.mutations.changes import Ask, Refused
from fleet_controller.records import (
    PREFIX,
    AppRecord,
    BalancerRecord,
    ControllerRecord,
    FleetRecord,
    HostRecord,
    Record,
    RevisionRecord,
    RolloutRecord,
    app_key,
    balancer_key,
    controller_key,
    host_key,
    revision_key,
    rollout_key,
)
from fleet_controller.relocator import Relocator
from fleet_controller.store.interface import (
    Conflict,
    Created,
    Delete,
    Put,
    Snapshot,
    Store,
    StoreError,
    StoreFull,
    Unchanged,
)
from fleet_controller.time_of_day import time_of_day
from fleet_core.ids import WorkerId
from fleet_core.route import RoutePolicy

_log = logging.getLogger(__name__)
_REPLACEMENTS = uuid.UUID("5b0ad5a4-4b4c-4a2f-8a57-0d1b3c3f8f10")
_COPY_TIMEOUT_SECONDS = 5.0
_WAKING_SECONDS = 0.1
_REGISTER_SECONDS = 5.0
GATHERING_SECONDS = 5.0
"""Agents reach a new leader within two seconds, unless something is wrong with them."""
_R = TypeVar("_R", bound=Record)


class Office:
    """All that a leader holds for one term. The services ask it; nothing of it survives the term."""

    def __init__(self, store: Store, term: Term, fleet: FleetRecord, heartbeat_interval_seconds: float) -> None:
        self.store = store
        self.term = term
        self.desired = Desired()
        self.lineage = Lineage(fleet, store, term, self.desired.inhabited)
        self.epoch = self.lineage.epoch
        self.heartbeat_interval_seconds = heartbeat_interval_seconds
        self.clock = time.monotonic
        self._began = self.clock()
        self.hosts = Hosts(self.clock)
        self.upstreams = Upstreams(self.epoch, self.clock, lambda: term.newest)
        self.conductor = Conductor(store, self.desired, term, self.lineage, self.hosts, self.upstreams, self.clock)
        self.relocator = Relocator(self.desired, self.hosts, term, self.epoch, self.commit, self.clock)
        self.missing_code: set[str] = set()
        """Digests that revisions name and this controller's artifact store lacks, when it was looked through last."""
        self.etcd_full = ""
        """What etcd refused the last change with, being full; empty: it did not."""
        self._replacing: dict[str, asyncio.Task[None]] = {}
        self.admission = Admission()
        self.open = asyncio.Event()
        """Desired state was read: sessions may begin."""

    @property
    def age_seconds(self) -> float:
        """Since this term began."""
        return self.clock() - self._began

    async def run(self) -> None:
        """Lead until the term is lost or this is cancelled; then every session is told to end."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._follow(), name="desired-state")]
                await self.open.wait()
                tasks.append(group.create_task(self.conductor.run(), name="conductor"))
                tasks.append(group.create_task(self.relocator.run(), name="relocator"))
                await self.term.lost.wait()
                for task in tasks:
                    task.cancel()
        finally:
            for replacement in self._replacing.values():
                replacement.cancel()
            for host in self.hosts:
                if host.outbox is not None:
                    host.outbox.close()
            for balancer in self.upstreams.balancers.values():
                if balancer.outbox is not None:
                    balancer.outbox.close()

    async def commit(
        self, reads: Iterable[str], writes: Iterable[tuple[str, Record | None]], *, timeout: float = 5.0
    ) -> None:
        """Write records in one transaction of this term, if what it read (`reads`, keys) still stands; wait for our copy.

        Raises Conflict and Halted, with nothing written, StoreUnavailable after `timeout` seconds, and TimeoutError when our
        copy lags.
        """
        self.lineage.require_sound()
        expectations: list[Unchanged | Created] = [self.term.fence()]
        expectations += [Unchanged(key, self.desired.written_at(key)) for key in sorted(set(reads))]
        operations = [Delete(key) if record is None else Put(key, record.encode()) for key, record in writes]
        try:
            revision = await self.store.commit(expectations, operations, timeout=timeout)
        except Conflict as conflict:
            if conflict.key == LEADER_KEY:
                self.term.give_up("another controller leads, or nobody")
            raise
        except StoreFull as error:
            self.etcd_full = str(error)
            raise
        self.etcd_full = ""
        self.term.committed(revision)
        await self.desired.reached(revision, _COPY_TIMEOUT_SECONDS)

    async def hosts_gathered(self) -> None:
        """Wait until every known host is connected, or had time to be since this term began: to place workers before would
        give the share of those that are merely late to the others."""
        left = self._began + GATHERING_SECONDS - self.clock()
        if left <= 0:
            return
        try:
            async with asyncio.timeout(left), self.conductor.planned:
                await self.conductor.planned.wait_for(self._all_connected)
        except TimeoutError:
            return

    def _all_connected(self) -> bool:
        hosts = (self.hosts.get(record.name) for record in self.desired.all(HostRecord))
        return all(host is not None and host.connected for host in hosts)

    async def awake(self) -> None:
        """Return once this leader knows that it leads, or that etcd alone keeps it from knowing."""
        while not self.term.awake():  # noqa: ASYNC110 (a clock makes it true, not an event)
            await asyncio.sleep(_WAKING_SECONDS)

    async def register_host(self, record: HostRecord) -> None:
        """Make sure the host is known as it says it is, keeping what users said of it; writes only a difference.

        Raises StoreError.
        """

        def merged() -> HostRecord:
            known = self.desired.get(host_key(record.name), HostRecord)
            if known is None:
                return record
            kept = {name: getattr(known, name) for name in ("given_labels", "scheduling", "requests")}
            return record.model_copy(update=kept)

        await self._register(host_key(record.name), merged, HostRecord)

    async def register_balancer(self, record: BalancerRecord) -> None:
        """Make sure the balancer is registered; writes only a difference. Raises StoreError."""
        await self._register(balancer_key(record.name), lambda: record, BalancerRecord)

    def ask_to_replace(self, worker: WorkerId, pid: int, reason: str) -> None:
        """Restart one worker, start-first, because its agent asks for it; nothing happens while another operation is under way.

        The agent asks again until the process is gone, and the rollout's id is made from the process, so that one process is
        replaced once.
        """
        if worker.app not in self._replacing:
            task = asyncio.create_task(self._replace(worker, pid, reason), name=f"replace-{worker}")
            self._replacing[worker.app] = task
            task.add_done_callback(lambda _: self._replacing.pop(worker.app, None))

    async def _replace(self, worker: WorkerId, pid: int, reason: str) -> None:
        request = str(uuid.uuid5(_REPLACEMENTS, f"{self.epoch} {worker} {pid}"))
        app = self.desired.get(app_key(worker.app), AppRecord)
        if app is None or self.desired.get(rollout_key(request), RolloutRecord) is not None:
            return
        ask = Ask(
            request, tuple(self.desired.rollouts_of(app.name)), cause=f"{worker.slot_id}: {reason}", at=time_of_day()
        )
        if ask.under_way is not None:
            return
        try:
            change = operations.restart(ask, app, worker.slot_id, at_once=False)
        except Refused:
            return  # stopped, or resized, in the meantime
        try:
            await self.commit([app_key(app.name), rollout_key(request)], change.writes())
        except (StoreError, TimeoutError) as error:
            _log.warning("%s is not replaced yet: %s", worker, error)

    async def _register(self, key: str, wanted: Callable[[], _R], kind: type[_R]) -> None:
        while self.desired.get(key, kind) != (record := wanted()):
            try:
                await self.commit([key], [(key, record)])
            except Conflict:
                if self.term.lost.is_set():
                    raise
                await asyncio.sleep(0)

    async def _follow(self) -> None:
        async with aclosing(self.store.follow(PREFIX)) as updates:
            async for update in updates:
                # Listed anew, after what was delivered before: etcd cannot be behind that, unless it was put back.
                if isinstance(update, Snapshot) and update.revision < self.desired.revision:
                    self.lineage.went_back(update.revision, self.desired.revision)
                changed = await self.desired.take(update)
                self.open.set()
                self.conductor.touch(self._apps_concerned(changed))
                self.relocator.touch()

    def presence_changed(self) -> None:
        """A host came or went: that bears on every app."""
        self.conductor.touch()
        self.relocator.touch()

    def _apps_concerned(self, keys: set[str]) -> set[str] | None:
        """The apps whose plan these keys bear on; None: all."""
        apps = set()
        for key in keys:
            folder, _, name = key.removeprefix(PREFIX).partition("/")
            if folder == "apps":
                apps.add(name)
            elif folder == "revisions":
                apps.add(name.partition("/")[0])
            elif folder == "rollouts":
                record = self.desired.get(key, RolloutRecord)
                if record is not None:
                    apps.add(record.app)
            elif folder in ("hosts", "balancers"):
                return None
        return apps

    def routes(self) -> dict[str, RoutePolicy]:
        """App → how it is reached, of the apps that are."""
        routes = {}
        for app in self.desired.all(AppRecord):
            record = self.desired.get(revision_key(app.name, app.revision), RevisionRecord)
            if record is not None and (route := record.app_spec.route).routed:
                routes[app.name] = route
        return routes


class Leadership:
    """Campaigns for as long as it runs. `office` is what the services use; None while another controller leads."""

    def __init__(self, store: Store, name: str, address: str, heartbeat_interval_seconds: float) -> None:
        self.name = name
        self.address = address
        self.office: Office | None = None
        self.referrals = Admission()
        """Whom the next leader is named to dials it at once."""
        self._leader = ""
        self._news = asyncio.Event()
        self._store = store
        self._heartbeat_interval_seconds = heartbeat_interval_seconds

    async def run(self) -> None:
        """Lead whenever nobody else does, until cancelled; gives up the leader's key when it ends."""
        registering = asyncio.create_task(self._register(), name="register-controller")
        try:
            await self._campaign()
        finally:
            registering.cancel()

    async def _register(self) -> None:
        """Write once where others find this controller, unless etcd has it already; a key of its own, so no leader's fence."""
        record = ControllerRecord(name=self.name, address=self.address)
        key = controller_key(self.name)
        while True:
            try:
                known = (await self._store.read(key)).items.get(key)
                if known is None or known.value != record.encode():
                    written = 0 if known is None else known.mod_revision
                    await self._store.commit([Unchanged(key, written)], [Put(key, record.encode())])
            except StoreError as error:
                _log.warning("this controller is not registered yet: %s", error)
            else:
                return
            await asyncio.sleep(_REGISTER_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311

    async def _campaign(self) -> None:
        value = json.dumps({"name": self.name, "address": self.address}).encode()
        while True:
            term = await Election(self._store, value, holder_changed=self._holder_changed).campaign()
            try:
                fleet = await establish(self._store, term)
                if fleet is None:
                    continue
                office = Office(self._store, term, fleet, self._heartbeat_interval_seconds)
                _log.info("leading: epoch %s", office.epoch)
                self.office = office
                opened = asyncio.create_task(self._tell_when_open(office), name="office-open")
                try:
                    await office.run()
                finally:
                    opened.cancel()
            finally:
                self.office = None
                self._leader = ""
                await term.resign()

    @property
    def leader(self) -> str:
        """Where another controller that leads can be reached, as this one saw last in etcd; empty: it knows of none."""
        return self._leader

    async def find(self, tried: str, seconds: float) -> Office | str:
        """The office, once this controller leads; else the address of a leader that is not `tried`, the one that the caller found
        dead. After so many seconds: whatever is known."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    office = self.office
                    if office is not None and office.open.is_set() and office.term.awake():
                        return office
                    if self.office is None and self._leader not in ("", tried):
                        return self._leader
                    await self._news.wait()
        except TimeoutError:
            return self._leader

    async def _tell_when_open(self, office: Office) -> None:
        await office.open.wait()
        self._tell()

    def _holder_changed(self, value: bytes) -> None:
        address = str(json.loads(value)["address"]) if value else ""
        self._leader = "" if address == self.address else address
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
