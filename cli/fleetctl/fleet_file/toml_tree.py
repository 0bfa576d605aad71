"""TOML to a tree. tomllib reads the values and checks the grammar; a second look at the same text, which may then assume that
it is valid, finds where each of them stands (tomllib keeps no places)."""

import re
import tomllib
from bisect import bisect_right
from datetime import date, time
from typing import Any

from fleetctl.fleet_file.tree import Items, Path_, Place, Scalar, Table, Tree, refuse

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_STRING = re.compile(
    r"""\"{3}(?:[^\\]|\\.)*?\"{3,5}(?!\")|\'{3}.*?\'{3,5}(?!\')|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""", re.DOTALL
)
_BARE = re.compile(r"[^,\]}\n#]*")


def toml_tree(text: str, file: str) -> Tree:
    """Raises FleetFileError."""
    scanner = _Scanner(text)
    try:
        data = tomllib.loads(text)
        scanner.scan()
        return _tree(data, (), scanner.spots, Place(1, 1))
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        match = _AT.search(message)
        place = Place(int(match[1]), int(match[2])) if match and match[1] else None
        raise refuse(file, place, f"this is not TOML: {_AT.sub('', message)}") from error
    except RecursionError as error:
        raise refuse(file, None, "it is nested too deep") from error


def _tree(value: Any, path: Path_, spots: dict[Path_, tuple[Place, str]], above: Place) -> Tree:
    place, text = spots.get(path, (above, ""))
    if isinstance(value, dict):
        entries = {key: _tree(content, (*path, key), spots, place) for key, content in value.items()}
        return Table(entries, place, {key: spots.get((*path, key), (place, ""))[0] for key in value})
    if isinstance(value, list):
        return Items(tuple(_tree(item, (*path, index), spots, place) for index, item in enumerate(value)), place)
    if isinstance(value, str):
        return Scalar(value, value, place)
    if isinstance(value, date | time):
        return Scalar(text, text, place)
    return Scalar(value, text or str(value), place)


class _Scanner:
    """`spots`: path → (where its key stands, or the value itself in an array; the source text of a bare value)."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._lengths: dict[Path_, int] = {}
        self.spots: dict[Path_, tuple[Place, str]] = {}

    def scan(self) -> None:
        table: Path_ = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)

    def _header(self) -> Path_:
        array = self._text.startswith("[[", self._at)
        self._at += 2 if array else 1
        self._skip(_SPACE)
        parts, places = self._key()
        self._at += 2 if array else 1
        path: Path_ = ()
        for index, part in enumerate(parts):
            path = (*path, part)
            self._note(path, places[index])
            if array and index == len(parts) - 1:
                self._lengths[path] = self._lengths.get(path, 0) + 1
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
                self._note(path, places[index])
        return path

    def _pair(self, table: Path_) -> None:
        parts, places = self._key()
        path = table
        for part, place in zip(parts, places, strict=True):
            path = (*path, part)
            self._note(path, place)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> tuple[list[str], list[int]]:
        """A dotted key, up to what follows it."""
        parts: list[str] = []
        places: list[int] = []
        while match := _KEY_PART.match(self._text, self._at):
            word = match[0]
            parts.append(next(iter(tomllib.loads(f"{word} = 0"))) if word[0] in "\"'" else word)
            places.append(self._at)
            self._at = match.end()
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                break
            self._at += 1
            self._skip(_SPACE)
        return parts, places

    def _value(self, path: Path_) -> None:
        if match := _STRING.match(self._text, self._at):
            self._at = match.end()
        elif self._text.startswith("[", self._at):
            self._array(path)
        elif self._text.startswith("{", self._at):
            self._inline(path)
        elif match := _BARE.match(self._text, self._at):
            self._at = match.end()
            self.spots[path] = self.spots[path][0], match[0].strip()

    def _array(self, path: Path_) -> None:
        self._at += 1
        self._skip(_BLANK)
        index = 0
        while not self._text.startswith("]", self._at):
            self._note((*path, index), self._at)
            self._value((*path, index))
            index += 1
            self._separator()
        self._at += 1

    def _inline(self, path: Path_) -> None:
        self._at += 1
        self._skip(_BLANK)
        while not self._text.startswith("}", self._at):
            self._pair(path)
            self._separator()
        self._at += 1

    def _separator(self) -> None:
        self._skip(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1
            self._skip(_BLANK)

    def _skip(self, blank: re.Pattern[str]) -> None:
        match = blank.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _note(self, path: Path_, at: int) -> None:
        if path not in self.spots:
            line = bisect_right(self._starts, at)
            self.spots[path] = Place(line, at - self._starts[line - 1] + 1), ""
