import asyncio
from collections.abc import Sequence

import pytest

from fleet_controller.leader import LEADER_KEY, Election, Term
from fleet_controller.store.interface import Conflict, Created, Delete, Put, Unchanged
from tests.unit.memory_store import MemoryStore

DEADLINE = 5.0
LEASE_SECONDS = 1


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def election(store: MemoryStore, name: str, clock: Clock | None = None) -> Election:
    return Election(store, name.encode(), lease_seconds=LEASE_SECONDS, clock=clock or Clock())


async def elected(candidate: Election) -> Term:
    async with asyncio.timeout(DEADLINE):
        return await candidate.campaign()


async def lost(term: Term) -> None:
    async with asyncio.timeout(DEADLINE):
        await term.lost.wait()


async def only_lease(store: MemoryStore) -> int:
    """MemoryStore counts leases from 1, and a vacant election grants one."""
    assert LEADER_KEY in (await store.read(LEADER_KEY)).items
    return 1


async def test_one_leads_and_the_other_waits_without_writing_until_it_resigns() -> None:
    store = MemoryStore()
    term = await elected(election(store, "one"))
    waiting = asyncio.create_task(election(store, "two").campaign())
    revision = store.revision
    done, _ = await asyncio.wait([waiting], timeout=2 * LEASE_SECONDS)
    assert not done
    assert store.revision == revision
    assert not term.lost.is_set()

    await term.resign()
    async with asyncio.timeout(DEADLINE):
        successor = await waiting

    assert successor.create_revision > term.create_revision
    assert term.lost.is_set()
    assert not term.provable()
    await successor.resign()
    await store.close()


async def test_a_former_term_can_commit_nothing() -> None:
    """Guards invariant 4 at its source: what a replaced leader decides is not even written."""
    store = MemoryStore()
    old = await elected(election(store, "one"))
    await store.commit([old.fence()], [Put("/a", b"old")])
    store.expire(await only_lease(store))
    new = await elected(election(store, "two"))

    with pytest.raises(Conflict) as conflict:
        await store.commit([old.fence()], [Put("/a", b"stale")])
    await store.commit([new.fence()], [Put("/a", b"new")])

    assert conflict.value.key == LEADER_KEY
    await lost(old)
    await old.resign()
    assert LEADER_KEY in (await store.read(LEADER_KEY)).items, "a lost term's resignation must not touch its successor"
    await new.resign()
    await store.close()


async def test_a_term_whose_key_is_deleted_is_lost_before_the_next_renewal() -> None:
    store = MemoryStore()
    term = await elected(election(store, "one"))
    await store.commit([], [Delete(LEADER_KEY)])
    async with asyncio.timeout(LEASE_SECONDS / 4):
        await term.lost.wait()
    await term.resign()
    await store.close()


async def test_a_lease_is_provable_for_its_length_after_the_last_renewal_less_a_margin() -> None:
    store, clock = MemoryStore(), Clock()
    term = await elected(election(store, "one", clock))
    assert term.provable()
    store.set_available(available=False)
    clock.now += 0.4
    assert term.provable()
    clock.now += 0.2
    assert not term.provable()
    await term.resign()
    await store.close()


async def test_a_leader_without_its_store_is_unproven_but_not_lost_and_recovers() -> None:
    store, clock = MemoryStore(), Clock()
    term = await elected(election(store, "one", clock))
    store.set_available(available=False)
    clock.now += 10.0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(term.lost.wait(), 0.5)
    assert not term.provable()

    store.set_available(available=True)
    async with asyncio.timeout(DEADLINE):
        while not term.provable():  # noqa: ASYNC110 (a clock makes it true, not an event)
            await asyncio.sleep(0.01)

    await term.resign()
    await store.close()


async def test_a_leader_that_finds_its_lease_gone_is_lost() -> None:
    store = MemoryStore()
    term = await elected(election(store, "one"))
    store.expire(await only_lease(store))
    await lost(term)
    await term.resign()
    await store.close()


async def test_a_restarted_controller_replaces_its_own_former_term_at_once() -> None:
    store = MemoryStore()
    former = await elected(election(store, "one"))
    async with asyncio.timeout(LEASE_SECONDS / 2):
        term = await election(store, "one").campaign()
    assert term.create_revision > former.create_revision
    await lost(former)
    await former.resign()
    await term.resign()
    await store.close()


async def test_two_processes_wrongly_given_one_identity_do_not_overthrow_each_other_for_ever() -> None:
    store = MemoryStore()
    first = election(store, "twin")
    former = await elected(first)
    term = await elected(election(store, "twin"))
    await lost(former)
    await former.resign()

    done, pending = await asyncio.wait([asyncio.create_task(first.campaign())], timeout=2 * LEASE_SECONDS)

    assert not done
    assert not term.lost.is_set()
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)
    await term.resign()
    await store.close()


async def test_a_candidacy_whose_answer_was_lost_leaves_no_key_behind_and_is_tried_again() -> None:
    store = MemoryStore()
    store.lose_next_answer()
    before = store.revision
    term = await elected(election(store, "one"))
    # Created, deleted with its lease, created again.
    assert term.create_revision == before + 3
    await store.commit([term.fence()], [Put("/a", b"")])
    await term.resign()
    await store.close()


class SlowToAnswer(MemoryStore):
    """Commits at once, and answers only when `answer` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = asyncio.Event()
        self.committed = asyncio.Event()

    async def commit(
        self,
        expectations: Sequence[Unchanged | Created],
        operations: Sequence[Put | Delete],
        *,
        timeout: float = 5.0,
    ) -> int:
        revision = await super().commit(expectations, operations, timeout=timeout)
        self.committed.set()
        await self.answer.wait()
        return revision


async def test_a_candidacy_cancelled_before_its_answer_leaves_no_key_behind() -> None:
    store = SlowToAnswer()
    candidacy = asyncio.create_task(election(store, "one").campaign())
    async with asyncio.timeout(DEADLINE):
        await store.committed.wait()
    assert (await store.read(LEADER_KEY)).items
    candidacy.cancel()
    with pytest.raises(asyncio.CancelledError):
        await candidacy
    assert not (await store.read(LEADER_KEY)).items
    await store.close()


async def test_a_key_that_only_begins_alike_is_nobodys_leadership() -> None:
    store = MemoryStore()
    await store.commit([], [Put(f"{LEADER_KEY}-elect", b"other")])
    term = await elected(election(store, "one"))
    await store.commit([], [Put(f"{LEADER_KEY}-elect", b"changed")])
    await store.commit([], [Delete(f"{LEADER_KEY}-elect")])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(term.lost.wait(), 0.1)
    await term.resign()
    await store.close()
