"""The slot planner, by example and as a state machine beside a model of HAProxy."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fleet_balancer.driver import Target
from fleet_balancer.haproxy.slots import (
    BLOCK,
    Change,
    Sample,
    Slot,
    SlotState,
    capacity,
    changed,
    initial,
    plan,
    released,
)

A, B, C = (Target("127.0.0.1", port) for port in (1, 2, 3))


def test_a_ready_target_takes_a_free_slot() -> None:
    assert plan([Slot(1, SlotState.ACTIVE, A), Slot(2)], {A: False, B: False}).changes == (
        Change(Slot(2, SlotState.ACTIVE, B), new_address=True),
    )


def test_what_is_as_wanted_is_left_alone() -> None:
    table = [Slot(1, SlotState.ACTIVE, A), Slot(2, SlotState.DRAINING, B), Slot(3, SlotState.QUARANTINED, C)]
    assert plan(table, {A: False, B: True}).changes == ()


def test_a_target_that_left_is_quarantined_and_its_slot_not_given_away() -> None:
    result = plan([Slot(1, SlotState.ACTIVE, A)], {B: False})
    assert result.changes == (Change(Slot(1, SlotState.QUARANTINED, A)),)
    assert result.missing == (B,)


def test_a_quarantined_target_that_returns_needs_no_new_address() -> None:
    assert plan([Slot(1, SlotState.QUARANTINED, A)], {A: False}).changes == (Change(Slot(1, SlotState.ACTIVE, A)),)


def test_a_free_slot_that_has_the_address_is_preferred() -> None:
    table = [Slot(1, SlotState.FREE, B), Slot(2, SlotState.FREE, A)]
    assert plan(table, {A: False}).changes == (Change(Slot(2, SlotState.ACTIVE, A)),)


def test_a_draining_target_without_a_slot_needs_none() -> None:
    assert plan([Slot(1)], {A: True}) == plan([], {})


@pytest.mark.parametrize("sample", [Sample(sessions=1), Sample(queued=1), Sample(used=1), Sample(idle=1)])
def test_a_slot_with_anything_left_stays_quarantined(sample: Sample) -> None:
    table = (Slot(1, SlotState.QUARANTINED, A), Slot(2, SlotState.QUARANTINED, B))
    assert released(table, {1: sample, 2: Sample()}) == (table[0], Slot(2, SlotState.FREE, B))


def test_idle_pooled_connections_are_no_requests_in_flight() -> None:
    assert Sample(sessions=2, queued=1, used=5, idle=7).in_flight == 3


def test_capacity_comes_in_blocks_with_room_to_replace_all() -> None:
    assert [capacity(count) for count in (0, 1, 7, 8, 16)] == [BLOCK, BLOCK, BLOCK, 2 * BLOCK, 3 * BLOCK]


def test_too_few_slots_for_a_fresh_backend_are_refused() -> None:
    with pytest.raises(ValueError, match="2 targets do not fit"):
        initial({A: False, B: False}, 1)


TARGETS = st.integers(1, 6).map(lambda port: Target("127.0.0.1", port))


class PlannerBesideHaproxy(RuleBasedStateMachine):
    """Lists come and go, sessions linger or end; HAProxy is modelled as server addresses with what leads to them.

    Guards invariant 7: no session ever leads to another target than the one it was opened for, and only listed ready targets
    are chosen.
    """

    @initialize(wanted=st.dictionaries(TARGETS, st.booleans(), max_size=4))
    def begin(self, wanted: dict[Target, bool]) -> None:
        self.wanted = wanted
        self.table = initial(wanted, 5)
        self.addresses = {slot.number: slot.target for slot in self.table}
        self.lingering: dict[int, list[Target | None]] = {slot.number: [] for slot in self.table}
        self.missing: tuple[Target, ...] = ()

    @rule(wanted=st.dictionaries(TARGETS, st.booleans(), max_size=5))
    def apply(self, wanted: dict[Target, bool]) -> None:
        self.wanted = wanted
        result = plan(self.table, wanted)
        for change in result.changes:
            number = change.slot.number
            if change.new_address:
                assert not self.lingering[number], "an address was swapped under living sessions"
                self.addresses[number] = change.slot.target
            assert self.addresses[number] == change.slot.target
        self.table = changed(self.table, result.changes)
        self.missing = result.missing

    @rule(number=st.integers(1, 5))
    def open_session(self, number: int) -> None:
        if self.table[number - 1].state is SlotState.ACTIVE:
            self.lingering[number].append(self.addresses[number])

    @rule(number=st.integers(1, 5))
    def end_session(self, number: int) -> None:
        if self.lingering[number]:
            self.lingering[number].pop()

    @rule()
    def release(self) -> None:
        self.table = released(self.table, {number: Sample(idle=len(found)) for number, found in self.lingering.items()})

    @invariant()
    def chosen_are_exactly_the_ready_targets_that_found_a_slot(self) -> None:
        active = [slot.target for slot in self.table if slot.state is SlotState.ACTIVE]
        assert len(set(active)) == len(active), "one target in two slots"
        assert {*active, *self.missing} == {target for target, draining in self.wanted.items() if not draining}
        assert not set(active) & set(self.missing)

    @invariant()
    def sessions_lead_where_they_were_opened(self) -> None:
        for number, found in self.lingering.items():
            assert all(target == self.addresses[number] for target in found)

    @invariant()
    def a_free_slot_has_no_session(self) -> None:
        assert not any(self.lingering[slot.number] for slot in self.table if slot.state is SlotState.FREE)


TestPlannerBesideHaproxy = PlannerBesideHaproxy.TestCase
