"""A fleet file from what runs: only what differs from the defaults, so that reading it gives the same spec again. Pure."""

from collections.abc import Mapping
from typing import Any

import yaml

from fleet_core.checked import Checked
from fleet_core.spec import AppSpec
from fleetctl.fleet_file.command import usual_runtime
from fleetctl.fleet_file.shape import APP, UNLIMITED, Kind, Leaf, ListOf, MapOf, Section, Shape
from fleetctl.fleet_file.size import Wanted
from fleetctl.wording import parse_bytes, parse_duration

_DURATIONS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
_BYTES = (("G", 1024**3), ("M", 1024**2), ("K", 1024))


def app_entry(spec: AppSpec, size: Wanted, digest: str = "") -> dict[str, Any]:
    """An app's entry in a file. `digest`: of its code; empty: that lies on the hosts."""
    entry: dict[str, Any] = {"command": list(spec.argv), "cwd": spec.cwd}
    if digest and spec.needs_artifact:
        entry["code"] = {"digest": digest}
    if size.hosts is not None:
        entry["hosts"] = dict(sorted(size.hosts.items()))
    elif size.count is not None:
        entry["size"] = (
            size.count if isinstance(size.count, int) else "cpu" + (f"-{size.count.less}" if size.count.less else "")
        )
    fields = _differing(APP, spec)
    fields.pop("cwd", None)
    fields.pop("runtime", None)
    if spec.runtime is not usual_runtime(spec.argv):
        entry["runtime"] = spec.runtime.value
    if spec.rollout.max_surge == 0:
        # Written also where it is what a surge of 0 implies, or the default that it then is not.
        fields["rollout"]["max_unavailable"] = spec.rollout.max_unavailable
    return {**entry, **fields}


def document(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """The file's text, in YAML."""
    apps = {"apps": {name: dict(entry) for name, entry in entries.items()}}
    return yaml.safe_dump(apps, sort_keys=False, allow_unicode=True, width=120)


def _differing(section: Section, model: Checked) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, field in section.fields.items():
        value = getattr(model, field.spec_name)
        if isinstance(field.shape, Section):
            inner = _differing(field.shape, value)
            if inner:
                fields[name] = inner
        elif value != field.default:
            fields[name] = written(field.shape, value)
    return fields


def written(shape: Shape, value: Any) -> Any:
    """A spec's value as a person writes it."""
    if isinstance(shape, Section):
        return _differing(shape, value)
    if isinstance(shape, MapOf):
        return {key: written(shape.value, content) for key, content in sorted(value.items())}
    if isinstance(shape, ListOf):
        return [written(shape.item, item) for item in value]
    return _leaf(shape, value)


def _leaf(leaf: Leaf, value: Any) -> Any:
    if leaf.kind is Kind.DURATION:
        return _duration(value)
    if leaf.kind is Kind.BYTES:
        return _bytes(value)
    if leaf.kind is Kind.CHOICE:
        return str(value).replace("_", "-")
    if leaf.kind is Kind.LIMIT:
        soft, hard = (UNLIMITED if bound == -1 else bound for bound in (value.soft, value.hard))
        return soft if soft == hard else {"soft": soft, "hard": hard}
    return value


def _duration(seconds: float) -> str | float:
    """In the greatest unit that says it exactly; else the bare number, which does."""
    for unit, length in _DURATIONS:
        if seconds and seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    milliseconds = f"{seconds * 1000:g}ms"
    if seconds and "e" not in milliseconds and parse_duration(milliseconds) == seconds:
        return milliseconds
    return seconds


def _bytes(count: int) -> str | int:
    for unit, length in _BYTES:
        if count and count % length == 0 and parse_bytes(f"{count // length}{unit}") == count:
            return f"{count // length}{unit}"
    return count
