"""Backup and restore of desired state. What a restore changes in the records is pure; carrying it out is not.

A restore may be too large for one of etcd's transactions (128 operations, 1.5 MB). So it first writes into the fleet's record
that it began, together with the new era, then the records, and at last that it ended. While it has not ended, every leader acts
on nothing; what broke off is done again from the beginning. Each transaction is fenced, and compares the fleet's record: two
restores never mix.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from fleet_controller.desired import KINDS
from fleet_controller.leader import LEADER_KEY, Term
from fleet_controller.records import (
    FLEET_KEY,
    PREFIX,
    AppRecord,
    FleetRecord,
    Record,
    RevisionRecord,
    RolloutRecord,
)
from fleet_controller.store.interface import Created, Delete, Put, Store, StoreError, Unchanged
from fleet_core.backup_file import Backup

_log = logging.getLogger(__name__)
SPENT_GENERATIONS = 10_000
SPENT_REVISIONS = 1_000
"""So many numbers may have been given out between a backup and the loss of etcd."""
PAUSED_WORDS = "paused when etcd was restored from a backup"
_OF_THIS_ETCD = frozenset({LEADER_KEY, FLEET_KEY})
"""In no backup among the records: the leader is of the moment, the fleet's record is the header."""
_BATCH_OPERATIONS = 100
_BATCH_BYTES = 512 * 1024


class RestoreRefused(Exception):  # noqa: N818 (reads as a sentence where it is caught)
    """The backup must not be restored here; nothing was written. The text is one line."""


@dataclass(frozen=True, slots=True)
class Restored:
    era: int
    records: int
    paused_apps: tuple[str, ...]


async def take(store: Store) -> Backup:
    """Everything below /fleet/v1/ that must outlive machines, at one revision. Raises StoreError."""
    snapshot = await store.read(PREFIX)
    item = snapshot.items.get(FLEET_KEY)
    if item is None:
        raise StoreError(f"{FLEET_KEY} does not exist: there is nothing to back up")
    fleet = FleetRecord.decode(item.value)
    if fleet.restoring:
        raise StoreError("a restore has not ended, so what etcd holds is no fleet's: say `fleetctl restore FILE` again")
    records = {key: found.value for key, found in snapshot.items.items() if key not in _OF_THIS_ETCD}
    return Backup(fleet.id, fleet.era, snapshot.revision, records)


async def restore(
    store: Store,
    term: Term,
    backup: Backup,
    highest_era: int,
    begins: Callable[[], None],
    *,
    allow_another_fleet: bool = False,
) -> Restored:
    """Put the backup in the place of what etcd holds, under an era above `highest_era`, the backup's and etcd's own.

    `begins` is called before the first write: from then on the term may write nothing else, and must end afterwards. Raises
    RestoreRefused, and StoreError: before that call nothing was written, after it the restore must be done again.
    """
    records, paused = prepared(backup)
    snapshot = await store.read(PREFIX)
    item = snapshot.items.get(FLEET_KEY)
    present = FleetRecord.decode(item.value) if item is not None else FleetRecord(id=backup.fleet_id)
    others = [key for key in snapshot.items if key not in _OF_THIS_ETCD]
    if present.id != backup.fleet_id and not present.restoring and others and not allow_another_fleet:
        raise RestoreRefused(
            f"the backup is of fleet {backup.fleet_id}, and etcd holds {len(others)} records of fleet {present.id}: "
            "if they are to be replaced, say so with --another-fleet"
        )
    era = 1 + max(highest_era, present.era, backup.era)
    began = FleetRecord(id=backup.fleet_id, era=era, restoring=backup.digest())
    begins()
    mark = await store.commit(
        [term.fence(), Unchanged(FLEET_KEY, item.mod_revision if item is not None else 0)],
        [Put(FLEET_KEY, began.encode())],
    )
    expectations: list[Unchanged | Created] = [term.fence(), Unchanged(FLEET_KEY, mark)]
    writes: list[Put | Delete] = [Delete(key) for key in others if key not in records]
    writes += [Put(key, value) for key, value in records.items()]
    for batch in _batches(writes):
        await store.commit(expectations, batch)
    ended = began.model_copy(update={"restoring": ""})
    await store.commit(expectations, [Put(FLEET_KEY, ended.encode())])
    _log.warning("etcd was restored from revision %d of era %d: era %d", backup.etcd_revision, backup.era, era)
    return Restored(era, len(records), paused)


def prepared(backup: Backup) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The records to write, and the apps whose rollout was paused. Raises RestoreRefused.

    Between the backup and now, workers may have got generations and revisions that the backup does not know: their numbers are
    never given out again. A rollout that was under way then is paused: whether it still makes sense, somebody must say.
    """
    decoded = dict(_decoded(backup.records))
    newest: dict[str, int] = {}
    for record in decoded.values():
        if isinstance(record, RevisionRecord):
            newest[record.app] = max(newest.get(record.app, 0), record.number)
    changed: dict[str, Record] = {}
    paused: set[str] = set()
    for key, record in decoded.items():
        if isinstance(record, AppRecord):
            changed[key] = _with_spent_numbers(record, newest.get(record.name, 0))
        elif isinstance(record, RolloutRecord) and record.state.under_way:
            # At once, and it would not wait for anybody's word.
            changed[key] = record.model_copy(update={"paused": True, "at_once": False, "message": PAUSED_WORDS})
            paused.add(record.app)
    records = {key: changed[key].encode() if key in changed else value for key, value in backup.records.items()}
    return records, tuple(sorted(paused))


def _with_spent_numbers(app: AppRecord, newest_revision: int) -> AppRecord:
    generation = max(app.generation, app.spent_generation) + SPENT_GENERATIONS
    revision = max(newest_revision, app.spent_revision) + SPENT_REVISIONS
    return app.model_copy(update={"spent_generation": generation, "spent_revision": revision})


def _decoded(records: Mapping[str, bytes]) -> Iterator[tuple[str, Record]]:
    """Those of a kind this controller knows. Raises RestoreRefused."""
    for key, value in records.items():
        if not key.startswith(PREFIX) or key in _OF_THIS_ETCD:
            raise RestoreRefused(f"the backup holds {key!r}, which no backup of a fleet does")
        kind = KINDS.get(key.removeprefix(PREFIX).partition("/")[0])
        if kind is None:
            continue
        try:
            yield key, kind.decode(value)
        except ValidationError as error:
            text = f"{key} in the backup cannot be read ({error.errors()[0]['msg']})"
            raise RestoreRefused(f"{text}: was it taken by a newer version? Upgrade this controller first") from error


def _batches(writes: Iterable[Put | Delete]) -> Iterator[list[Put | Delete]]:
    batch: list[Put | Delete] = []
    size = 0
    for write in writes:
        weight = len(write.key) + (len(write.value) if isinstance(write, Put) else 0)
        if batch and (len(batch) == _BATCH_OPERATIONS or size + weight > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(write)
        size += weight
    if batch:
        yield batch
