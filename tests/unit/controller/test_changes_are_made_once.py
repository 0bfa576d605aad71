"""A change under one request id is made once, whatever becomes of its answer; and only by the leader. Guards invariant 5."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from fleet.v1 import control_pb2
from fleet_controller.artifact_homes import FolderHome
from fleet_controller.artifacts import ArtifactStore
from fleet_controller.leader import LEADER_KEY
from fleet_controller.leadership import Leadership
from fleet_controller.records import (
    AppRecord,
    AppState,
    BalancerRecord,
    ControllerRecord,
    HostRecord,
    RevisionRecord,
    app_key,
    controller_key,
    host_key,
    revision_key,
)
from fleet_controller.services.balancer_service import BalancerService
from fleet_controller.services.control_artifacts import ArtifactCalls
from fleet_controller.services.control_desk import Desk
from fleet_controller.services.control_service import ControlService
from fleet_controller.services.log_relay import LogRelay
from fleet_controller.store.interface import Conflict, Put, StoreUnavailable
from fleet_core.spec import AppSpec
from tests.unit.memory_store import MemoryStore

FIRST, SECOND = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


class Aborted(Exception):  # noqa: N818 (grpc's word)
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


class Call:
    """An operator's call, as far as the service looks at it."""

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_subject_alternative_name": [b"fleet://operator/ada"]}

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.trailing = metadata

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(code, details)


class Scene:
    def __init__(self, store: MemoryStore, folder: Path) -> None:
        self.store = store
        self.leadership = Leadership(store, "me", "me:1", 1.0)
        artifacts = ArtifactCalls(ArtifactStore(FolderHome(folder), folder, 1_000_000), self.leadership)
        desk = Desk(self.leadership, BalancerService(self.leadership))
        self.service = ControlService(desk, LogRelay(), artifacts, store, [])

    async def label(self, request: str, value: str) -> control_pb2.HostResponse:
        message = control_pb2.LabelHostRequest(request_id=request, host="web1", set={"zone": value})
        return await self.service.LabelHost(message, Call())  # type: ignore[arg-type]

    async def grow(self, request: str) -> control_pb2.SetSizeResponse:
        message = control_pb2.SetSizeRequest(request_id=request, app="shop", host="web1")
        message.change.relative = 1
        return await self.service.SetSize(message, Call())  # type: ignore[arg-type]

    async def host(self) -> HostRecord:
        return HostRecord.decode((await self.store.read(host_key("web1"))).items[host_key("web1")].value)

    async def size(self) -> int:
        return AppRecord.decode((await self.store.read(app_key("shop"))).items[app_key("shop")].value).size


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr("fleet_controller.leadership.GATHERING_SECONDS", 0.0)
    store = MemoryStore()
    app = AppRecord(name="shop", state=AppState.STOPPED, placement={"web1": 1})
    spec = AppSpec(name="shop", argv=("shop",), cwd="/")
    for key, record in (
        (host_key("web1"), HostRecord(name="web1", uid="u")),
        (app_key("shop"), app),
        (revision_key("shop", 1), RevisionRecord.of(spec, 1)),
    ):
        await store.commit([], [Put(key, record.encode())])
    made = Scene(store, tmp_path)
    running = asyncio.create_task(made.leadership.run())
    assert not isinstance(await made.leadership.find("", 5.0), str)
    yield made
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await store.close()


async def test_a_change_whose_answer_etcd_lost_is_confirmed_and_made_once(scene: Scene) -> None:
    scene.store.lose_next_answer()
    await scene.grow(FIRST)
    assert await scene.size() == 2
    scene.store.lose_next_answer()
    assert dict((await scene.label(SECOND, "a")).host.labels) == {"zone": "a"}
    assert (await scene.host()).requests == (SECOND,)


async def test_a_repeated_change_of_an_app_is_answered_with_what_it_began(scene: Scene) -> None:
    first = await scene.grow(FIRST)
    again = await scene.grow(FIRST)
    assert again.rollout.id == first.rollout.id == FIRST
    assert await scene.size() == 2


async def test_a_repeated_change_of_a_host_does_not_undo_what_came_after_it(scene: Scene) -> None:
    await scene.label(FIRST, "a")
    await scene.label(SECOND, "b")
    assert dict((await scene.label(FIRST, "a")).host.labels) == {"zone": "b"}


async def test_who_does_not_lead_any_more_writes_nothing_and_sends_the_caller_on(scene: Scene) -> None:
    """Guards invariant 4. It has not noticed yet that it was replaced: etcd's refusal tells it."""
    office = scene.leadership.office
    assert office is not None
    key = scene.store.take_over(LEADER_KEY, json.dumps({"name": "other", "address": "other:1"}).encode())
    assert key
    with pytest.raises(Aborted) as caught:
        await scene.label(FIRST, "a")
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert office.term.lost.is_set()
    assert (await scene.host()).given_labels == {}


async def test_a_replaced_leader_registers_neither_host_nor_balancer(scene: Scene) -> None:
    """Guards invariant 4."""
    office = scene.leadership.office
    assert office is not None
    scene.store.take_over(LEADER_KEY, json.dumps({"name": "other", "address": "other:1"}).encode())
    before = scene.store.revision
    for register in (
        office.register_host(HostRecord(name="web2", uid="v")),
        office.register_balancer(BalancerRecord(name="lb1", uid="w")),
    ):
        with pytest.raises(Conflict):
            await register
    assert scene.store.revision == before


async def test_controllers_are_told_of_and_forgotten_but_the_one_that_leads(scene: Scene) -> None:
    record = ControllerRecord(name="old", address="old:1")
    await scene.store.commit([], [Put(controller_key("old"), record.encode())])
    office = scene.leadership.office
    assert office is not None
    await office.desired.reached(scene.store.revision, 5.0)
    answer = await scene.service.ListControllers(control_pb2.ListControllersRequest(), Call())  # type: ignore[arg-type]
    assert answer.answering.leads
    assert (answer.answering.name, answer.answering.etcd_error) == ("me", "")
    assert [(each.name, each.address) for each in answer.registered] == [("me", "me:1"), ("old", "old:1")]
    forget = control_pb2.RemoveControllerRequest(request_id=FIRST, controller="old")
    await scene.service.RemoveController(forget, Call())  # type: ignore[arg-type]
    assert not (await scene.store.read(controller_key("old"))).items
    for name, code in (("me", grpc.StatusCode.FAILED_PRECONDITION), ("none", grpc.StatusCode.NOT_FOUND)):
        request = control_pb2.RemoveControllerRequest(request_id=SECOND, controller=name)
        with pytest.raises(Aborted) as caught:
            await scene.service.RemoveController(request, Call())  # type: ignore[arg-type]
        assert caught.value.code is code


async def test_a_controller_that_etcd_does_not_answer_says_so(scene: Scene) -> None:
    scene.store.set_available(available=False)
    with pytest.raises(StoreUnavailable):
        await scene.store.read("/")
    answer = await scene.service.ListControllers(control_pb2.ListControllersRequest(), Call())  # type: ignore[arg-type]
    assert answer.answering.etcd_error
    assert not answer.registered
    scene.store.set_available(available=True)
