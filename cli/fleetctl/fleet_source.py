"""What `-f FILE` names: a fleet file, or one of PM2's."""

from dataclasses import dataclass, replace
from pathlib import Path

from fleetctl.errors import CliError, ExitCode
from fleetctl.fleet_file.document import FleetFile, parse, read_text, read_tree
from fleetctl.fleet_file.tree import MOST_TOLD, FleetFileError, plain
from fleetctl.pm2.convert import convert
from fleetctl.pm2.ecosystem import SCRIPT_SUFFIXES, Ecosystem, from_plain, is_ecosystem, read_json, run_script


@dataclass(frozen=True, slots=True)
class Source:
    content: FleetFile
    warnings: tuple[str, ...] = ()
    """What of a PM2 file is not kept, a line each."""


def load(path: Path, env_name: str = "", only: tuple[str, ...] = ()) -> Source:
    """`env_name`: PM2's --env. `only`: these apps alone. Raises CliError."""
    try:
        content = _content(path)
        if isinstance(content, Ecosystem):
            converted = convert(content, env_name, only)
            return Source(FleetFile(content.file, converted.apps), converted.warnings)
    except FleetFileError as error:
        raise refused(error) from error
    if env_name:
        raise CliError(ExitCode.USAGE, f"--env is for PM2's files, and {path} is a fleet file")
    return Source(_only(content, only))


def refused(error: FleetFileError) -> CliError:
    """To be raised: every complaint a line, up to MOST_TOLD."""
    first, *others = map(str, error.complaints)
    if len(others) >= MOST_TOLD:
        others[MOST_TOLD - 1 :] = [f"and {len(others) - MOST_TOLD + 1} more"]
    return CliError(ExitCode.USAGE, first, details=others)


def _content(path: Path) -> Ecosystem | FleetFile:
    """Raises FleetFileError."""
    if path.suffix in SCRIPT_SUFFIXES:
        return run_script(path)
    text = read_text(path)
    if path.suffix == ".json":
        # PM2 takes for JSON what JavaScript does; a fleet file is JSON, which YAML takes too.
        value = read_json(text, str(path))
        if is_ecosystem(value):
            return from_plain(value, path)
    tree = parse(text, path)
    if tree is not None and is_ecosystem(plain(tree)):
        return from_plain(plain(tree), path)
    return read_tree(tree, path)


def _only(content: FleetFile, only: tuple[str, ...]) -> FleetFile:
    missing = [name for name in only if all(app.name != name for app in content.apps)]
    if missing:
        raise CliError(ExitCode.USAGE, f"{content.file}: no app in it is named {missing[0]}")
    return replace(content, apps=tuple(app for app in content.apps if not only or app.name in only))
