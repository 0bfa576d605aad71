"""Which server slot of a HAProxy backend holds which target: pure planning, no I/O.

A slot goes free → active → draining → quarantined → free. Quarantined means: in maintenance, but sessions or idle connections
may still lead to its old target; HAProxy 2.6 sends requests to the old address when such a slot gets a new one. So the address
of a slot is changed only while it is free, and it becomes free only by a sample, taken in maintenance, that shows nothing left.
Between quarantined and draining or active a slot moves freely as long as its target stays the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from fleet_balancer.driver import Target

BLOCK = 16
"""Slots are made in multiples of this many."""


class SlotState(Enum):
    FREE = "free"
    ACTIVE = "active"
    DRAINING = "draining"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Slot:
    """One server line. `number` counts from 1; `target` is what the server's address is, meaningless while free."""

    number: int
    state: SlotState = SlotState.FREE
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One slot's next state. `new_address`: the address must be set before the state."""

    slot: Slot
    new_address: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    changes: tuple[Change, ...]
    missing: tuple[Target, ...]
    """Targets for which no slot is free: release quarantined slots, or grow; the ready ones first."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What leads to a server at one moment: sessions, queued requests, connections in use, idle pooled connections."""

    sessions: int = 0
    queued: int = 0
    used: int = 0
    idle: int = 0

    @property
    def clean(self) -> bool:
        return not (self.sessions or self.queued or self.used or self.idle)

    @property
    def in_flight(self) -> int:
        """Requests, streams and upgraded connections; idle pooled connections are none of them."""
        return self.sessions + self.queued

    def __add__(self, other: "Sample") -> "Sample":
        return Sample(
            self.sessions + other.sessions, self.queued + other.queued, self.used + other.used, self.idle + other.idle
        )


def capacity(targets: int) -> int:
    """How many slots to make for so many targets: room for each to be replaced once while its slot is in quarantine."""
    blocks = -(-(2 * targets + 1) // BLOCK)
    return max(1, blocks) * BLOCK


def initial(targets: Mapping[Target, bool], size: int) -> tuple[Slot, ...]:
    """The slots of a fresh backend: ready targets only, for nothing is in flight there yet that could drain."""
    ready = sorted(target for target, draining in targets.items() if not draining)
    if len(ready) > size:
        raise ValueError(f"{len(ready)} targets do not fit into {size} slots")
    held = [Slot(number, SlotState.ACTIVE, target) for number, target in enumerate(ready, start=1)]
    return (*held, *(Slot(number) for number in range(len(held) + 1, size + 1)))


def plan(slots: Iterable[Slot], targets: Mapping[Target, bool], *, keeps: bool = False) -> Plan:
    """What to change so that exactly the `targets` that do not drain are active.

    A draining target without a slot needs none, unless the pool `keeps` clients with their worker while it drains: then it gets
    one if there is one.
    """
    changes: list[Change] = []
    free: list[Slot] = []
    placed: set[Target] = set()
    for slot in slots:
        if slot.state is SlotState.FREE or slot.target is None:
            free.append(slot)
            continue
        wanted = _wanted(slot.target, targets)
        if slot.target in placed:
            wanted = SlotState.QUARANTINED
        elif wanted is not SlotState.QUARANTINED:
            placed.add(slot.target)
        if slot.state is not wanted:
            changes.append(Change(Slot(slot.number, wanted, slot.target)))
    homeless = sorted(
        target for target, draining in targets.items() if (keeps or not draining) and target not in placed
    )
    homeless.sort(key=lambda target: targets[target])
    # A free slot that holds the wanted address already needs no swap of it.
    remembered: dict[Target | None, Slot] = {slot.target: slot for slot in free if slot.target in homeless}
    spare = iter([slot for slot in free if remembered.get(slot.target) is not slot])
    missing: list[Target] = []
    for target in homeless:
        slot_or_none = remembered.get(target) or next(spare, None)
        state = _wanted(target, targets)
        if slot_or_none is None:
            missing.append(target)
        else:
            changes.append(Change(Slot(slot_or_none.number, state, target), slot_or_none.target != target))
    return Plan(tuple(changes), tuple(missing))


def _wanted(target: Target, targets: Mapping[Target, bool]) -> SlotState:
    if target not in targets:
        return SlotState.QUARANTINED
    return SlotState.DRAINING if targets[target] else SlotState.ACTIVE


def changed(slots: tuple[Slot, ...], changes: Iterable[Change]) -> tuple[Slot, ...]:
    """`slots` after `changes`."""
    table = {slot.number: slot for slot in slots}
    table.update((change.slot.number, change.slot) for change in changes)
    return tuple(table[slot.number] for slot in slots)


def released(slots: tuple[Slot, ...], samples: Mapping[int, Sample]) -> tuple[Slot, ...]:
    """`slots` with those quarantined ones free whose sample, by slot number, is clean."""
    return tuple(
        Slot(slot.number, SlotState.FREE, slot.target)
        if slot.state is SlotState.QUARANTINED and slot.number in samples and samples[slot.number].clean
        else slot
        for slot in slots
    )
