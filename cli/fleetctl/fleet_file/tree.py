"""A file's content with the place of every value, whatever format it was written in; and complaints that name places. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

MOST_TOLD = 20
_MOST_SHOWN = 400
Path_ = tuple[str | int, ...]
"""Where a value lies in a file: ("apps", "shop", "command", 0)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """`text` is as it was written, without quotes: where a text is wanted, 1.10 stays 1.10 and 027 stays 027."""

    value: str | int | float | bool | None
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Items:
    items: "tuple[Tree, ...]"
    place: Place


@dataclass(frozen=True, slots=True)
class Table:
    entries: "Mapping[str, Tree]"
    place: Place
    keys: Mapping[str, Place] = field(default_factory=dict)
    """Where each key stands."""


Tree = Scalar | Items | Table


@dataclass(frozen=True, slots=True)
class Complaint:
    file: str
    place: Place | None
    field: str
    """The field as it is written in the file, "apps.shop.ready.path"; empty: the file as a whole."""
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.place.line}:{self.place.column}" if self.place else self.file
        return one_line(f"{where}: {self.field}: {self.message}" if self.field else f"{where}: {self.message}")


def one_line(text: str) -> str:
    """What a file says, for a terminal: what does not print is written as Python writes it, and of a long text the middle is
    left out."""
    if len(text) > _MOST_SHOWN:
        half = _MOST_SHOWN // 2
        text = f"{text[:half]} … {text[-half:]}"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


class FleetFileError(ValueError):
    """The file cannot be taken as it is. `complaints`, at least one, are in the file's order; each is one line."""

    def __init__(self, complaints: Iterable[Complaint]) -> None:
        self.complaints = sorted(
            complaints, key=lambda each: (each.place.line, each.place.column) if each.place else (0, 0)
        )
        super().__init__("\n".join(map(str, self.complaints)))


def refuse(file: Path | str, place: Place | None, message: str, where: str = "") -> FleetFileError:
    """To be raised: one complaint."""
    return FleetFileError([Complaint(str(file), place, where, message)])


def dotted(path: Path_) -> str:
    """("apps", "shop", "command", 0) → "apps.shop.command[0]"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean …?" where one of `known` is near, else what there is, if that is short."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f": did you mean {close[0]}?"
    return f": there are {', '.join(names)}" if names and len(names) <= MOST_TOLD else ""


def plain(tree: Tree) -> Any:
    """The content alone, as json.loads would give it."""
    if isinstance(tree, Scalar):
        return tree.value
    if isinstance(tree, Items):
        return [plain(item) for item in tree.items]
    return {key: plain(value) for key, value in tree.entries.items()}
