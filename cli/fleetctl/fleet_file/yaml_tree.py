"""YAML to a tree, by the core schema of YAML 1.2 and no more: `no` and 0755 are texts, a tag is refused, a key stands once.

Built from the parser's events, in one pass whose size is bounded: an alias counts as much as what it stands for.
"""

import re
from collections.abc import Iterator

import yaml

from fleetctl.fleet_file.tree import FleetFileError, Items, Place, Scalar, Table, Tree, refuse

MOST_NODES = 100_000
MOST_DEPTH = 40

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")
_NULL = frozenset({"", "~", "null"})
_MERGE = "<<"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def yaml_tree(text: str, file: str) -> Tree | None:
    """None: the file is empty. Raises FleetFileError."""
    builder = _Builder(file, yaml.parse(text, Loader=_LOADER))
    try:
        return builder.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else None
        raise refuse(file, place, f"this is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise refuse(file, None, f"this is not YAML: {' '.join(str(error).split())}") from error


class _Builder:
    def __init__(self, file: str, events: Iterator[yaml.Event]) -> None:
        self._file = file
        self._events = events
        self._anchors: dict[str, tuple[Tree, int]] = {}
        self._nodes = 0

    def document(self) -> Tree | None:
        tree: Tree | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if tree is not None:
                    raise refuse(self._file, _place(event), "a second document: a file holds one")
                tree = self._node(next(self._events), 0)
        return None if isinstance(tree, Scalar) and tree.value is None else tree

    def _node(self, event: yaml.Event, depth: int) -> Tree:
        place = _place(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place)
        before = self._nodes
        self._count(1, place)
        if depth > MOST_DEPTH:
            raise refuse(self._file, place, f"nested more than {MOST_DEPTH} deep")
        if (tag := getattr(event, "tag", None)) is not None:
            raise refuse(self._file, place, f"the tag {tag} is not taken: write the plain value")
        tree: Tree
        if isinstance(event, yaml.ScalarEvent):
            tree = Scalar(_resolved(event), event.value, place)
        elif isinstance(event, yaml.SequenceStartEvent):
            tree = Items(tuple(self._items(depth)), place)
        else:
            tree = self._table(place, depth)
        if anchor := getattr(event, "anchor", None):
            self._anchors[anchor] = tree, self._nodes - before
        return tree

    def _alias(self, event: yaml.AliasEvent, place: Place) -> Tree:
        if event.anchor not in self._anchors:
            raise refuse(self._file, place, f"*{event.anchor}: no such anchor is complete before this line")
        tree, size = self._anchors[event.anchor]
        self._count(size, place)
        return tree

    def _count(self, number: int, place: Place) -> None:
        self._nodes += number
        if self._nodes > MOST_NODES:
            raise refuse(self._file, place, f"more than {MOST_NODES} values, aliases counted as what they stand for")

    def _items(self, depth: int) -> Iterator[Tree]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _table(self, place: Place, depth: int) -> Table:
        entries: dict[str, Tree] = {}
        keys: dict[str, Place] = {}
        merged: list[Table] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise refuse(self._file, key.place, "a key must be a plain word")
            value = self._node(next(self._events), depth + 1)
            if key.text == _MERGE and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                merged += self._merged(value)
                continue
            if key.text in keys:
                raise _duplicate(self._file, key, keys[key.text])
            entries[key.text], keys[key.text] = value, key.place
        for table in merged:
            for name, value in table.entries.items():
                if name not in entries:
                    entries[name], keys[name] = value, table.keys[name]
        return Table(entries, place, keys)

    def _merged(self, value: Tree) -> list[Table]:
        """What `<<` brings in: a mapping, or a list of them, the first the strongest."""
        tables = value.items if isinstance(value, Items) else (value,)
        for table in tables:
            if not isinstance(table, Table):
                raise refuse(self._file, table.place, "<< takes a mapping, or a list of mappings")
        return [table for table in tables if isinstance(table, Table)]


def _duplicate(file: str, key: Scalar, first: Place) -> FleetFileError:
    return refuse(file, key.place, f"{key.text} stands here a second time; the first is in line {first.line}")


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)


def _resolved(event: yaml.ScalarEvent) -> str | int | float | bool | None:
    text = str(event.value)
    if not event.implicit[0]:
        return text
    if text in _NULL:
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
