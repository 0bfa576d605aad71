"""Carries out what `relocation` decides: begins moves, and wakes when a host comes, goes, or was silent for long enough."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Protocol

from fleet_controller.desired import Desired
from fleet_controller.hosts import Hosts
from fleet_controller.mutations.changes import Ask, Refused
from fleet_controller.mutations.operations import move, move_while_going_back
from fleet_controller.planning.placement import HostFact
from fleet_controller.planning.relocation import Move, Placed, Relocation, Watch, relocate
from fleet_controller.records import (
    AppRecord,
    HostRecord,
    Record,
    RevisionRecord,
    RolloutRecord,
    app_key,
    host_key,
    revision_key,
    rollout_key,
)
from fleet_controller.store.interface import StoreError
from fleet_controller.time_of_day import time_of_day
from fleet_core.ids import Epoch

_log = logging.getLogger(__name__)
_MOVES = uuid.UUID("c2d7a3f8-5f55-4a46-9a42-0f9e0b6f3a71")
_RETRY_SECONDS = 0.5

Writes = Iterable[tuple[str, Record | None]]
Commit = Callable[[Iterable[str], Iterable[tuple[str, Record | None]]], Awaitable[None]]
"""As `Office.commit`."""


class Lease(Protocol):
    """What of a term the relocator asks."""

    def provable(self) -> bool: ...


def host_facts(desired: Desired, hosts: Hosts) -> dict[str, HostFact]:
    """What placement may know of every registered host."""
    facts = {}
    for record in desired.all(HostRecord):
        observed = hosts.get(record.name)
        lost_since = hosts.lost_since(record.name)
        left = observed.workers.values() if observed is not None and lost_since is not None else ()
        facts[record.name] = HostFact(
            name=record.name,
            cpus=record.cpus,
            online=lost_since is None,
            scheduling=record.scheduling,
            labels=record.labels,
            lost_since=lost_since,
            workers_left=sum(worker.view.live for worker in left),
            written_at=desired.written_at(host_key(record.name)),
        )
    return facts


class Relocator:
    """Lives as long as one term. `touch` is called from the sessions, on the same event loop."""

    def __init__(
        self,
        desired: Desired,
        hosts: Hosts,
        lease: Lease,
        epoch: Epoch,
        commit: Commit,
        clock: Callable[[], float],
    ) -> None:
        self._desired = desired
        self._hosts = hosts
        self._lease = lease
        self._epoch = epoch
        self._commit = commit
        self._clock = clock
        self._news = asyncio.Event()
        self.last = Relocation((), {}, "", Watch(), None)
        """What was decided last."""

    def touch(self) -> None:
        """Desired state changed, or a host came or went."""
        self._news.set()

    def notices(self, app: str) -> tuple[str, ...]:
        """What should move and does not, and what to do about it, one sentence each."""
        return self.last.notices.get(app, ())

    async def run(self) -> None:
        """Decide whenever something bears on it, until cancelled."""
        while True:
            self._news.clear()
            now = self._clock()
            before, self.last = self.last, relocate(self._placed(), self._facts(), self.last.watch, now)
            took = self._clock() - now
            if self.last.brake != before.brake:
                _log.warning("%s", self.last.brake or "enough hosts are back: lost ones are replaced again")
            begun = [await self._begin(decided) for decided in self.last.moves]
            wake_at = self.last.wake_at
            if not all(begun):
                wake_at = min(now + _RETRY_SECONDS, wake_at or now + _RETRY_SECONDS)
            await self._wait(wake_at)
            # At the beginning of a term hosts come one by one: never decide more than half of the time.
            await asyncio.sleep(took)

    async def _wait(self, wake_at: float | None) -> None:
        try:
            async with asyncio.timeout(None if wake_at is None else max(0.0, wake_at - self._clock())):
                await self._news.wait()
        except TimeoutError:
            return

    async def _begin(self, decided: Move) -> bool:
        """Begin a move; False: it could not be written now."""
        if not self._lease.provable():
            return False
        if decided.within is not None:
            return await self._write(decided, decided.within.id, self._on_the_way_back)
        request = self._request(decided)
        if self._desired.get(rollout_key(request), RolloutRecord) is not None:
            return True
        return await self._write(decided, request, self._as_a_rollout)

    def _as_a_rollout(self, decided: Move, request: str) -> Writes:
        ask = Ask(request, tuple(self._desired.rollouts_of(decided.app.name)), cause=decided.cause, at=time_of_day())
        return move(ask, decided.app, decided.placement).writes()

    def _on_the_way_back(self, decided: Move, rollout: str) -> Writes:
        present = self._desired.get(rollout_key(rollout), RolloutRecord)
        if present is None or present != decided.within:
            return ()  # its change is news
        app, going = move_while_going_back(decided.app, present, decided.placement, decided.cause)
        return [(app_key(app.name), app), (rollout_key(rollout), going)]

    async def _write(self, decided: Move, rollout: str, decide: Callable[[Move, str], Writes]) -> bool:
        app = decided.app
        reads = [app_key(app.name), rollout_key(rollout), *(host_key(name) for name in decided.hosts)]
        if self._desired.get(app_key(app.name), AppRecord) != app:
            return True  # it changed while another move was written, and the change is news
        try:
            if writes := list(decide(decided, rollout)):
                await self._commit(reads, writes)
        except Refused:
            return True  # another rollout began meanwhile: its end is news
        except (StoreError, TimeoutError) as error:
            _log.warning("%s is not moved yet (%s): %s", app.name, decided.cause, error)
            return False
        _log.info("%s moves: %s", app.name, decided.cause)
        return True

    def _request(self, decided: Move) -> str:
        """One decision of one leader on the app as it is has one id, so that it is begun once."""
        app = decided.app
        return str(uuid.uuid5(_MOVES, f"{self._epoch} {app.name} {decided.cause} {self._written(app)}"))

    def _written(self, app: AppRecord) -> int:
        return self._desired.written_at(app_key(app.name))

    def _facts(self) -> Mapping[str, HostFact]:
        return host_facts(self._desired, self._hosts)

    def _placed(self) -> Iterator[Placed]:
        for app in self._desired.all(AppRecord):
            revision = self._desired.get(revision_key(app.name, app.revision), RevisionRecord)
            if revision is None:
                continue
            key = rollout_key(app.rollout)
            rollout = self._desired.get(key, RolloutRecord)
            yield Placed(app, revision.app_spec.placement, rollout, self._desired.written_at(key))
