"""The JSON schema of a fleet file, from the same shapes that read it, and the table of fields in the documentation. Pure."""

from collections.abc import Iterator
from typing import Any

from fleetctl.fleet_file.code import DIGEST
from fleetctl.fleet_file.descriptions import DESCRIPTIONS
from fleetctl.fleet_file.document import NOTES_PREFIX
from fleetctl.fleet_file.shape import APP, UNLIMITED, Field, Kind, Leaf, ListOf, MapOf, Section, Shape
from fleetctl.fleet_file.writer import written

_APP_NAME = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_NUMBERS = (Kind.INTEGER, Kind.NUMBER)
_DURATION = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)?$"}
_BYTES = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([KkMmGgTt]([Ii]?[Bb])?|[Bb])?$"}
_SCALAR = {"type": ["string", "number", "boolean"]}
_WORDS = {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": _SCALAR, "minItems": 1}]}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 1_000_000}
_DIGEST = {"type": "string", "pattern": f"^{DIGEST.pattern}$"}
_LIMIT_BOUND = {"anyOf": [{"type": "integer", "minimum": 0}, {"const": UNLIMITED}]}
_OWN: dict[str, Any] = {
    "command": _WORDS,
    "script": {"type": "string", "minLength": 1},
    "args": _WORDS,
    "interpreter": _WORDS,
    "size": {"anyOf": [_COUNT, {"type": "string", "pattern": "^cpu(-[1-9][0-9]{0,2})?$"}]},
    "hosts": {
        "anyOf": [
            {"type": "object", "additionalProperties": _COUNT, "minProperties": 1},
            {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
        ]
    },
    "code": {
        "anyOf": [
            {"type": "string", "minLength": 1},
            {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "minLength": 1},
                    "ref": {"type": "string", "minLength": 1},
                    "npm_pack": {"type": "boolean"},
                },
                "minProperties": 1,
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"digest": _DIGEST},
                "required": ["digest"],
                "additionalProperties": False,
            },
        ]
    },
}


def json_schema() -> dict[str, Any]:
    """Draft 2020-12."""
    app = _schema(APP, "")
    own = {name: _described(schema, name) for name, schema in _OWN.items()}
    app["properties"] = {**own, **app["properties"]}
    app["oneOf"] = [{"required": ["command"]}, {"required": ["script"]}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fleetctl fleet file",
        "type": "object",
        "properties": {
            "apps": {"type": "object", "propertyNames": {"pattern": _APP_NAME}, "additionalProperties": app}
        },
        "patternProperties": {f"^{NOTES_PREFIX}": {}},
        "required": ["apps"],
        "additionalProperties": False,
    }  # fmt: skip


def field_table() -> str:
    """Markdown: every field of an app, what is written for it, its default, and what it means."""
    rows = [f"| `{name}` | {form} |  | {DESCRIPTIONS[name]} |" for name, form in _OWN_FORMS.items()]
    for name, field in _leaves(APP, ""):
        rows.append(f"| `{name}` | {_form(field.shape)} | {_default(field)} | {DESCRIPTIONS.get(name, '')} |")
    return "\n".join(("| field | write | default | meaning |", "|---|---|---|---|", *rows))


_OWN_FORMS = {
    "command": "words",
    "script": "a path",
    "args": "words",
    "interpreter": "words",
    "size": "a number, `cpu`, `cpu-1`",
    "hosts": "host: workers, or a list",
    "code": "a path, `{path, ref, npm_pack}` or `{digest}`",
}


def field_names() -> tuple[str, ...]:
    """ "ready.start_timeout", …: every field of an app."""
    return (*_OWN, *(name for name, _ in _leaves(APP, "")))


def _leaves(section: Section, prefix: str) -> Iterator[tuple[str, Field]]:
    for name, field in section.fields.items():
        if isinstance(field.shape, Section):
            yield from _leaves(field.shape, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _schema(shape: Shape, path: str) -> dict[str, Any]:
    if isinstance(shape, Section):
        prefix = f"{path}." if path else ""
        properties = {
            name: _described(_schema(field.shape, f"{prefix}{name}"), f"{prefix}{name}")
            for name, field in shape.fields.items()
        }
        return {"type": "object", "properties": properties, "additionalProperties": False}
    if isinstance(shape, MapOf):
        schema: dict[str, Any] = {"type": "object", "additionalProperties": _schema(shape.value, path)}
        if shape.whole_keys:
            schema["propertyNames"] = {"pattern": "^[1-9][0-9]*$"}
        return schema
    if isinstance(shape, ListOf):
        if shape.words:
            return dict(_WORDS)
        item = _schema(shape.item, path)
        return {"anyOf": [item, {"type": "array", "items": item}]}
    return _leaf(shape)


def _leaf(leaf: Leaf) -> dict[str, Any]:
    if leaf.kind is Kind.CHOICE:
        return {"enum": list(leaf.choices)}
    if leaf.kind is Kind.BOOLEAN:
        return {"type": "boolean"}
    if leaf.kind is Kind.LIMIT:
        both = {"type": "object", "properties": {"soft": _LIMIT_BOUND, "hard": _LIMIT_BOUND}}
        return {
            "anyOf": [*_LIMIT_BOUND["anyOf"], {**both, "required": ["soft", "hard"], "additionalProperties": False}]
        }
    if leaf.kind is Kind.DURATION:
        return {"anyOf": [{"type": "number", **leaf.bounds}, _DURATION]}
    if leaf.kind is Kind.BYTES:
        return {"anyOf": [{"type": "number", **leaf.bounds}, _BYTES]}
    if leaf.kind in _NUMBERS:
        return {"type": leaf.kind.value, **leaf.bounds}
    return dict(_SCALAR)


def _described(schema: dict[str, Any], name: str) -> dict[str, Any]:
    text = DESCRIPTIONS.get(name)
    return {"description": text, **schema} if text else schema


def _form(shape: Shape) -> str:
    if isinstance(shape, MapOf):
        inner = _form(shape.value)
        return f"slot: {inner}" if shape.whole_keys else f"name: {inner}"
    if isinstance(shape, ListOf):
        return "words" if shape.words else f"a list of {_form(shape.item)}s"
    if isinstance(shape, Section):
        return "fields"
    if shape.kind is Kind.CHOICE:
        return ", ".join(f"`{choice}`" for choice in shape.choices)
    return {
        Kind.TEXT: "text",
        Kind.BOOLEAN: "`true`, `false`",
        Kind.LIMIT: "a number, `unlimited`, `{soft, hard}`",
        Kind.BYTES: "size",
        Kind.INTEGER: "whole number",
    }.get(shape.kind, shape.kind.value)


def _default(field: Field) -> str:
    said = field.spec_name not in ("cwd", "runtime") and field.default not in (None, "", (), {}, 0, False)
    return "" if not said else f"`{written(field.shape, field.default)}`"
