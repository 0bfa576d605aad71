"""A leader over a store in memory and one host that reports: how rollouts end, in the records."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from fleet.v1 import agent_pb2, types_pb2
from fleet_controller.leader import Election
from fleet_controller.leadership import Office
from fleet_controller.outbox import Outbox
from fleet_controller.records import (
    AppRecord,
    AppState,
    FleetRecord,
    HostRecord,
    Previous,
    Record,
    RevisionRecord,
    RolloutKind,
    RolloutRecord,
    RolloutState,
    SizeMode,
    app_key,
    host_key,
    revision_key,
    rollout_key,
)
from fleet_controller.store.interface import Put
from fleet_core.ids import WorkerId
from fleet_core.spec import AppSpec, ListenMode, RolloutPolicy
from tests.unit.memory_store import MemoryStore

DEADLINE = 20.0
SPEC = AppSpec(
    name="app",
    argv=("app",),
    cwd="/",
    listen_mode=ListenMode.NONE,
    rollout=RolloutPolicy(min_ready_seconds=0, bake_seconds=0),
)
READY, FAILED = types_pb2.WORKER_STATE_READY, types_pb2.WORKER_STATE_FAILED


class Scene:
    def __init__(self, store: MemoryStore, office: Office) -> None:
        self.store = store
        self.office = office

    async def write(self, **records: Record) -> None:
        keys = {
            "app": app_key("app"),
            "revision": revision_key("app", 1),
            "rollout": rollout_key("r"),
            "host": host_key("a"),
        }
        revision = await self.store.commit([], [Put(keys[name], record.encode()) for name, record in records.items()])
        await self.office.desired.reached(revision, DEADLINE)

    def report(self, states: Mapping[WorkerId, types_pb2.WorkerState.ValueType]) -> None:
        host = self.office.hosts.join(agent_pb2.AgentHello(host_name="a", host_uid="a", cpus=2), Outbox())
        statuses = [
            types_pb2.WorkerStatus(id=worker.to_proto(), revision=1, state=state, phase=types_pb2.PHASE_RUN, pid=9)
            for worker, state in states.items()
        ]
        apps = self.office.hosts.report(host, agent_pb2.WorkerReport(complete=True, workers=statuses))
        self.office.conductor.reported(host, apps)
        self.office.presence_changed()

    async def end(self) -> RolloutRecord:
        """The rollout, once it ended."""
        async with asyncio.timeout(DEADLINE):
            while True:
                record = self.office.desired.get(rollout_key("r"), RolloutRecord)
                if record is not None and not record.state.under_way:
                    return record
                async with self.office.conductor.planned:
                    await self.office.conductor.planned.wait()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    store = MemoryStore()
    office = Office(store, await Election(store, b"{}").campaign(), FleetRecord(id="f1"), 1.0)
    running = asyncio.create_task(office.run())
    await office.open.wait()
    made = Scene(store, office)
    await made.write(host=HostRecord(name="a", uid="a"), revision=RevisionRecord.of(SPEC, 1))
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_rollback_of_an_update_that_had_only_begun_counts_no_worker_it_left_alone(scene: Scene) -> None:
    """Guards invariant 10."""
    before = Previous(
        state=AppState.RUNNING, size_mode=SizeMode.FLOATING, placement={"a": 2}, revision=1, generation=2, floor=1
    )
    back = RolloutRecord(
        id="r",
        app="app",
        kind=RolloutKind.ROLLBACK,
        revision=1,
        generation=4,
        previous=before,
        steps=2,
        host_steps={"a": 2},
    )
    app = AppRecord(name="app", placement={"a": 2}, generation=4, generations={2: 1, 4: 1}, rollout="r")
    await scene.write(app=app, rollout=back)
    # Slot 2 is of the generation before; slot 1 had been given up, and got a successor.
    scene.report({WorkerId("app", "a", 1, 4): READY, WorkerId("app", "a", 2, 2): READY})
    ended = await scene.end()
    assert (ended.state, ended.steps, ended.replaced) == (RolloutState.DONE, 2, 1)


async def test_a_start_that_failed_says_how_many_of_its_workers_are_ready(scene: Scene) -> None:
    start = RolloutRecord(
        id="r", app="app", kind=RolloutKind.START, revision=1, generation=1, steps=3, host_steps={"a": 3}
    )
    app = AppRecord(name="app", placement={"a": 3}, generations={1: 1}, rollout="r")
    await scene.write(app=app, rollout=start)
    states = {WorkerId("app", "a", slot, 1): READY if slot == 2 else FAILED for slot in (1, 2, 3)}
    scene.report(states)
    ended = await scene.end()
    assert (ended.state, ended.host_steps_done, ended.replaced) == (RolloutState.FAILED, {"a": 1}, 0)


async def test_a_removal_is_remembered_while_a_host_that_may_run_the_app_is_away(scene: Scene) -> None:
    """Guards invariant 6."""
    assert scene.office.conductor._may_run("gone")
    scene.report({})
    assert not scene.office.conductor._may_run("gone")
    scene.report({WorkerId("gone", "a", 1, 1): READY})
    assert scene.office.conductor._may_run("gone")
