"""What may stand in the file of an app, derived from AppSpec: a field added there is a field of the file. Pure.

Names are those of the spec without their units, because a person writes the unit with the value: `start_timeout_seconds = 30`
is `start_timeout: 30s`, `memory_max_bytes` is `memory_max: 512M`.
"""

import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from fleet_core.checked import Checked
from fleet_core.spec import AppSpec, ResourceLimit

UNLIMITED = "unlimited"
_RENAMED = {
    "listen_mode": "listen",
    "declared_port": "port",
    "http_path": "path",
    "unready_threshold": "failures",
    "backoff_initial_seconds": "backoff",
    "canary_seconds": "canary_for",
    "cpu_max_cores": "cpu_max",
    "json_lines": "json",
    "max_bytes": "max_size",
}
_UNITS = {"_seconds": "duration", "_bytes": "bytes"}


class Kind(StrEnum):
    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    DURATION = "duration"
    BYTES = "bytes"
    LIMIT = "limit"
    """A resource limit: a number for both, `unlimited`, or {soft, hard}."""


@dataclass(frozen=True, slots=True)
class Leaf:
    kind: Kind
    choices: tuple[str, ...] = ()
    bounds: Mapping[str, float] = field(default_factory=dict)
    """JSON schema's words for the range of a number: minimum, exclusiveMaximum, …"""


@dataclass(frozen=True, slots=True)
class ListOf:
    item: "Shape"
    words: bool = False
    """A command line: one text stands for its words."""


@dataclass(frozen=True, slots=True)
class MapOf:
    value: "Shape"
    whole_keys: bool = False
    """Keys are whole numbers from 1."""


@dataclass(frozen=True, slots=True)
class Field:
    spec_name: str
    shape: "Shape"
    default: Any
    """As the spec has it."""


@dataclass(frozen=True, slots=True)
class Section:
    fields: Mapping[str, Field]


Shape = Leaf | ListOf | MapOf | Section


def section_of(model: type[Checked], without: frozenset[str] = frozenset()) -> Section:
    fields: dict[str, Field] = {}
    for info in msgspec.structs.fields(model):
        if info.name in without:
            continue
        name, unit = _file_name(info.name, model)
        fields[name] = Field(info.name, _shape(info.type, (), unit, info.name), _default(info))
    return Section(fields)


def _file_name(spec_name: str, model: type[Checked]) -> tuple[str, str]:
    """(the name in the file, the unit that left it). A name that another field has already keeps its unit."""
    for suffix, unit in _UNITS.items():
        if spec_name.endswith(suffix):
            bare = spec_name.removesuffix(suffix)
            return _RENAMED.get(spec_name, spec_name if bare in model.__struct_fields__ else bare), unit
    return _RENAMED.get(spec_name, spec_name), ""


def _default(info: msgspec.structs.FieldInfo) -> Any:
    """None: the field has to be set."""
    if info.default_factory is not msgspec.NODEFAULT:
        return info.default_factory()
    return None if info.default is msgspec.NODEFAULT else info.default


def _shape(annotation: Any, metas: tuple[msgspec.Meta, ...], unit: str, name: str) -> Shape:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _shape(arguments[0], (*arguments[1:], *metas), unit, name)
    if origin in (Union, types.UnionType):
        present = [argument for argument in arguments if argument is not type(None)]
        return _shape(present[0], metas, unit, name)
    if origin is tuple:
        return ListOf(_shape(arguments[0], (), "", ""), words=name == "command")
    if origin is dict:
        return MapOf(_shape(arguments[1], (), "", ""), whole_keys=_is_whole(arguments[0]))
    if annotation is ResourceLimit:
        return Leaf(Kind.LIMIT, bounds=_bounds(get_args(get_type_hints(annotation, include_extras=True)["soft"])[1:]))
    if isinstance(annotation, type) and issubclass(annotation, Checked):
        return section_of(annotation)
    return _leaf(annotation, metas, unit)


def _leaf(annotation: Any, metas: tuple[msgspec.Meta, ...], unit: str) -> Leaf:
    bounds = _bounds(metas)
    if unit:
        return Leaf(Kind(unit), bounds=bounds)
    if annotation is bool:
        return Leaf(Kind.BOOLEAN)
    if annotation is int:
        return Leaf(Kind.INTEGER, bounds=bounds)
    if annotation is float:
        return Leaf(Kind.NUMBER, bounds=bounds)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return Leaf(Kind.CHOICE, tuple(str(member.value).replace("_", "-") for member in annotation))
    if annotation is str:
        return Leaf(Kind.TEXT)
    raise TypeError(f"the fleet file has no way to write {annotation!r}: give it a shape")


def _bounds(metas: tuple[msgspec.Meta, ...]) -> dict[str, float]:
    bounds: dict[str, float] = {}
    for meta in metas:
        said = {"minimum": meta.ge, "exclusiveMinimum": meta.gt, "maximum": meta.le, "exclusiveMaximum": meta.lt}
        bounds |= {word: bound for word, bound in said.items() if bound is not None}
    return bounds


def _is_whole(annotation: Any) -> bool:
    return annotation is int or (get_origin(annotation) is Annotated and get_args(annotation)[0] is int)


APP = section_of(AppSpec, without=frozenset({"name", "argv"}))
"""An app's fields, but for its name, which is its key, and its command, which `document` reads."""
