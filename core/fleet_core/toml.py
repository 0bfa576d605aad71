"""Writing TOML: the standard library only reads it."""

import json
from collections.abc import Iterable


def render(table: dict[str, object]) -> str:
    """What is None is left away."""
    return "".join(_lines(table, ()))


def _lines(table: dict[str, object], path: tuple[str, ...]) -> Iterable[str]:
    # Values before tables: a header ends the table it stands in (TOML v1.0.0, Table).
    for key, value in table.items():
        if not isinstance(value, dict) and value is not None:
            yield f"{_key(key)} = {_value(value)}\n"
    for key, value in table.items():
        if isinstance(value, dict) and value:
            inner = (*path, _key(key))
            yield f"\n[{'.'.join(inner)}]\n"
            yield from _lines(value, inner)


def _key(key: str) -> str:
    """Bare where TOML allows it: labels and variables have dots and more in their names."""
    return key if key.isascii() and key.replace("-", "_").isidentifier() else _value(key)


def _value(value: object) -> str:
    """JSON's escapes are a subset of TOML's, but JSON leaves DEL alone (TOML v1.0.0, String)."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
