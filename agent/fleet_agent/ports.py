"""Which port a worker listens on: two per (app, slot), alternating by generation, stable over crashes and restarts; or one that
all workers of an app share (listen mode socket), the same for as long as any of them is there.

The table is a pure value; `read_ports` and `write_ports` are its only input and output. A port that was given back waits
behind every other port, so that it goes to another app as late as the range allows.
"""

import itertools
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fleet_agent.supervisor.protocol import Key
from fleet_core.durable import write_durably

Slot = tuple[str, int]
_NONE = 0


class PortsExhaustedError(Exception):
    """No port of the range is free; the text tells an operator what to do."""


class PortsBusyError(Exception):
    """Both ports of the slot are held by other generations: wait until one has exited."""


@dataclass(frozen=True)
class SlotPorts:
    """The two ports of one (app, slot), and which generation was given which."""

    pair: tuple[int, int]
    """0 where none was chosen yet."""
    given: Mapping[int, int] = field(default_factory=dict)
    """Generation → port."""


@dataclass(frozen=True)
class PortTable:
    """All ports given out on this host. Invariant: no port belongs to two slots, or to a slot and a shared socket."""

    first: int
    last: int
    slots: Mapping[Slot, SlotPorts] = field(default_factory=dict)
    returned: tuple[int, ...] = ()
    """Ports that were given back, the longest ago first."""
    shared: Mapping[str, int] = field(default_factory=dict)
    """App → the port of the socket its workers share."""

    def port_of(self, key: Key) -> int:
        """The port this worker was given; 0: none."""
        held = self.slots.get((key.app, key.slot))
        return held.given.get(key.generation, 0) if held else 0

    def give(self, key: Key, used: Collection[int], listening: Collection[int]) -> "PortTable":
        """The table in which `key` has a port. One it has already stays, unless something listens there.

        `used` are the ports of other workers that live or are about to; `listening` those on which anything listens now. A
        worker with a process is never asked for here: its port is a fact. Raises PortsExhaustedError, PortsBusyError.
        """
        slot = (key.app, key.slot)
        taken = {*used, *listening, _NONE}
        if self.port_of(key) and self.port_of(key) not in taken:
            return self
        held = self.slots.get(slot) or SlotPorts((_NONE, _NONE))
        index = key.generation % 2
        if held.pair[index] in used:
            index = 1 - index
        if held.pair[index] in used:
            raise PortsBusyError(
                f"both ports of {key.app} slot {key.slot} are held by other generations; waiting until one has exited"
            )
        pair, returned = list(held.pair), self.returned
        for place in range(2):
            if pair[place] == _NONE or (place == index and pair[place] in taken):
                fresh = self._free({*taken, *pair})
                returned = tuple(port for port in (*returned, pair[place]) if port not in (fresh, _NONE))
                pair[place] = fresh
        held = SlotPorts((pair[0], pair[1]), {**held.given, key.generation: pair[index]})
        return replace(self, slots={**self.slots, slot: held}, returned=returned)

    def share(self, app: str, used: Collection[int], listening: Collection[int]) -> "PortTable":
        """The table in which `app` has a port for its shared socket. One it has already stays: what listens there is that socket.

        Raises PortsExhaustedError.
        """
        if app in self.shared:
            return self
        port = self._free({*used, *listening})
        returned = tuple(other for other in self.returned if other != port)
        return replace(self, shared={**self.shared, app: port}, returned=returned)

    def adopt_shared(self, ports: Mapping[str, int]) -> "PortTable":
        """As `adopt`, for the sockets live workers really share."""
        if all(self.shared.get(app) == port for app, port in ports.items()):
            return self
        wrong = {app for app, port in self.shared.items() if port in ports.values()}
        shared = {**{app: port for app, port in self.shared.items() if app not in wrong}, **ports}
        slots = {slot: held for slot, held in self.slots.items() if not set(held.pair) & set(ports.values())}
        returned = tuple(port for port in self.returned if port not in ports.values())
        return replace(self, slots=slots, shared=shared, returned=returned)

    def adopt(self, ports: Mapping[Key, int]) -> "PortTable":
        """The table that agrees with the ports live workers really have: the supervisor's word wins over the file's."""
        slots = dict(self.slots)
        for key, port in ports.items():
            slot = (key.app, key.slot)
            if not port or self.port_of(key) == port:
                continue
            held = slots.get(slot)
            if held is None or port not in held.pair:
                slots = {other: kept for other, kept in slots.items() if port not in kept.pair}
                held = slots.get(slot) or SlotPorts((_NONE, _NONE))
                index = key.generation % 2
                pair = (port, held.pair[1]) if index == 0 else (held.pair[0], port)
                held = replace(held, pair=pair)
            slots[slot] = replace(held, given={**held.given, key.generation: port})
        shared = {app: port for app, port in self.shared.items() if port not in ports.values()}
        if slots == self.slots and shared == self.shared:
            return self
        held_ports = {port for kept in slots.values() for port in kept.pair}
        return replace(
            self, slots=slots, shared=shared, returned=tuple(port for port in self.returned if port not in held_ports)
        )

    def keep_only(self, keys: Iterable[Key], sharing: Collection[str] = ()) -> "PortTable":
        """Give back what belongs to no one in `keys`, and the shared port of every app not in `sharing`."""
        kept: dict[Slot, set[int]] = {}
        for key in keys:
            kept.setdefault((key.app, key.slot), set()).add(key.generation)
        slots: dict[Slot, SlotPorts] = {}
        freed: list[int] = []
        for slot, held in self.slots.items():
            if slot not in kept:
                freed.extend(port for port in held.pair if port != _NONE)
                continue
            given = {generation: port for generation, port in held.given.items() if generation in kept[slot]}
            slots[slot] = held if given == held.given else replace(held, given=given)
        shared = {app: port for app, port in self.shared.items() if app in sharing}
        freed.extend(port for app, port in self.shared.items() if app not in shared)
        if not freed and slots == self.slots:
            return self
        returned = (*(port for port in self.returned if port not in freed), *dict.fromkeys(freed))
        return replace(self, slots=slots, shared=shared, returned=returned)

    def _free(self, taken: Collection[int]) -> int:
        held = {*self.shared.values(), *(port for kept in self.slots.values() for port in kept.pair)}
        returned = set(self.returned)
        never_used = (port for port in range(self.first, self.last + 1) if port not in returned)
        for port in itertools.chain(never_used, self.returned):
            if port not in held and port not in taken and self.first <= port <= self.last:
                return port
        raise PortsExhaustedError(
            f"no free port in {self.first}-{self.last}: widen `ports` in the agent's configuration, or run fewer workers here"
        )


def read_ports(path: Path, first: int, last: int) -> PortTable:
    """The table of `path` for this range; empty when there is no file. Raises OSError, ValueError."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return PortTable(first, last)
    try:
        content = json.loads(text)
        slots = {
            (str(entry["app"]), int(entry["slot"])): SlotPorts(
                (int(entry["pair"][0]), int(entry["pair"][1])),
                {int(generation): int(port) for generation, port in entry["given"].items()},
            )
            for entry in content["slots"]
        }
        returned = tuple(int(port) for port in content["returned"])
        shared = {str(app): int(port) for app, port in content.get("shared", {}).items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a table of ports: {error!r}; move it away, ports of live workers are kept"
        ) from error
    return PortTable(first, last, slots, returned, shared)


def write_ports(path: Path, table: PortTable) -> None:
    """Raises OSError."""
    slots = [
        {"app": app, "slot": slot, "pair": list(held.pair), "given": {str(g): p for g, p in held.given.items()}}
        for (app, slot), held in table.slots.items()
    ]
    content = {"slots": slots, "returned": list(table.returned), "shared": dict(table.shared)}
    write_durably(path, json.dumps(content).encode())
