"""The shell: one decision is begun once, under a lease that is held, and when its time has come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

import pytest

from fleet.v1 import agent_pb2
from fleet_controller.desired import Desired
from fleet_controller.hosts import Hosts
from fleet_controller.outbox import Outbox
from fleet_controller.records import (
    AppRecord,
    HostRecord,
    Record,
    RevisionRecord,
    RolloutKind,
    RolloutRecord,
    RolloutState,
    Scheduling,
    app_key,
    host_key,
    revision_key,
    rollout_key,
)
from fleet_controller.relocator import Relocator
from fleet_controller.store.interface import Changes, Conflict, Item, StoreUnavailable
from fleet_core.ids import Epoch
from fleet_core.spec import AppSpec, PlacementPolicy

DEADLINE = 10.0


class Scene:
    """Desired state that is written to at once, three hosts that report, and a lease that can be doubted."""

    def __init__(self) -> None:
        self.desired = Desired()
        self.held = True
        self.failures: list[Exception] = []
        self.revision = 1
        clock = asyncio.get_running_loop().time
        self.hosts = Hosts(clock)
        self.relocator = Relocator(self.desired, self.hosts, self, Epoch(1, 7), self.commit, clock)
        self.sessions: dict[str, Outbox[agent_pb2.ControllerMessage]] = {}
        self.reads: list[set[str]] = []
        self.written = asyncio.Event()

    def provable(self) -> bool:
        return self.held

    async def write(self, *records: tuple[str, Record | None]) -> None:
        self.revision += 1
        items = [(k, None if r is None else Item(k, r.encode(), self.revision, self.revision)) for k, r in records]
        await self.desired.take(Changes(self.revision, tuple(items)))
        self.relocator.touch()

    async def commit(self, reads: Iterable[str], writes: Iterable[tuple[str, Record | None]]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.reads.append(set(reads))
        await self.write(*writes)
        self.written.set()

    async def furnish(self, *names: str, apps: int = 1, lost_after: float = 600) -> None:
        spec = AppSpec(name="app0", argv=("app",), cwd="/", placement=PlacementPolicy(lost_after_seconds=lost_after))
        for name in names:
            await self.write((host_key(name), HostRecord(name=name, uid=name)))
            self.connect(name)
        for number in range(apps):
            app = AppRecord(name=f"app{number}", placement=dict.fromkeys(names, 1))
            await self.write((app_key(app.name), app), (revision_key(app.name, 1), RevisionRecord.of(spec, 1)))

    def connect(self, name: str) -> None:
        self.sessions[name] = Outbox()
        host = self.hosts.join(agent_pb2.AgentHello(host_name=name, host_uid=name), self.sessions[name])
        self.hosts.report(host, agent_pb2.WorkerReport(complete=True))
        self.relocator.touch()

    def lose(self, name: str) -> None:
        host = self.hosts.get(name)
        assert host is not None
        self.hosts.leave(host, self.sessions.pop(name))
        self.relocator.touch()

    async def drain(self, name: str) -> None:
        await self.write((host_key(name), HostRecord(name=name, uid=name, scheduling=Scheduling.DRAINING)))

    def rollouts(self) -> list[RolloutRecord]:
        return list(self.desired.all(RolloutRecord))

    async def end(self, rollout: RolloutRecord) -> None:
        await self.write((rollout_key(rollout.id), rollout.model_copy(update={"state": RolloutState.DONE})))

    async def until_begun(self, count: int) -> None:
        """Wait for so many rollouts, and see that there are no more."""
        while len(self.rollouts()) < count:
            await self.until_written()
        await settled()
        assert len(self.rollouts()) == count

    async def until_written(self) -> None:
        async with asyncio.timeout(DEADLINE):
            await self.written.wait()
        self.written.clear()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    task = asyncio.create_task(made.relocator.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 (the relocator tells nobody what it decided)
            await asyncio.sleep(0.001)


async def settled() -> None:
    """Let everything that is ready to run have its turns."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_drained_host_s_share_moves_by_one_rollout_that_says_why(scene: Scene) -> None:
    await scene.furnish("a", "b", "c")
    await scene.drain("b")
    await scene.until_begun(1)
    (rollout,) = scene.rollouts()
    assert (rollout.kind, rollout.cause) == (RolloutKind.MOVE, "host b is drained")
    app = scene.desired.get(app_key("app0"), AppRecord)
    assert app is not None
    assert (app.placement, app.rollout) == ({"a": 2, "c": 1}, rollout.id)
    # The decision stands only as long as the records it was made from do.
    assert scene.reads == [{app_key("app0"), rollout_key(rollout.id), host_key("a"), host_key("b")}]


