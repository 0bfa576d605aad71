"""Backup and restore on a store in memory: nothing half, nothing twice, no number twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fleet_controller.leader import LEADER_KEY, Election, Term
from fleet_controller.mutations.changes import next_generation
from fleet_controller.records import (
    FLEET_KEY,
    AppRecord,
    FleetRecord,
    HostRecord,
    RevisionRecord,
    RolloutKind,
    RolloutRecord,
    RolloutState,
    app_key,
    host_key,
    revision_key,
    rollout_key,
)
from fleet_controller.restoring import RestoreRefused, prepared, restore, take
from fleet_controller.store.interface import Created, Delete, Put, StoreError, StoreUnavailable, Unchanged
from fleet_core.backup_file import Backup
from fleet_core.spec import AppSpec
from tests.unit.memory_store import MemoryStore

SPEC = AppSpec.model_validate({"name": "web", "argv": ["/bin/true"], "cwd": "/"})


class BreakingStore(MemoryStore):
    """Ends after so many commits of this kind of work."""

    commits_left = 1_000_000

    async def commit(
        self, expectations: list[Unchanged | Created], operations: list[Put | Delete], *, timeout: float = 5.0
    ) -> int:  # type: ignore[override]
        if self.commits_left == 0:
            raise StoreUnavailable("it broke")
        self.commits_left -= 1
        return await super().commit(expectations, operations, timeout=timeout)


@asynccontextmanager
async def leading(store: MemoryStore) -> AsyncIterator[Term]:
    term = await Election(store, b"{}").campaign()
    try:
        yield term
    finally:
        await term.resign()


async def _filled(store: MemoryStore, fleet: FleetRecord, hosts: int = 3) -> None:
    puts = [Put(FLEET_KEY, fleet.encode())]
    puts += [Put(host_key(f"h{n}"), HostRecord(name=f"h{n}", uid=f"u{n}").encode()) for n in range(hosts)]
    for put in puts:
        await store.commit([], [put])


async def _content(store: MemoryStore) -> dict[str, bytes]:
    items = (await store.read("/fleet/v1/")).items
    return {key: item.value for key, item in items.items() if key not in (FLEET_KEY, LEADER_KEY)}


async def _fleet(store: MemoryStore) -> FleetRecord:
    return FleetRecord.decode((await store.read(FLEET_KEY)).items[FLEET_KEY].value)


def nothing() -> None:
    return


async def test_what_was_backed_up_is_what_is_restored_into_an_empty_store() -> None:
    store, empty = MemoryStore(), MemoryStore()
    await _filled(store, FleetRecord(id="f1", era=3), hosts=400)  # more than one transaction takes
    async with leading(store):
        backup = await take(store)
    assert LEADER_KEY not in backup.records
    async with leading(empty) as term:
        restored = await restore(empty, term, backup, 7, nothing)
    assert restored.era == 8, "above every era that anybody has seen"
    assert await _content(empty) == backup.records
    assert await _fleet(empty) == FleetRecord(id="f1", era=8)


async def test_a_restore_that_breaks_off_anywhere_shows_and_is_done_again() -> None:
    source = MemoryStore()
    await _filled(source, FleetRecord(id="f1", era=1), hosts=250)
    backup = await take(source)
    for commits in range(5):
        store = BreakingStore()
        await _filled(store, FleetRecord(id="f1", era=1), hosts=2)
        await store.commit([], [Put(app_key("newer"), AppRecord(name="newer").encode())])
        async with leading(store) as term:
            store.commits_left = commits
            with pytest.raises(StoreError):
                await restore(store, term, backup, 1, nothing)
            store.commits_left = 1_000_000
        assert bool((await _fleet(store)).restoring) == (commits > 0)
        async with leading(store) as term:
            restored = await restore(store, term, backup, 1, nothing)
        assert await _content(store) == backup.records
        assert await _fleet(store) == FleetRecord(id="f1", era=restored.era)


async def test_no_backup_is_taken_of_a_half_restore() -> None:
    store = MemoryStore()
    await _filled(store, FleetRecord(id="f1", restoring="d1"))
    with pytest.raises(StoreError, match="a restore has not ended"):
        await take(store)


async def test_a_leader_that_was_replaced_restores_nothing() -> None:
    """Guards invariant 4."""
    store = MemoryStore()
    await _filled(store, FleetRecord(id="f1"))
    backup = await take(store)
    async with leading(store) as term:
        await store.commit([], [Delete(LEADER_KEY)])
        async with leading(store):
            before = await _content(store)
            with pytest.raises(StoreError):
                await restore(store, term, backup, 1, nothing)
            assert (await _content(store), (await _fleet(store)).era) == (before, 1)


async def test_another_fleets_backup_replaces_nothing_unless_it_is_meant() -> None:
    store = MemoryStore()
    await _filled(store, FleetRecord(id="f1"))
    backup = Backup("f2", 1, 10, {host_key("x"): HostRecord(name="x", uid="x").encode()})
    async with leading(store) as term:
        with pytest.raises(RestoreRefused, match="of fleet f2, and etcd holds 3 records of fleet f1"):
            await restore(store, term, backup, 1, nothing)
        await restore(store, term, backup, 1, nothing, allow_another_fleet=True)
    assert await _content(store) == backup.records


def test_numbers_that_may_have_been_given_out_since_are_not_given_out_again() -> None:
    app = AppRecord(name="web", revision=3, generation=9)
    records = {
        app_key("web"): app.encode(),
        revision_key("web", 3): RevisionRecord.of(SPEC, 3).encode(),
    }
    restored, _ = prepared(Backup("f1", 1, 10, records))
    record = AppRecord.decode(restored[app_key("web")])
    assert (record.revision, record.generation, record.floor) == (3, 9, 1), "what runs may go on running"
    assert next_generation(record).generation == 10_010
    assert record.spent_revision == 1_003
    # Of a fleet that was restored before.
    again, _ = prepared(Backup("f1", 2, 10, {app_key("web"): restored[app_key("web")]}))
    assert AppRecord.decode(again[app_key("web")]).spent_generation == 20_009


@pytest.mark.parametrize("state", [RolloutState.RUNNING, RolloutState.ROLLING_BACK])
def test_a_rollout_that_was_under_way_is_paused(state: RolloutState) -> None:
    rollout = RolloutRecord(
        id="r1", app="web", kind=RolloutKind.RESTART, state=state, at_once=True, revision=1, generation=2
    )
    ended = rollout.model_copy(update={"id": "r0", "state": RolloutState.DONE})
    records = {rollout_key("r1"): rollout.encode(), rollout_key("r0"): ended.encode()}
    restored, paused = prepared(Backup("f1", 1, 10, records))
    assert paused == ("web",)
    record = RolloutRecord.decode(restored[rollout_key("r1")])
    assert (record.paused, record.at_once, record.state) == (True, False, state)
    assert restored[rollout_key("r0")] == records[rollout_key("r0")]


@pytest.mark.parametrize(
    ("key", "value"), [("/elsewhere", b"{}"), (LEADER_KEY, b"{}"), (app_key("web"), b'{"name": "web", "newer": 1}')]
)
def test_what_no_backup_holds_is_refused(key: str, value: bytes) -> None:
    with pytest.raises(RestoreRefused):
        prepared(Backup("f1", 1, 10, {key: value}))
