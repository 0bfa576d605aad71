"""Which etcd is the fleet's, judged from what agents and balancers remember."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fleet_controller.leader import LEADER_KEY, Election, Term
from fleet_controller.lineage import Halted, Lineage, Remembered, establish
from fleet_controller.records import FLEET_KEY, FleetRecord
from fleet_controller.store.interface import Delete, Put
from fleet_core.ids import Epoch
from tests.unit.memory_store import MemoryStore

FLEET = FleetRecord(id="f1", era=2)


class Scene:
    """A leader whose term began at revision `term.create_revision`, after some history."""

    def __init__(self, store: MemoryStore, term: Term) -> None:
        self.store = store
        self.term = term
        self.inhabited = True
        self.lineage = Lineage(FLEET, store, term, lambda: self.inhabited)

    def peer(self, era: int, revision: int, *, told: int = 0, uid: str = "u1", fleet_id: str = "f1") -> Remembered:
        return Remembered("host h1", uid, fleet_id, Epoch(era, revision), told)

    async def refusal(self, era: int, revision: int, *, told: int = 0, uid: str = "u1", fleet_id: str = "f1") -> str:
        return await self.lineage.check(self.peer(era, revision, told=told, uid=uid, fleet_id=fleet_id))


@asynccontextmanager
async def leading() -> AsyncIterator[Scene]:
    store = MemoryStore()
    for _ in range(20):
        await store.commit([], [Put("/fleet/v1/apps/a", b"x")])
    term = await Election(store, b"{}").campaign()
    try:
        yield Scene(store, term)
    finally:
        await term.resign()
        await store.close()


async def test_who_obeyed_earlier_leaders_of_this_etcd_is_welcome() -> None:
    async with leading() as scene:
        began = scene.term.create_revision
        assert await scene.refusal(0, 0, fleet_id="") == ""
        assert await scene.refusal(2, began - 5, told=began - 1) == ""
        assert await scene.refusal(1, began + 1_000, told=began + 2_000) == "", "of an era that a restore ended"
        # It dials again, having obeyed us, and was told of our last change.
        scene.term.committed(began + 3)
        assert await scene.refusal(2, began, told=began + 3) == ""
        assert scene.lineage.trouble == ""


@pytest.mark.parametrize(
    ("era", "offset", "told", "uid"),
    [
        (2, 1, 0, "u1"),  # a later epoch
        (3, -10, 0, "u1"),  # a later era
        (2, -5, 0, "u1"),  # an earlier epoch that saw a later change: an etcd put back to before that change
        (2, 0, 0, "other"),  # our very epoch, from somebody we never spoke to
        (2, 0, 7, "u1"),  # our epoch, and a change we did not make
    ],
)
async def test_what_cannot_be_of_this_etcds_past_halts_everything(era: int, offset: int, told: int, uid: str) -> None:
    """Guards invariant 4."""
    async with leading() as scene:
        began = scene.term.create_revision
        assert await scene.refusal(1, 1) == ""  # u1 was welcomed in this term
        found = await scene.refusal(era, began + offset, told=began + told if (told or offset == -5) else 0, uid=uid)
        assert found.startswith("etcd is older than the fleet: host h1 ")
        assert "`fleetctl restore FILE`" in found
        assert await scene.refusal(1, 1, uid="u2") == found, "it stays so for everybody, until the term ends"
        with pytest.raises(Halted):
            scene.lineage.require_sound()


async def test_a_leader_that_was_replaced_refuses_and_does_not_blame_etcd() -> None:
    async with leading() as scene:
        await scene.store.commit([], [Delete(LEADER_KEY)])
        found = await scene.refusal(2, scene.term.create_revision + 4)
        assert found.endswith("another controller leads")
        assert scene.lineage.trouble == ""


async def test_an_etcd_out_of_reach_proves_nothing() -> None:
    async with leading() as scene:
        scene.store.set_available(available=False)
        assert "cannot be found out" in await scene.refusal(2, scene.term.create_revision + 4)
        assert scene.lineage.trouble == ""
        scene.store.set_available(available=True)


async def test_an_empty_etcd_is_older_than_hosts_of_another_fleet_and_an_inhabited_one_is_not() -> None:
    async with leading() as scene:
        refused = await scene.refusal(0, 0, fleet_id="f2")
        assert "belongs to fleet f2, this is fleet f1" in refused
        assert scene.lineage.trouble == ""
        scene.inhabited = False
        assert "etcd is older than the fleet: it is empty" in await scene.refusal(0, 0, fleet_id="f2")
        assert scene.lineage.trouble


async def test_a_half_restore_halts_and_says_what_to_do() -> None:
    async with leading() as scene:
        halted = Lineage(FLEET.model_copy(update={"restoring": "d1"}), scene.store, scene.term, lambda: True)
        assert "say `fleetctl restore FILE` again" in halted.trouble


async def test_the_fleets_record_is_made_once() -> None:
    async with leading() as scene:
        made = await establish(scene.store, scene.term)
        assert made is not None
        assert made.era == 1
        assert await establish(scene.store, scene.term) == made
        assert FleetRecord.decode((await scene.store.read(FLEET_KEY)).items[FLEET_KEY].value) == made
