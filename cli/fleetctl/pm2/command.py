"""What PM2 would run for a script: its interpreter, its arguments (PM2's Common.js, lib/API/interpreter.json)."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from fleetctl.target import NODE_COMMANDS

_INTERPRETERS = {
    ".js": "node",
    ".cjs": "node",
    ".mjs": "node",
    ".sh": "bash",
    ".py": "python3",
    ".rb": "ruby",
    ".php": "php",
    ".pl": "perl",
    ".coffee": "coffee",
    ".ls": "lsc",
    ".ts": "bun",
    ".tsx": "bun",
}
_HEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]
    cwd: str
    default_name: str
    python: bool = False


def working_directory(given: Any, folder: Path) -> str:
    return os.path.normpath(folder / Path(str(given or ".")).expanduser())


def command(script: str, interpreter: str, node_args: tuple[str, ...], args: tuple[str, ...], cwd: str) -> Command:
    """`interpreter` empty: PM2's choice."""
    if " " in script:
        shell = "bash" if shutil.which("bash") else "sh"
        return Command((shell, "-c", script), cwd, script)
    path = Path(os.path.normpath(Path(cwd) / script))
    on_path = not os.path.exists(path) and "/" not in script and path.suffix not in _INTERPRETERS  # noqa: PTH110 (a name no disk has raises there)
    program = script if on_path else str(path)
    chosen = interpreter or ("" if on_path else _usual(path))
    if chosen.startswith("node@"):
        chosen = "node"
    name = PurePath(script).stem if path.suffix in _INTERPRETERS else PurePath(script).name
    if not chosen or chosen == "none":
        return Command((program, *args), cwd, name)
    if on_path:
        # An interpreter wants a path, and PM2 looks for it on PATH here.
        program = shutil.which(script) or str(path)
    before = node_args if PurePath(chosen).name in NODE_COMMANDS or node_args else ()
    return Command((chosen, *before, program, *args), cwd, name, python="python" in chosen)


def _usual(path: Path) -> str:
    """By its suffix; else Node for a text, as PM2 has it, unless the file says itself what runs it. "": the file by itself."""
    known = _INTERPRETERS.get(path.suffix)
    if path.suffix == ".ts" and shutil.which("bun") is None:
        return "node"  # which takes types away itself, from 22.18 on
    if known is not None:
        return known
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except IsADirectoryError:
        return "node"
    except OSError:
        return ""
    by_itself = b"\0" in head or (head.startswith(b"#!") and os.access(path, os.X_OK))
    return "" if by_itself else "node"
