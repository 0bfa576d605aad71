"""From a tree to the values of a spec, by its shape; every complaint is kept with its place. Pure."""

import math
import operator
import shlex
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeGuard, TypeVar

from fleet_core.checked import CheckError
from fleetctl.fleet_file.shape import UNLIMITED, Kind, Leaf, ListOf, MapOf, Section, Shape
from fleetctl.fleet_file.tree import (
    Complaint,
    FleetFileError,
    Items,
    Path_,
    Place,
    Scalar,
    Table,
    Tree,
    dotted,
    nearest,
    plain,
)
from fleetctl.wording import parse_bytes, parse_duration

_WANTED = {
    Kind.TEXT: "a text",
    Kind.INTEGER: "a whole number",
    Kind.NUMBER: "a number",
    Kind.BOOLEAN: "true or false",
    Kind.DURATION: "a duration: 30s, 5m or 1h",
    Kind.BYTES: "a size: 300M or 1.5G",
}
_UNITS = {Kind.DURATION: " seconds", Kind.BYTES: " bytes"}
_RANGES: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "minimum": (operator.ge, "at least"),
    "exclusiveMinimum": (operator.gt, "greater than"),
    "maximum": (operator.le, "at most"),
    "exclusiveMaximum": (operator.lt, "less than"),
}
_NOTHING = object()
_Number = TypeVar("_Number", int, float)


class Reader:
    """Reads one file. `complaints` grow while it reads; what cannot be read is left out, so that all is told at once."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._spots: dict[Path_, tuple[Place, str]] = {}
        self.complaints: list[Complaint] = []

    def complain(self, place: Place | None, path: Path_ | str, message: str) -> None:
        where = path if isinstance(path, str) else dotted(path)
        self.complaints.append(Complaint(self._file, place, where, message))

    def spot(self, place: Place, where: str) -> str:
        """The place of a value, as complaints begin with it."""
        return f"{self._file}:{place.line}:{place.column}: {where}"

    def finish(self) -> None:
        """Raises FleetFileError where anything was complained about."""
        if self.complaints:
            raise FleetFileError(self.complaints)

    def table(self, tree: Tree, path: Path_, known: Collection[str], what: str = "such field") -> Table:
        """`tree` as a mapping of known keys; others are complained about, and left out."""
        if not isinstance(tree, Table):
            self.complain(tree.place, path, f"{_shown(tree)} is not a mapping of fields")
            return Table({}, tree.place)
        kept = {}
        for key, value in tree.entries.items():
            if key in known:
                kept[key] = value
            else:
                self.complain(tree.keys.get(key), (*path, key), f"there is no {what}{nearest(key, known)}")
        return Table(kept, tree.place, tree.keys)

    def section(self, shape: Section, tree: Tree, path: Path_, spec_path: Path_) -> dict[str, Any]:
        """Fields of the spec, by the spec's names."""
        values: dict[str, Any] = {}
        table = self.table(tree, path, shape.fields)
        for name, value in table.entries.items():
            field = shape.fields[name]
            at = (*spec_path, field.spec_name)
            self.note(at, table.keys.get(name, value.place), (*path, name))
            found = self.value(field.shape, value, (*path, name), at)
            if found is not _NOTHING:
                values[field.spec_name] = found
        return values

    def value(self, shape: Shape, tree: Tree, path: Path_, spec_path: Path_) -> Any:
        """_NOTHING where it was complained about."""
        if isinstance(shape, Section):
            return self.section(shape, tree, path, spec_path)
        if isinstance(shape, MapOf):
            return self._map(shape, tree, path, spec_path)
        if isinstance(shape, ListOf):
            return self.words(tree, path) if shape.words else self._list(shape, tree, path, spec_path)
        try:
            return _leaf(shape, tree)
        except ValueError as error:
            self.complain(tree.place, path, str(error))
            return _NOTHING

    def words(self, tree: Tree, path: Path_) -> tuple[str, ...]:
        """A command line: a list of words, or a text that is split as a shell would split it."""
        if isinstance(tree, Scalar) and tree.value is not None:
            try:
                words = tuple(shlex.split(tree.text))
            except ValueError as error:
                self.complain(tree.place, path, f"{tree.text!r} cannot be split into words: {str(error).lower()}")
                return ()
        elif isinstance(tree, Items):
            words = self._list(ListOf(Leaf(Kind.TEXT)), tree, path, ())
        else:
            words = ()
        if not words:
            self.complain(tree.place, path, "write a program and its arguments, as a text or as a list")
        return words

    def note(self, spec_path: Path_, place: Place, path: Path_) -> None:
        """Complaints about this value of the spec belong there."""
        self._spots[spec_path] = place, dotted(path)

    def blame(self, error: CheckError, fallback: tuple[Place, Path_]) -> None:
        """Complain about the rule of the spec that is broken, where its value stands."""
        outwards = (error.place[:end] for end in range(len(error.place), 0, -1))
        spot = next((self._spots[path] for path in outwards if path in self._spots), None)
        place, where = spot or (fallback[0], dotted(fallback[1]))
        self.complain(place, where, error.message)

    def _map(self, shape: MapOf, tree: Tree, path: Path_, spec_path: Path_) -> Any:
        if not isinstance(tree, Table):
            self.complain(tree.place, path, f"{_shown(tree)} is not a mapping")
            return _NOTHING
        values: dict[Any, Any] = {}
        for key, value in tree.entries.items():
            known = int(key) if shape.whole_keys and key.isascii() and key.isdecimal() else key
            place = tree.keys.get(key, value.place)
            if shape.whole_keys and (isinstance(known, str) or not known):
                self.complain(place, (*path, key), "it is not a whole number from 1")
                continue
            self.note((*spec_path, known), place, (*path, key))
            found = self.value(shape.value, value, (*path, key), (*spec_path, known))
            if found is not _NOTHING:
                values[known] = found
        return values

    def _list(self, shape: ListOf, tree: Tree, path: Path_, spec_path: Path_) -> tuple[Any, ...]:
        """One value stands for a list of one."""
        items: Iterable[Tree] = tree.items if isinstance(tree, Items) else (tree,)
        found = [self.value(shape.item, item, (*path, index), (*spec_path, index)) for index, item in enumerate(items)]
        return tuple(value for value in found if value is not _NOTHING)


