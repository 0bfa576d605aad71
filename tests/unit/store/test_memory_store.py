from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from fleet_controller.store.interface import Changes, Put, Snapshot, Store, StoreUnavailable
from tests.unit.memory_store import MemoryStore
from tests.unit.store.contract import StoreContract, next_of


class TestMemoryStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        store = MemoryStore()
        yield store
        await store.close()

    @pytest.fixture
    def prefix(self) -> str:
        return "/test/"


async def test_a_follower_overtaken_by_a_compaction_lists_again() -> None:
    store = MemoryStore()
    async with aclosing(store.follow("/")) as updates:
        await next_of(updates)
        await store.commit([], [Put("/a", b"1")])
        store.compact()
        update = await next_of(updates)
    assert isinstance(update, Snapshot)
    assert set(update.items) == {"/a"}


async def test_a_lost_answer_leaves_the_write_done() -> None:
    store = MemoryStore()
    store.lose_next_answer()
    with pytest.raises(StoreUnavailable):
        await store.commit([], [Put("/a", b"1")])
    assert set((await store.read("/")).items) == {"/a"}


async def test_an_unavailable_store_refuses_and_its_followers_wait_and_go_on() -> None:
    store = MemoryStore()
    async with aclosing(store.follow("/")) as updates:
        await next_of(updates)
        await store.commit([], [Put("/a", b"1")])
        store.set_available(available=False)
        with pytest.raises(StoreUnavailable):
            await store.read("/")
        store.set_available(available=True)
        assert isinstance(await next_of(updates), Changes)
