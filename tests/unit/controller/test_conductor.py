"""How a rollout's end becomes durable."""

import asyncio
from contextlib import aclosing, suppress

from fleet_controller.balancers import Upstreams
from fleet_controller.conductor import Conductor
from fleet_controller.desired import Desired
from fleet_controller.hosts import Hosts
from fleet_controller.leader import Election, Term
from fleet_controller.mutations import revisions
from fleet_controller.mutations.changes import Ask
from fleet_controller.records import (
    PREFIX,
    AppRecord,
    AppState,
    RevisionRecord,
    RolloutKind,
    RolloutRecord,
    app_key,
    revision_key,
    rollout_key,
)
from fleet_controller.store.interface import Put
from fleet_core.ids import Epoch
from fleet_core.spec import AppSpec
from tests.unit.memory_store import MemoryStore

DEADLINE = 5.0
SPEC = AppSpec(name="shop", argv=("shop",), cwd="/")


async def test_the_end_of_a_rollout_never_overwrites_a_change_that_came_in_between() -> None:
    """Guards invariant 5. The change reaches the leader's copy after the plan, and before the end is written."""
    store = MemoryStore()
    term = await Election(store, b"me").campaign()
    desired, clock = Desired(), asyncio.get_running_loop().time
    epoch = Epoch(1, term.create_revision)
    conductor = Conductor(store, desired, term, epoch, Hosts(clock), Upstreams(epoch, clock), clock)
    app = AppRecord(name="shop", state=AppState.STOPPED, rollout="r1")
    first = RevisionRecord.of(SPEC, 1)
    rollout = RolloutRecord(id="r1", app="shop", kind=RolloutKind.UPDATE, revision=1, generation=1)
    for key, record in ((app_key("shop"), app), (revision_key("shop", 1), first), (rollout_key("r1"), rollout)):
        await store.commit([], [Put(key, record.encode())])
    await desired.take(await store.read(PREFIX))
    spec = revisions.with_environment(SPEC, {"A": "1"}, ())
    changed = revisions.update(Ask("r2", (rollout,), supersede=True), app, spec, [first])
    assert changed is not None
    await store.commit([], [Put(key, record.encode()) for key, record in changed.writes() if record is not None])
    newer = await store.read(PREFIX)
    conductor.touch(["shop"])
    running = asyncio.create_task(conductor.run())
    # It runs after the conductor's first pass, and before the task which that begins.
    taking = asyncio.create_task(desired.take(newer))
    try:
        await taking
        async with asyncio.timeout(DEADLINE), aclosing(store.follow(rollout_key("r2"))) as updates:
            conductor.touch(["shop"])
            async for _ in updates:
                if await _state(store, "r2") == "done":
                    break
                await desired.take(await store.read(PREFIX))
        after = AppRecord.decode((await store.read(app_key("shop"))).items[app_key("shop")].value)
        assert (after.revision, after.rollout) == (2, "r2")
        assert await _state(store, "r1") == "superseded"
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await term.resign()
        await store.close()


async def _state(store: MemoryStore, rollout: str) -> str:
    item = (await store.read(rollout_key(rollout))).items[rollout_key(rollout)]
    return RolloutRecord.decode(item.value).state


async def test_a_leader_that_stood_still_plans_nothing_before_it_knows_that_it_leads() -> None:
    """Guards invariant 4."""
    store = MemoryStore()
    now = [100.0]
    term: Term = await Election(store, b"me", clock=lambda: now[0]).campaign()
    desired, clock = Desired(), asyncio.get_running_loop().time
    epoch = Epoch(1, term.create_revision)
    conductor = Conductor(store, desired, term, epoch, Hosts(clock), Upstreams(epoch, clock), clock)
    app = AppRecord(name="shop", placement={"host1": 1})
    for key, record in ((app_key("shop"), app), (revision_key("shop", 1), RevisionRecord.of(SPEC, 1))):
        await store.commit([], [Put(key, record.encode())])
    await desired.take(await store.read(PREFIX))
    now[0] += 60.0
    assert not term.awake()
    conductor.touch()
    running = asyncio.create_task(conductor.run())
    try:
        async with conductor.planned:
            await conductor.planned.wait()
        assert conductor.apps == {}
        async with asyncio.timeout(DEADLINE):
            while "shop" not in conductor.apps:
                async with conductor.planned:
                    await conductor.planned.wait()
        assert term.awake()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await term.resign()
        await store.close()
