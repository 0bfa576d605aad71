"""Names of things: apps, hosts, workers, epochs."""

import re
from dataclasses import dataclass

from fleet.v1 import types_pb2

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check_name(kind: str, name: str) -> str:
    """Return `name`, or raise ValueError in words a user can act on. The rule is a DNS label's (RFC 1123 §2.1)."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"{kind} name {name!r} is not valid: use up to 63 of a-z, 0-9 and -, starting and ending with a letter or digit"
        )
    return name


def check_label(key: str, value: str) -> None:
    """Raise ValueError, in words a user can act on, unless `key=value` may label a host."""
    if _LABEL.fullmatch(key) is None or (value and _LABEL.fullmatch(value) is None):
        raise ValueError(
            f"label {f'{key}={value}'!r} is not valid: write KEY=VALUE, each of letters, digits, '.', '_', '/' and '-', up to 63"
        )


@dataclass(frozen=True, order=True, slots=True)
class Epoch:
    """Who leads, totally ordered. `Epoch(0, 0)` is before every real one."""

    era: int = 0
    election_revision: int = 0

    @classmethod
    def from_proto(cls, message: types_pb2.Epoch) -> "Epoch":
        return cls(message.era, message.election_revision)

    def to_proto(self) -> types_pb2.Epoch:
        return types_pb2.Epoch(era=self.era, election_revision=self.election_revision)

    def __str__(self) -> str:
        return f"{self.era}.{self.election_revision}"


@dataclass(frozen=True, order=True, slots=True)
class SlotId:
    """A stable worker position: `my-app/prod1/3`."""

    app: str
    host: str
    slot: int

    def __str__(self) -> str:
        return f"{self.app}/{self.host}/{self.slot}"

    @classmethod
    def parse(cls, text: str) -> "SlotId":
        """Read `app/host/slot`; ValueError says what is wrong."""
        app, _, rest = text.partition("/")
        host, _, slot = rest.partition("/")
        if not (app and host and slot.isdecimal() and slot.isascii() and int(slot) > 0):
            raise ValueError(f"worker {text!r} is not valid: write APP/HOST/SLOT, for example my-app/prod1/3")
        return cls(app, host, int(slot))


@dataclass(frozen=True, order=True, slots=True)
class WorkerId:
    """One worker of the fleet: a slot and which of its deliberate replacements."""

    app: str
    host: str
    slot: int
    generation: int

    @classmethod
    def of(cls, slot: SlotId, generation: int) -> "WorkerId":
        return cls(slot.app, slot.host, slot.slot, generation)

    @property
    def slot_id(self) -> SlotId:
        return SlotId(self.app, self.host, self.slot)

    @classmethod
    def from_proto(cls, message: types_pb2.WorkerId) -> "WorkerId":
        return cls(message.app, message.host, message.slot, message.generation)

    def to_proto(self) -> types_pb2.WorkerId:
        return types_pb2.WorkerId(app=self.app, host=self.host, slot=self.slot, generation=self.generation)

    def __str__(self) -> str:
        return f"{self.app}/{self.host}/{self.slot}@{self.generation}"
