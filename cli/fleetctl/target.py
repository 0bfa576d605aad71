"""What `start TARGET` means on this machine: a script and its interpreter, an executable file, or a command on PATH."""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from fleetctl.errors import CliError, ExitCode

INTERPRETERS = {".js": "node", ".mjs": "node", ".cjs": "node", ".py": "python3"}
_PACKAGE_MANAGERS = frozenset({"npm", "npx", "yarn", "pnpm"})
NODE_COMMANDS = _PACKAGE_MANAGERS | {"node", "nodejs"}
_GENERIC_STEMS = frozenset({"index", "server", "app", "main"})
_NAME_LENGTH = 63


@dataclass(frozen=True, slots=True)
class Command:
    """A command line with an absolute program, whether Node runs it, and a name for the app; "": none can be made."""

    argv: tuple[str, ...]
    node: bool
    default_name: str


def is_path(target: str) -> bool:
    """Never an app's name or a command: `./` forces this, a script's suffix says it."""
    return "/" in target or Path(target).suffix in INTERPRETERS


def resolve(target: str, arguments: tuple[str, ...], folder: Path) -> Command:
    """The command `target` stands for, relative to `folder`. Raises CliError."""
    path = Path(os.path.normpath(folder / Path(target).expanduser()))
    if is_path(target) or path.is_file():
        return _script(target, path, arguments)
    found = shutil.which(target)
    if found is None:
        raise CliError(
            ExitCode.NOT_FOUND,
            f"{target!r} is no app, no file here and no command on PATH",
            "`fleetctl ls` shows the apps; ./NAME forces a file",
        )
    node = target in NODE_COMMANDS
    return Command((str(Path(found).absolute()), *arguments), node, _command_name(target, arguments, folder))


def _script(target: str, path: Path, arguments: tuple[str, ...]) -> Command:
    if path.is_dir():
        raise CliError(
            ExitCode.USAGE, f"{target} is a folder: name the script in it, for example {target.rstrip('/')}/server.js"
        )
    if not path.exists():
        raise CliError(ExitCode.NOT_FOUND, f"there is no file {path}", "name a script, or a command: npm -- start")
    if not os.access(path, os.R_OK):
        raise CliError(ExitCode.REFUSED, f"{path} cannot be read: look at its permissions")
    name = _script_name(path)
    if interpreter := INTERPRETERS.get(path.suffix):
        return Command((_interpreter(interpreter, path), str(path), *arguments), interpreter == "node", name)
    shebang = _shebang(path)
    node = any(Path(word).name in NODE_COMMANDS for word in shebang)
    if os.access(path, os.X_OK):
        return Command((str(path), *arguments), node, name)
    if shebang:
        return Command((_interpreter(shebang[0], path), *shebang[1:], str(path), *arguments), node, name)
    raise CliError(
        ExitCode.USAGE,
        f"{path} is not executable and names no interpreter: chmod +x it, or put the interpreter first: "
        f"fleetctl start node -- {target}",
    )


def _interpreter(name: str, path: Path) -> str:
    found = shutil.which(name)
    if found is None:
        raise CliError(
            ExitCode.NOT_FOUND, f"{path.name} needs {name}, which is not on PATH: install it, then say it again"
        )
    return str(Path(found).absolute())


def _shebang(path: Path) -> list[str]:
    """The words of a `#!` line: the interpreter and at most one argument (execve(2)); empty where there is none."""
    with path.open("rb") as stream:
        line = stream.readline(256)
    if not line.startswith(b"#!"):
        return []
    return line[2:].decode(errors="replace").strip().split(maxsplit=1)


def _script_name(path: Path) -> str:
    if path.stem.lower() not in _GENERIC_STEMS:
        return sanitised(path.stem)
    return _folder_name(path.parent)


def _folder_name(folder: Path) -> str:
    """What package.json there calls the package, without its scope; else the folder's own name."""
    try:
        package = json.loads((folder / "package.json").read_text())
    except (OSError, ValueError):
        package = None
    name = package.get("name") if isinstance(package, dict) else None
    if isinstance(name, str) and (clean := sanitised(name.rpartition("/")[2])):
        return clean
    return sanitised(folder.name)


def _command_name(command: str, arguments: tuple[str, ...], folder: Path) -> str:
    if command in _PACKAGE_MANAGERS:
        return _folder_name(folder)
    if command in NODE_COMMANDS or command.startswith("python"):
        for argument in arguments:
            if not argument.startswith("-") and (folder / argument).is_file():
                return _script_name(Path(os.path.normpath(folder / argument)))
    return sanitised(Path(command).name)


def sanitised(text: str) -> str:
    """`text` as an app's name: lower case, other characters become hyphens; "" when nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_NAME_LENGTH].rstrip("-")