def _leaf(shape: Leaf, tree: Tree) -> Any:
    """Raises ValueError, in words."""
    if shape.kind is Kind.LIMIT:
        return _limit(shape, tree)
    if not isinstance(tree, Scalar) or tree.value is None:
        wanted = f"one of {', '.join(shape.choices)}" if shape.kind is Kind.CHOICE else _WANTED[shape.kind]
        raise ValueError(f"{_shown(tree)} is not {wanted}")
    value = tree.value
    if shape.kind is Kind.TEXT:
        return tree.text
    if shape.kind is Kind.CHOICE:
        return _choice(shape, tree.text)
    if shape.kind is Kind.DURATION:
        return _within(shape, _real(value) if _is_number(value) else parse_duration(_text(tree, Kind.DURATION)))
    if shape.kind is Kind.BYTES:
        return _within(shape, _whole(tree, value) if _is_number(value) else parse_bytes(_text(tree, Kind.BYTES)))
    fits = {Kind.BOOLEAN: bool, Kind.INTEGER: int, Kind.NUMBER: int | float}[shape.kind]
    if not isinstance(value, fits) or (isinstance(value, bool) and shape.kind is not Kind.BOOLEAN):
        raise ValueError(f"{tree.text!r} is not {_WANTED[shape.kind]}")
    return _within(shape, value)


def _within(shape: Leaf, value: _Number) -> _Number:
    for word, bound in shape.bounds.items():
        fits, words = _RANGES[word]
        if not fits(value, bound):
            raise ValueError(f"must be {words} {bound}{_UNITS.get(shape.kind, '')}")
    return value


def _real(value: float) -> float:
    """TOML has whole numbers of any length."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _whole(tree: Scalar, count: float) -> int:
    if count != count // 1:
        raise ValueError(f"{tree.text!r} is not {_WANTED[Kind.BYTES]}")
    return int(count)


def _choice(shape: Leaf, text: str) -> str:
    if text not in shape.choices:
        raise ValueError(f"{text!r} is not one of {', '.join(shape.choices)}")
    return text.replace("-", "_")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(tree: Scalar, kind: Kind) -> str:
    if isinstance(tree.value, bool):
        raise ValueError(f"{tree.text!r} is not {_WANTED[kind]}")
    return tree.text


def _limit(shape: Leaf, tree: Tree) -> dict[str, int]:
    if isinstance(tree, Table):
        if set(tree.entries) != {"soft", "hard"}:
            raise ValueError("write a number for both, or {soft: …, hard: …}")
        return {name: _bound(shape, value) for name, value in tree.entries.items()}
    return {"soft": _bound(shape, tree), "hard": _bound(shape, tree)}


def _bound(shape: Leaf, tree: Tree) -> int:
    if isinstance(tree, Scalar):
        if tree.text == UNLIMITED:
            return -1
        if isinstance(tree.value, int) and not isinstance(tree.value, bool) and tree.value >= 0:
            return _within(shape, tree.value)
    raise ValueError(f"{_shown(tree)} is not a limit: write a whole number, or {UNLIMITED}")


def _shown(tree: Tree) -> str:
    if isinstance(tree, Scalar):
        return "nothing" if tree.value is None else repr(tree.text)
    return "a list" if isinstance(tree, Items) else "a mapping" if plain(tree) else "an empty mapping"