async def test_a_lost_host_s_share_moves_when_its_time_has_come_without_any_news(scene: Scene) -> None:
    await scene.furnish("a", "b", "c", lost_after=0.5)
    scene.lose("b")
    await scene.until_begun(1)
    assert [rollout.cause for rollout in scene.rollouts()] == ["host b was lost for 0.5 s"]


async def test_while_the_lease_cannot_be_proved_nothing_is_begun(scene: Scene) -> None:
    await scene.furnish("a", "b")
    scene.held = False
    await scene.drain("a")
    await until(lambda: scene.relocator.last.moves)
    await settled()
    assert scene.rollouts() == []
    scene.held = True
    await scene.until_begun(1)


@pytest.mark.parametrize("failure", [Conflict("changed"), StoreUnavailable("away"), TimeoutError()])
async def test_what_could_not_be_written_is_tried_again(scene: Scene, failure: Exception) -> None:
    await scene.furnish("a", "b")
    scene.failures = [failure]
    await scene.drain("a")
    await scene.until_begun(1)


async def test_the_move_waits_for_the_rollout_under_way_and_begins_at_its_end(scene: Scene) -> None:
    await scene.furnish("a", "b")
    other = RolloutRecord(id="r", app="app0", kind=RolloutKind.RESTART, revision=1, generation=1)
    app = AppRecord(name="app0", placement={"a": 1, "b": 1}, rollout="r")
    await scene.write((rollout_key("r"), other), (app_key("app0"), app))
    await scene.drain("a")
    await until(lambda: scene.relocator.notices("app0"))
    assert [rollout.id for rollout in scene.rollouts()] == ["r"]
    assert "until the rollout under way ended" in scene.relocator.notices("app0")[0]
    await scene.end(other)
    await scene.until_begun(2)
    assert {rollout.kind for rollout in scene.rollouts()} == {RolloutKind.RESTART, RolloutKind.MOVE}
    await until(lambda: not scene.relocator.notices("app0"))


async def test_a_lost_host_s_share_moves_within_the_rollout_that_goes_back(scene: Scene) -> None:
    await scene.furnish("a", "b", "c", lost_after=0.2)
    going = RolloutRecord(
        id="r",
        app="app0",
        kind=RolloutKind.UPDATE,
        state=RolloutState.ROLLING_BACK,
        revision=1,
        generation=2,
        message="aborted",
    )
    app = AppRecord(name="app0", placement={"a": 1, "b": 1, "c": 1}, rollout="r")
    await scene.write((rollout_key("r"), going), (app_key("app0"), app))
    scene.lose("c")
    await scene.until_written()
    await settled()
    moved = scene.desired.get(app_key("app0"), AppRecord)
    assert moved == app.model_copy(update={"placement": {"a": 2, "b": 1}})
    message = "aborted; host c was lost for 0.2 s, so its workers were started elsewhere"
    assert scene.rollouts() == [going.model_copy(update={"message": message})]
    assert scene.reads == [{app_key("app0"), rollout_key("r"), host_key("a"), host_key("c")}]


async def test_the_end_of_one_app_s_move_lets_the_next_app_s_begin(scene: Scene) -> None:
    await scene.furnish("a", "b", apps=10)
    await scene.drain("a")
    await scene.until_begun(8)
    await scene.end(scene.rollouts()[0])
    await scene.until_begun(9)


async def test_a_lost_host_that_comes_back_in_time_moves_nothing(scene: Scene) -> None:
    await scene.furnish("a", "b", "c")
    for _ in range(3):
        scene.lose("b")
        await until(lambda: scene.relocator.last.wake_at is not None)
        scene.connect("b")
        await until(lambda: scene.relocator.last.wake_at is None)
    assert scene.rollouts() == []
