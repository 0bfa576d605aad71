"""A fleet file as a whole: the apps it names, each with its spec and its size."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_core.checked import CheckError
from fleet_core.ids import check_name
from fleet_core.spec import AppSpec
from fleetctl.fleet_file.code import Code, code_of
from fleetctl.fleet_file.command import CommandLine, command_line
from fleetctl.fleet_file.paths import absolute, within_code
from fleetctl.fleet_file.reader import Reader
from fleetctl.fleet_file.shape import APP
from fleetctl.fleet_file.size import NO_SIZE, Wanted, wanted_size
from fleetctl.fleet_file.toml_tree import toml_tree
from fleetctl.fleet_file.tree import Path_, Place, Table, Tree, refuse
from fleetctl.fleet_file.yaml_tree import yaml_tree

MOST_BYTES = 1024 * 1024
COMMAND_FIELDS = ("command", "script", "args", "interpreter")
SIZE_FIELDS = ("size", "hosts")
CODE_FIELD = "code"
APP_FIELDS = frozenset({*APP.fields, *COMMAND_FIELDS, *SIZE_FIELDS, CODE_FIELD})
NOTES_PREFIX = "x-"
"""Keys at the top that begin so are the writer's own: anchors to refer to, notes."""


@dataclass(frozen=True, slots=True)
class WantedApp:
    """One app as a file says it shall be."""

    spec: AppSpec
    size: Wanted = NO_SIZE
    code: Code | None = None
    """None: it lies on the hosts, or is what the app has already."""

    @property
    def name(self) -> str:
        return self.spec.name


@dataclass(frozen=True, slots=True)
class FleetFile:
    file: str
    apps: tuple[WantedApp, ...]


def read_text(path: Path) -> str:
    """Raises FleetFileError, also where it is longer than MOST_BYTES."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise refuse(path, None, f"it cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise refuse(path, None, f"it is longer than {MOST_BYTES // 1024 // 1024} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refuse(path, None, f"it is not UTF-8: byte {error.start + 1} cannot be read") from error


def parse(text: str, path: Path) -> Tree | None:
    """By the file's suffix: .toml, else YAML, of which JSON is a part. None: it is empty. Raises FleetFileError."""
    return toml_tree(text, str(path)) if path.suffix == ".toml" else yaml_tree(text, str(path))


def read_file(path: Path) -> FleetFile:
    """Raises FleetFileError, with every complaint there is."""
    return read_tree(parse(read_text(path), path), path)


def read_tree(tree: Tree | None, path: Path) -> FleetFile:
    """Raises FleetFileError."""
    if not isinstance(tree, Table):
        raise refuse(
            path, tree.place if tree else None, "there are no apps: write `apps:`, and below it a name for each"
        )
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 (links in the path stay as they were written)
    reader = Reader(str(path))
    own = {key: value for key, value in tree.entries.items() if not key.startswith(NOTES_PREFIX)}
    top = reader.table(Table(own, tree.place, tree.keys), (), ("apps",))
    apps: list[WantedApp] = []
    if "apps" in top.entries:
        apps = _apps(reader, top.entries["apps"], folder)
    elif not reader.complaints:
        reader.complain(tree.place, (), "there are no apps: write `apps:`, and below it a name for each")
    reader.finish()
    return FleetFile(str(path), tuple(apps))


def _apps(reader: Reader, tree: Tree, folder: Path) -> list[WantedApp]:
    if not isinstance(tree, Table):
        reader.complain(tree.place, ("apps",), "write a mapping: the name of each app, and below it its fields")
        return []
    found = [_app(reader, name, value, tree, folder) for name, value in tree.entries.items()]
    return [app for app in found if app is not None]


def _app(reader: Reader, name: str, tree: Tree, above: Table, folder: Path) -> WantedApp | None:
    path: Path_ = ("apps", name)
    place = above.keys.get(name, tree.place)
    told = len(reader.complaints)
    try:
        check_name("app", name)
    except ValueError as error:
        reader.complain(place, path, str(error))
    table = reader.table(tree, path, APP_FIELDS)
    rest = {key: value for key, value in table.entries.items() if key in APP.fields}
    fields = reader.section(APP, Table(rest, table.place, table.keys), path, ())
    code: Code | None = None
    if CODE_FIELD in table.entries:
        code = code_of(reader, table.entries[CODE_FIELD], (*path, CODE_FIELD), folder)
        cwd = _folder_within(reader, table, path, str(fields.get("cwd", ".")))
        command = None if cwd is None else command_line(reader, table, path, None, cwd)
    else:
        cwd = absolute(fields.get("cwd", "."), folder)
        command = command_line(reader, table, path, folder)
    size = wanted_size(reader, table, path)
    if command is None or cwd is None or len(reader.complaints) > told:
        return None
    for spec_name in ("argv", "name"):
        reader.note((spec_name,), place, path)
    spec = _checked(reader, {**_implied(fields, command, cwd), "name": name, "argv": command.argv}, (place, path))
    return WantedApp(spec, size, code) if spec else None


def _folder_within(reader: Reader, table: Table, path: Path_, cwd: str) -> str | None:
    """None where it was complained about."""
    below = within_code(cwd)
    if below is None:
        place = table.entries["cwd"].place
        reader.complain(place, (*path, "cwd"), "it is not in the code: write a path from the code's folder")
    return below


def _checked(reader: Reader, fields: dict[str, Any], at: tuple[Place, Path_]) -> AppSpec | None:
    """None: complained about.

    AppSpec names one broken rule at a time: its field is left out, and the rest is asked again. What a field that was left out
    belongs to is not blamed any more.
    """
    broken: set[tuple[str, ...]] = set()
    while True:
        try:
            spec = AppSpec.model_validate(fields)
        except CheckError as error:
            if not any(place[: len(error.place)] == error.place for place in broken):
                reader.blame(error, at)
            broken.add(error.place)
            rest = _without(fields, error.place)
            if rest is None:
                return None
            fields = rest
        else:
            return None if broken else spec


def _without(fields: Mapping[str, Any], place: tuple[str, ...]) -> dict[str, Any] | None:
    """None: there is nothing to leave out. A place within a list or a mapping of one's own keys takes all of that field."""
    if not place or place[0] not in fields:
        return None
    name, *inner = place
    within = _without(fields[name], tuple(inner)) if isinstance(fields[name], Mapping) else None
    rest = {key: value for key, value in fields.items() if key != name}
    return rest if within is None else {**rest, name: within}


def _implied(fields: Mapping[str, Any], command: CommandLine, cwd: str) -> dict[str, Any]:
    """What was written, and what follows from it: its folder, and the words a person need not write."""
    values = {"runtime": command.runtime, **fields}
    values["cwd"] = cwd
    ready = dict(fields.get("ready", {}))
    if ready.get("command") and "method" not in ready:
        ready["method"] = "command"
    rollout = dict(fields.get("rollout", {}))
    if rollout.get("max_surge") == 0 and "max_unavailable" not in rollout:
        # Stop first, then start: one worker at a time is missing, as with `start --max-surge 0`.
        rollout["max_unavailable"] = 1
    if "stop" in fields and "signal" in fields["stop"]:
        signal = str(fields["stop"]["signal"]).upper()
        values["stop"] = {**fields["stop"], "signal": f"SIG{signal.removeprefix('SIG')}"}
    return {**values, "ready": ready, "rollout": rollout}
