"""What a new leader tells balancers before it has heard of every host."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from fleet.v1 import agent_pb2, balancer_pb2, types_pb2
from fleet_controller.balancers import Upstreams
from fleet_controller.conductor import GRACE_SECONDS, Conductor
from fleet_controller.desired import Desired
from fleet_controller.hosts import Hosts
from fleet_controller.lineage import Lineage
from fleet_controller.outbox import Outbox
from fleet_controller.records import (
    AppRecord,
    FleetRecord,
    HostRecord,
    Record,
    RevisionRecord,
    app_key,
    host_key,
    revision_key,
)
from fleet_controller.store.interface import Changes, Created, Item
from fleet_core.ids import Epoch
from fleet_core.spec import AppSpec, RoutePolicy
from tests.unit.memory_store import MemoryStore


class Lease:
    """Held for ever."""

    create_revision = newest = 7

    def provable(self) -> bool:
        return True

    def awake(self) -> bool:
        return True

    def fence(self) -> Created:
        return Created("leader", 1)


class Scene:
    """A leader whose term has just begun: web1 and web2 have a worker each, as the leader before knew."""

    def __init__(self) -> None:
        self.now = 100.0
        self.desired = Desired()
        self.hosts = Hosts(lambda: self.now)
        self.upstreams = Upstreams(Epoch(1, 7), lambda: self.now)
        store, lease = MemoryStore(), Lease()
        lineage = Lineage(FleetRecord(id="f1"), store, lease, self.desired.inhabited)  # type: ignore[arg-type]
        self.conductor = Conductor(
            store,
            self.desired,
            lease,  # type: ignore[arg-type]
            lineage,
            self.hosts,
            self.upstreams,
            lambda: self.now,
        )
        self.upstreams.subscribe(balancer_pb2.BalancerHello(name="lb1"), Outbox())

    async def begin(self) -> None:
        spec = AppSpec(name="app", argv=("app",), cwd="/", route=RoutePolicy(http=":80"))
        app = AppRecord(name="app", placement={"web1": 1, "web2": 1})
        records: list[tuple[str, Record]] = [
            (app_key("app"), app),
            (revision_key("app", 1), RevisionRecord.of(spec, 1)),
            *((host_key(name), HostRecord(name=name, uid=name)) for name in ("web1", "web2")),
        ]
        await self.desired.take(Changes(2, tuple((key, Item(key, r.encode(), 2, 2)) for key, r in records)))

    async def plan(self) -> None:
        async with asyncio.timeout(5), self.conductor.planned:
            self.conductor.touch()
            await self.conductor.planned.wait()

    def report(self, name: str) -> None:
        host = self.hosts.join(agent_pb2.AgentHello(host_name=name, host_uid=name), Outbox())
        report = agent_pb2.WorkerReport(complete=True)
        status = report.workers.add(
            state=types_pb2.WORKER_STATE_READY,
            phase=types_pb2.PHASE_RUN,
            revision=1,
            port=20_000,
            address="10.0.0.31",
            pid=7,
        )
        status.id.app, status.id.host, status.id.slot, status.id.generation = "app", name, 1, 1
        self.hosts.report(host, report)

    def listed(self) -> set[str] | None:
        """Hosts in the app's list; None: balancers keep the one they have."""
        pool = self.upstreams.lists.get("app")
        return {worker.host for worker in pool.endpoints} if pool is not None else None


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    await made.begin()
    running = asyncio.create_task(made.conductor.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_list_is_held_back_until_every_host_reported_or_had_its_time(scene: Scene) -> None:
    """Guards invariant 3."""
    scene.report("web1")
    await scene.plan()
    assert scene.listed() is None
    scene.now += GRACE_SECONDS
    await scene.plan()
    assert scene.listed() == {"web1"}


async def test_no_list_is_emptied_because_nobody_was_heard_of(scene: Scene) -> None:
    """Guards invariants 3 and 7: with every agent cut off, balancers go on sending requests to workers that serve."""
    scene.now += GRACE_SECONDS
    await scene.plan()
    assert scene.listed() is None
    scene.report("web2")
    await scene.plan()
    assert scene.listed() == {"web2"}
