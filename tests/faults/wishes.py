"""What a controller would want of the host: targets, changed as an operator's commands and rollouts change them. Pure."""

from collections.abc import Mapping
from itertools import count

from tests.faults.evidence import Key

RUN, STOP = "run", "stop"


class Wishes:
    """No generation comes back: a slot that is filled again, or anew, gets the next one."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.targets: dict[Key, str] = {}
        self._generations: dict[tuple[str, int], count[int]] = {}
        for app, size in sizes.items():
            self.resize(app, size)

    def resize(self, app: str, size: int) -> None:
        """Slots over `size` are told to stop, those missing are filled."""
        for key in self.targets:
            if key.app == app and key.slot > size:
                self.targets[key] = STOP
        for slot in range(1, size + 1):
            if not self._running(app, slot):
                self._fill(app, slot)

    def replace(self, app: str, pick: float) -> None:
        """A new generation beside the old one. A slot whose replacement is under way is left alone."""
        slots = sorted({key.slot for key, phase in self.targets.items() if key.app == app and phase == RUN})
        slot = slots[int(pick * len(slots))]
        if len(self._running(app, slot)) == 1:
            self._fill(app, slot)

    def observe(self, states: Mapping[Key, str]) -> bool:
        """Go on with what the host reports: the old stops once the new is ready, and is dropped once it has exited.

        Returns whether anything is wanted that was not.
        """
        before = dict(self.targets)
        for key in before:
            newer = [other for other in self._running(*key[:2]) if other.generation > key.generation]
            if any(states.get(other) == "READY" for other in newer):
                self.targets[key] = STOP
        for key, phase in before.items():
            # What was never reported may be on its way still: it is dropped too, and must then not come.
            if phase == STOP and states.get(key, "EXITED") in ("EXITED", "FAILED"):
                del self.targets[key]
        return self.targets != before

    def nothing(self) -> None:
        self.targets.clear()

    @property
    def settled(self) -> set[Key] | None:
        """The workers that shall run, once nothing is under way any more."""
        slots = {key[:2] for key in self.targets}
        return None if STOP in self.targets.values() or len(slots) < len(self.targets) else set(self.targets)

    def _running(self, app: str, slot: int) -> list[Key]:
        return [key for key, phase in self.targets.items() if key[:2] == (app, slot) and phase == RUN]

    def _fill(self, app: str, slot: int) -> None:
        generation = next(self._generations.setdefault((app, slot), count(1)))
        self.targets[Key(app, slot, generation)] = RUN
