"""Judges from what etcd held, write by write, whether each acknowledged change is there, and none twice.

The recorder follows etcd itself, not a controller. A change of an app leaves a rollout named by its request id, created once; a
change of a host leaves the host with another label. What each did is checked again in the final state, which counts for a user.
"""

import asyncio
import json
from collections.abc import Collection, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fleet_controller.store.interface import Item, Snapshot, Store

_PREFIX = "/fleet/v1/"


class Kind(StrEnum):
    ENV = "env"
    SIZE = "size"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class Change:
    """One change with one request id; `number` orders a client's changes."""

    request: str
    kind: Kind
    target: str
    client: int
    number: int
    amount: int = 0
    """Workers more, or fewer."""

    @property
    def variable(self) -> str:
        return f"CHANGE_{self.number}"

    @property
    def label(self) -> str:
        return f"client{self.client}"


class Recorder:
    """Every write below the prefix, in order."""

    def __init__(self, store: Store) -> None:
        self.began = asyncio.Event()
        self.first: dict[str, bytes] = {}
        self.writes: list[tuple[str, Item | None]] = []
        self.gaps = 0
        """Times etcd could no longer tell what was written."""
        self._store = store
        self._revision = 0
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with aclosing(self._store.follow(_PREFIX)) as updates:
            async for update in updates:
                if isinstance(update, Snapshot):
                    self.gaps += self.began.is_set()
                    self.first = {key: item.value for key, item in update.items.items()}
                    self.began.set()
                else:
                    self.writes += update.changes
                self._revision = update.revision
                self._moved.set()

    async def reach(self, revision: int) -> None:
        """Until what was written up to `revision`, a revision below the prefix, was recorded. Raises TimeoutError."""
        newest = await self._newest(revision)
        async with asyncio.timeout(20.0):
            while self._revision < newest:
                self._moved.clear()
                await self._moved.wait()

    async def _newest(self, revision: int) -> int:
        items = (await self._store.read(_PREFIX, timeout=20.0)).items.values()
        return max((item.mod_revision for item in items if item.mod_revision <= revision), default=0)

    def written(self, folder: str) -> Iterable[tuple[str, dict[str, Any], bool]]:
        """(name, record, created with this write) of each write in a folder, in order."""
        start = f"{_PREFIX}{folder}/"
        for key, item in self.writes:
            if key.startswith(start) and item is not None:
                yield key.removeprefix(start), json.loads(item.value), item.create_revision == item.mod_revision

    def final(self, folder: str) -> dict[str, dict[str, Any]]:
        """What lies in a folder at the end, by name."""
        start = f"{_PREFIX}{folder}/"
        values: dict[str, bytes | None] = {**self.first}
        values.update((key, None if item is None else item.value) for key, item in self.writes)
        return {
            key.removeprefix(start): json.loads(value)
            for key, value in values.items()
            if key.startswith(start) and value is not None
        }


def judge(
    changes: Collection[Change], acknowledged: Collection[str], recorder: Recorder, *, first_size: int
) -> list[str]:
    """Everything that is not as promised, in words."""
    broken = [f"{recorder.gaps} gaps in the record"] if recorder.gaps else []
    broken += _begun(changes, acknowledged, recorder)
    broken += _environments(changes, acknowledged, recorder)
    broken += _sizes(changes, acknowledged, recorder, first_size)
    broken += _labels(changes, acknowledged, recorder)
    return broken


def _begun(changes: Collection[Change], acknowledged: Collection[str], recorder: Recorder) -> Iterable[str]:
    """An app's change is one rollout, created once, with its request id."""
    created: dict[str, int] = {}
    for name, _, new in recorder.written("rollouts"):
        created[name] = created.get(name, 0) + new
    for change in changes:
        times = created.get(change.request, 0)
        if change.kind is not Kind.LABEL and times != (change.request in acknowledged):
            yield f"{change}: {times} rollouts"
    for name in created.keys() - {change.request for change in changes}:
        yield f"rollout {name}, which nobody asked for"


def _environments(changes: Collection[Change], acknowledged: Collection[str], recorder: Recorder) -> Iterable[str]:
    """Each change is one revision, and the newest has the variables of all."""
    revisions = recorder.final("revisions")
    made: dict[str, int] = {}
    for name, record, new in recorder.written("revisions"):
        if not new:
            yield f"revision {name} was written again"
        made[record["app"]] = made.get(record["app"], 0) + 1
    for name, app in recorder.final("apps").items():
        mine = [change for change in changes if change.kind is Kind.ENV and change.target == name]
        wanted = {change.variable: str(change.number) for change in mine if change.request in acknowledged}
        environment = revisions[f"{name}/{app['revision']}"]["spec"].get("env", {})
        found = {key: value for key, value in environment.items() if key.startswith("CHANGE_")}
        if found != wanted:
            yield f"{name}: lost {sorted(wanted.keys() - found.keys())}, not asked for {sorted(found.keys() - wanted.keys())}"
        if made.get(name, 0) != len(wanted):
            yield f"{name}: {made.get(name, 0)} revisions for {len(wanted)} changes"


def _sizes(
    changes: Collection[Change], acknowledged: Collection[str], recorder: Recorder, first_size: int
) -> Iterable[str]:
    for name, app in recorder.final("apps").items():
        mine = [change for change in changes if change.kind is Kind.SIZE and change.target == name]
        wanted = first_size + sum(change.amount for change in mine if change.request in acknowledged)
        size = sum(app["placement"].values())
        if size != wanted:
            yield f"{name}: size {size}, not {wanted}"


def _labels(changes: Collection[Change], acknowledged: Collection[str], recorder: Recorder) -> Iterable[str]:
    """Each client counts upwards: its label takes each of its numbers once, in order."""
    for client in sorted({change.client for change in changes}):
        mine = [change for change in changes if change.kind is Kind.LABEL and change.client == client]
        if not mine:
            continue
        taken: list[str] = []
        for name, record, _ in recorder.written("hosts"):
            value = record["given_labels"].get(mine[0].label)
            if name == mine[0].target and value is not None and value != (taken[-1] if taken else None):
                taken.append(value)
        wanted = [str(change.number) for change in mine if change.request in acknowledged]
        if taken != wanted:
            yield f"labels of client {client}: {taken} instead of {wanted}"
