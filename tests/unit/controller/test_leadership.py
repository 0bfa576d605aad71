"""What a controller tells those who look for the leader, and what a leader dares while it cannot know that it leads."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

from fleet_controller.leader import LEADER_KEY
from fleet_controller.leadership import Leadership, Office
from fleet_controller.records import ControllerRecord, controller_key
from fleet_controller.store.interface import Delete, Put, Snapshot
from tests.unit.memory_store import MemoryStore

DEADLINE = 5.0


@asynccontextmanager
async def running(store: MemoryStore, name: str) -> AsyncIterator[Leadership]:
    leadership = Leadership(store, name, f"{name}:1", 1.0)
    task = asyncio.create_task(leadership.run())
    try:
        yield leadership
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def leads(name: str) -> Put:
    return Put(LEADER_KEY, json.dumps({"name": name, "address": f"{name}:1"}).encode())


async def test_a_follower_names_the_leader_from_memory() -> None:
    store = MemoryStore()
    await store.commit([], [leads("other")])
    async with running(store, "me") as me:
        assert await me.find("", DEADLINE) == "other:1"
        store.set_available(available=False)
        assert await me.find("", 0.0) == "other:1"
    store.set_available(available=True)
    await store.close()


async def test_who_found_the_leader_dead_is_answered_once_another_leads() -> None:
    store = MemoryStore()
    await store.commit([], [leads("dead")])
    async with running(store, "me") as me:
        assert await me.find("", DEADLINE) == "dead:1"
        waiting = asyncio.create_task(me.find("dead:1", DEADLINE))
        await asyncio.sleep(0)
        assert not waiting.done()
        await store.commit([], [leads("next")])
        assert await waiting == "next:1"
    await store.close()


async def test_who_waits_at_a_controller_that_comes_to_lead_goes_on_there() -> None:
    store = MemoryStore()
    await store.commit([], [leads("dead")])
    async with running(store, "me") as me:
        assert await me.find("", DEADLINE) == "dead:1"
        waiting = asyncio.create_task(me.find("dead:1", DEADLINE))
        await store.commit([], [Delete(LEADER_KEY)])
        found = await waiting
        assert isinstance(found, Office)
        assert found is me.office
    await store.close()


async def test_after_its_patience_whoever_is_known_is_named() -> None:
    store = MemoryStore()
    await store.commit([], [leads("dead")])
    async with running(store, "me") as me:
        assert await me.find("", DEADLINE) == "dead:1"
        assert await me.find("dead:1", 0.01) == "dead:1"
    await store.close()


async def test_each_controller_registers_once() -> None:
    store = MemoryStore()
    for _ in range(2):
        async with running(store, "me") as me:
            assert isinstance(await me.find("", DEADLINE), Office)
            async with asyncio.timeout(DEADLINE), aclosing(store.follow(controller_key("me"))) as updates:
                async for update in updates:
                    if not isinstance(update, Snapshot) or update.items:
                        break
    item = (await store.read(controller_key("me"))).items[controller_key("me")]
    assert item.create_revision == item.mod_revision
    assert ControllerRecord.decode(item.value) == ControllerRecord(name="me", address="me:1")
    await store.close()
