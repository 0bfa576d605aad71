"""Desired state in the leader's memory: a copy of what lies in etcd, kept by following it."""

import asyncio
import logging
from collections.abc import Iterator
from typing import TypeVar

from pydantic import ValidationError

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
)
from fleet_controller.store.interface import Changes, Item, Snapshot

_log = logging.getLogger(__name__)
KINDS: dict[str, type[Record]] = {
    "apps": AppRecord,
    "revisions": RevisionRecord,
    "rollouts": RolloutRecord,
    "hosts": HostRecord,
    "balancers": BalancerRecord,
    "controllers": ControllerRecord,
    "fleet": FleetRecord,
}
_R = TypeVar("_R", bound=Record)


class Desired:
    """Records by key, with the revision each was last written at. Never written to but by `take`."""

    def __init__(self) -> None:
        self.revision = 0
        self._records: dict[str, tuple[Record, int]] = {}
        self._moved = asyncio.Condition()

    async def take(self, news: Snapshot | Changes) -> set[str]:
        """Make `news` the present state; returns the keys whose record changed."""
        if isinstance(news, Snapshot):
            changed = set(self._records) ^ set(news.items)
            changed |= {key for key, item in news.items.items() if self.written_at(key) != item.mod_revision}
            gone = set(self._records) - set(news.items)
            items: list[tuple[str, Item | None]] = [*((key, None) for key in gone), *news.items.items()]
        else:
            changed = {key for key, _ in news.changes}
            items = list(news.changes)
        for key, item in items:
            self._take_item(key, item)
        async with self._moved:
            self.revision = max(self.revision, news.revision)
            self._moved.notify_all()
        return changed

    async def reached(self, revision: int, timeout: float) -> None:
        """Wait until what was written at `revision` is in this copy; raises TimeoutError."""
        async with asyncio.timeout(timeout), self._moved:
            await self._moved.wait_for(lambda: self.revision >= revision)

    def written_at(self, key: str) -> int:
        """The revision `key` was last written at; 0: it does not exist."""
        entry = self._records.get(key)
        return entry[1] if entry else 0

    def get(self, key: str, kind: type[_R]) -> _R | None:
        entry = self._records.get(key)
        return entry[0] if entry and isinstance(entry[0], kind) else None

    def all(self, kind: type[_R]) -> Iterator[_R]:
        return (record for record, _ in self._records.values() if isinstance(record, kind))

    def inhabited(self) -> bool:
        """Whether there is any host or app."""
        return any(isinstance(record, AppRecord | HostRecord) for record, _ in self._records.values())

    def rollouts_of(self, app: str) -> list[RolloutRecord]:
        """Oldest first."""
        return sorted((r for r in self.all(RolloutRecord) if r.app == app), key=lambda record: record.sequence)

    def _take_item(self, key: str, item: Item | None) -> None:
        if item is None:
            self._records.pop(key, None)
            return
        kind = KINDS.get(key.removeprefix(PREFIX).partition("/")[0])
        if kind is None:
            return
        try:
            self._records[key] = (kind.decode(item.value), item.mod_revision)
        except ValidationError as error:
            # The old record stays in force: acting on half a record could stop what runs.
            _log.error("%s cannot be read and is ignored: %s", key, error.errors()[0]["msg"])
