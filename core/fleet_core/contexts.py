"""Contexts: which fleet fleetctl talks to, and who it is there.

One TOML file, `$FLEET_CONFIG` or `$XDG_CONFIG_HOME/fleetctl/config.toml`:

    current = "production"

    [contexts.production]
    controllers = ["10.0.0.1:7400", "10.0.0.2:7400"]
    authority = "/home/ada/.config/fleetctl/ca.pem"
    certificate = "/home/ada/.config/fleetctl/operator-ada.pem"
    key = "/home/ada/.config/fleetctl/operator-ada.key"

Nothing here imports gRPC, so that reading a context costs next to nothing.
"""

import fcntl
import json
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fleet_core.durable import write_durably

_HEADER = "# Fleets known to fleetctl. `fleetctl up` adds its own; comments are not kept.\n"
_PATHS = ("authority", "certificate", "key")


class ContextError(Exception):
    """The configuration cannot be used, or lacks what is asked of it; the message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Context:
    """One fleet: "host:port" of each controller, and the PEM files that prove who both ends are."""

    controllers: tuple[str, ...]
    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Contexts:
    """All contexts, and the name of the one used where none is asked for; "": none is."""

    by_name: dict[str, Context] = field(default_factory=dict)
    current: str = ""

    def choose(self, name: str | None) -> tuple[str, Context]:
        """The context called `name`, or the current one. Raises ContextError."""
        if name is None and not self.by_name:
            raise ContextError(
                f"no fleet is configured in {config_path()}: start one here with `fleetctl up`, "
                "or name a configuration with FLEET_CONFIG"
            )
        known = ", ".join(sorted(self.by_name)) or "none"
        if name is None:
            if self.current not in self.by_name:
                raise ContextError(f"no context is current: choose one with --context NAME (known: {known})")
            name = self.current
        if name not in self.by_name:
            raise ContextError(f"context {name!r} is not in {config_path()} (known: {known})")
        return name, self.by_name[name]


def config_path() -> Path:
    """Where the contexts lie (XDG Base Directory Specification: a relative XDG_CONFIG_HOME is ignored)."""
    if explicit := os.environ.get("FLEET_CONFIG"):
        return Path(explicit).expanduser().absolute()
    xdg = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(xdg) if xdg.startswith("/") else Path("~/.config").expanduser()
    return base / "fleetctl" / "config.toml"


def load_contexts() -> Contexts:
    """Read the file; an absent one holds no contexts. Raises ContextError."""
    path = config_path()
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise ContextError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ContextError(f"{path}: not TOML: {error}") from error
    current, tables = document.get("current", ""), document.get("contexts", {})
    if not isinstance(current, str) or not isinstance(tables, dict):
        raise ContextError(f"{path}: `current` must be a name and `contexts` a table")
    return Contexts({name: _read(path, name, table) for name, table in tables.items()}, current)


def save_context(name: str, context: Context, make_current: bool) -> None:  # noqa: FBT001
    """Add or replace one context; the first one becomes current in any case. Raises ContextError."""
    with _locked():
        contexts = load_contexts()
        current = name if make_current or contexts.current not in contexts.by_name else contexts.current
        _write(Contexts({**contexts.by_name, name: context}, current))


def remove_context(name: str) -> None:
    """Forget one context; an unknown name is no error. If it was current, none is. Raises ContextError."""
    with _locked():
        contexts = load_contexts()
        if name in contexts.by_name:
            left = {other: context for other, context in contexts.by_name.items() if other != name}
            _write(Contexts(left, "" if contexts.current == name else contexts.current))


def _read(path: Path, name: str, table: object) -> Context:
    if not isinstance(table, dict):
        raise ContextError(f"{path}: context {name!r} must be a table")
    controllers = table.get("controllers")
    if (
        not isinstance(controllers, list)
        or not controllers
        or not all(isinstance(address, str) and address for address in controllers)
    ):
        raise ContextError(f'{path}: context {name!r}: controllers must be a list such as ["10.0.0.1:7400"]')
    paths = []
    for key in _PATHS:
        value = table.get(key)
        if not isinstance(value, str) or not value:
            raise ContextError(f"{path}: context {name!r}: {key} must be the path of a PEM file")
        paths.append(path.parent / Path(value).expanduser())
    return Context(tuple(controllers), *paths)


def _write(contexts: Contexts) -> None:
    path = config_path()
    lines = [_HEADER]
    if contexts.current:
        lines.append(f"current = {_quoted(contexts.current)}\n")
    for name, context in sorted(contexts.by_name.items()):
        addresses = ", ".join(_quoted(address) for address in context.controllers)
        lines.append(f"\n[contexts.{_quoted(name)}]\ncontrollers = [{addresses}]\n")
        lines.extend(f"{key} = {_quoted(str(getattr(context, key)))}\n" for key in _PATHS)
    try:
        write_durably(path, "".join(lines).encode())
    except UnicodeEncodeError as error:
        raise ContextError(f"{path}: a path that is not UTF-8 cannot be written into it") from error
    except OSError as error:
        raise ContextError(f"{path}: {error.strerror}") from error


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are a subset of TOML's, but JSON leaves DEL alone (TOML v1.0.0, String)."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@contextmanager
def _locked() -> Iterator[None]:
    """Two fleetctl that save at once keep each other's contexts: the folder is locked (flock(2)) from read to write."""
    folder = config_path().parent
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ContextError(f"{folder}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
