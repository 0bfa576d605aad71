"""How a rollout's end becomes durable."""

import asyncio
from contextlib import aclosing, suppress

from fleet.v1 import agent_pb2, types_pb2
from fleet_controller.balancers import Upstreams
from fleet_controller.conductor import Conductor
from fleet_controller.desired import Desired
from fleet_controller.hosts import Hosts
from fleet_controller.leader import LEADER_KEY, Election, Term
from fleet_controller.lineage import Lineage
from fleet_controller.mutations import revisions
from fleet_controller.mutations.changes import Ask
from fleet_controller.outbox import Outbox
from fleet_controller.records import (
    PREFIX,
    AppRecord,
    AppState,
    FleetRecord,
    HostRecord,
    Record,
    RevisionRecord,
    RolloutKind,
    RolloutRecord,
    app_key,
    host_key,
    revision_key,
    rollout_key,
)
from fleet_controller.store.interface import Item, Put, Snapshot
from fleet_core.ids import Epoch, WorkerId
from fleet_core.spec import AppSpec, RoutePolicy
from tests.unit.memory_store import MemoryStore

DEADLINE = 5.0
SPEC = AppSpec(name="shop", argv=("shop",), cwd="/")


def lineage(store: MemoryStore, term: Term, desired: Desired) -> Lineage:
    return Lineage(FleetRecord(id="f1"), store, term, desired.inhabited)


async def test_the_end_of_a_rollout_never_overwrites_a_change_that_came_in_between() -> None:
    """Guards invariant 5. The change reaches the leader's copy after the plan, and before the end is written."""
    store = MemoryStore()
    term = await Election(store, b"me").campaign()
    desired, clock = Desired(), asyncio.get_running_loop().time
    epoch = Epoch(1, term.create_revision)
    conductor = Conductor(
        store, desired, term, lineage(store, term, desired), Hosts(clock), Upstreams(epoch, clock), clock
    )
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
    conductor = Conductor(
        store, desired, term, lineage(store, term, desired), Hosts(clock), Upstreams(epoch, clock), clock
    )
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


class Doubtful(Term):
    """A lease that etcd does not let its holder prove."""

    def __init__(self) -> None:
        self.held = False
        self.create_revision = self.newest = 7

    def provable(self) -> bool:
        return self.held

    def awake(self) -> bool:
        return True


async def test_a_leader_whose_lease_cannot_be_proved_sends_endpoint_states_and_no_target() -> None:
    """Guards invariant 4: another may lead, and have other targets; what is ready is a matter of sight."""
    term, desired, clock = Doubtful(), Desired(), asyncio.get_running_loop().time
    epoch = Epoch(1, 7)
    store, hosts, upstreams = MemoryStore(), Hosts(clock), Upstreams(epoch, clock)
    conductor = Conductor(store, desired, term, lineage(store, term, desired), hosts, upstreams, clock)
    spec = AppSpec(name="shop", argv=("shop",), cwd="/", route=RoutePolicy(http=":8080"))
    records: list[tuple[str, Record]] = [
        (app_key("shop"), AppRecord(name="shop", placement={"host1": 1})),
        (revision_key("shop", 1), RevisionRecord.of(spec, 1)),
        (host_key("host1"), HostRecord(name="host1", uid="u")),
    ]
    items = {key: Item(key, record.encode(), 2, 2) for key, record in records}
    await desired.take(Snapshot(2, items))
    host = hosts.join(agent_pb2.AgentHello(host_name="host1", host_uid="u"), Outbox())
    worker = WorkerId("shop", "host1", 1, 1)
    ready = types_pb2.WorkerStatus(
        id=worker.to_proto(),
        revision=1,
        state=types_pb2.WORKER_STATE_READY,
        phase=types_pb2.PHASE_RUN,
        pid=9,
        address="10.0.0.1",
        port=20_001,
    )
    hosts.report(host, agent_pb2.WorkerReport(complete=True, workers=[ready]))
    running = asyncio.create_task(conductor.run())
    try:
        for held in (False, True):
            term.held = held
            async with asyncio.timeout(DEADLINE), conductor.planned:
                conductor.touch()
                await conductor.planned.wait()
            assert set(upstreams.lists["shop"].endpoints) == {worker}
            assert (host.assigned is not None) is held
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_a_replaced_leader_ends_no_rollout() -> None:
    """Guards invariant 4. It has not noticed yet that another leads."""
    store = MemoryStore()
    term = await Election(store, b"me").campaign()
    desired, clock = Desired(), asyncio.get_running_loop().time
    epoch = Epoch(1, term.create_revision)
    conductor = Conductor(
        store, desired, term, lineage(store, term, desired), Hosts(clock), Upstreams(epoch, clock), clock
    )
    app = AppRecord(name="shop", state=AppState.STOPPED, rollout="r1")
    rollout = RolloutRecord(id="r1", app="shop", kind=RolloutKind.STOP, revision=1, generation=1)
    first = RevisionRecord.of(SPEC, 1)
    for key, record in ((app_key("shop"), app), (revision_key("shop", 1), first), (rollout_key("r1"), rollout)):
        await store.commit([], [Put(key, record.encode())])
    await desired.take(await store.read(PREFIX))
    store.take_over(LEADER_KEY, b"another")
    before = store.revision
    conductor.touch(["shop"])
    running = asyncio.create_task(conductor.run())
    async with asyncio.timeout(DEADLINE):
        await term.lost.wait()
        for _ in range(3):
            async with conductor.planned:
                conductor.touch(["shop"])
                await conductor.planned.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert await _state(store, "r1") == "running"
    assert store.revision == before
    await term.resign()
    await store.close()
