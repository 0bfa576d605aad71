"""Values that come in from outside, checked: by the types of a class, and by the rules it has beside them.

msgspec does it, because an agent has to be small: pydantic and the classes made with it weigh 12 MiB.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

_PLACE = re.compile(r" - at (?:`key` in )?`\$(?P<path>[^`]*)`$")
_INDEX = re.compile(r"\[.*?\]")
_MISSING = re.compile(r"^Object missing required field `(?P<field>.*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>.*)`$", re.DOTALL)
_EXPECTED = re.compile(r"^Expected `(?P<kind>\w+)(?: \| null)?`(?P<bound>.*)$", re.DOTALL)
_KINDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "object": "a table"}


class RuleError(ValueError):
    """A rule of a class is broken; `field` names the one that has to change, where it is one."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class CheckError(ValueError):
    """The first thing that is wrong, in words, and where it lies: names from the outside in; (): not one field alone."""

    def __init__(self, message: str, place: tuple[str, ...]) -> None:
        super().__init__(f"{'.'.join(place)}: {message}" if place else message)
        self.message = message
        self.place = place


class Checked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Subclasses say their rules in `__post_init__`, which raises RuleError; bounds belong to the types, as `msgspec.Meta`."""

    @classmethod
    def model_validate(cls, fields: Mapping[str, Any]) -> Self:
        """Raises CheckError."""
        try:
            return msgspec.convert(fields, cls, dec_hook=_decode)
        except msgspec.ValidationError as error:
            raise _in_words(error) from None

    def model_copy(self, update: Mapping[str, Any]) -> Self:
        """With other values in these fields, whose types the caller answers for. Raises RuleError."""
        return msgspec.structs.replace(self, **update)

    def plain(self) -> dict[str, Any]:
        """The fields as strings, numbers, lists and dictionaries."""
        fields: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)
        return fields


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise ValueError(f"must be text, not {value!r}")


def _in_words(error: msgspec.ValidationError) -> CheckError:
    message = _PLACE.sub("", str(error))
    found = _PLACE.search(str(error))
    place = tuple(part for part in _INDEX.sub("", found["path"]).split(".") if part) if found else ()
    if isinstance(error.__cause__, RuleError) and error.__cause__.field:
        return CheckError(message, (*place, error.__cause__.field))
    if missing := _MISSING.match(message):
        return CheckError("must be set", (*place, missing["field"]))
    if unknown := _UNKNOWN.match(message):
        return CheckError("is not known", (*place, unknown["field"]))
    if expected := _EXPECTED.match(message):
        kind = _KINDS.get(expected["kind"], expected["kind"])
        return CheckError(f"must be {kind}{expected['bound'].replace('`', '')}", place)
    return CheckError(message, place)
