"""How many workers, as people write it: 8, "+2", "cpu"."""

import re
from dataclasses import dataclass

from fleet.v1 import control_pb2

_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Size:
    """One of: so many workers, so many more, one per core (both None)."""

    absolute: int | None = None
    relative: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Size":
        """ValueError says what is wrong."""
        if text == "cpu":
            return cls()
        match = re.fullmatch(r"(\+?)([0-9]+)", text)
        if match is None or len(text) > len(str(_MOST)) or int(match[2]) > _MOST:
            shrink = "; to shrink, write the number of workers to keep" if text.startswith("-") else ""
            raise ValueError(f"size {text!r} is not valid: write 8, +2 (two more) or cpu (one per core){shrink}")
        number = int(match[2])
        if match[1]:
            if number == 0:
                raise ValueError("size '+0' changes nothing: write 8, +2 (two more) or cpu (one per core)")
            return cls(relative=number)
        return cls(absolute=number)

    def to_proto(self) -> control_pb2.SizeChange:
        if self.absolute is not None:
            return control_pb2.SizeChange(absolute=self.absolute)
        if self.relative is not None:
            return control_pb2.SizeChange(relative=self.relative)
        return control_pb2.SizeChange(per_cpu=True)
