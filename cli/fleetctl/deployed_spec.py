"""The spec of an app that begins with its code, as the command line says it."""

from pathlib import Path

from fleet.v1 import types_pb2
from fleetctl.code_spec import command_of, folder_within, without_command
from fleetctl.target import INTERPRETERS
from fleetctl.wish import Wish


def new_spec(app: str, wish: Wish, words: tuple[str, ...], cwd: Path | None, folder: Path | None) -> types_pb2.AppSpec:
    """Of an app that begins with its code. `folder`: what is sent; None: an archive. Raises CliError."""
    if not words:
        raise without_command(app, _example(app, folder))
    spec = wish.spec(app, command_of(words, folder)).to_proto()
    spec.cwd = "." if cwd is None else folder_within(cwd, folder)
    return spec


def _example(app: str, folder: Path | None) -> str:
    """A command that this code may well have."""
    names = ("server.js", "index.js", "app.js", "main.py", "app.py")
    found = next((name for name in names if folder is not None and (folder / name).is_file()), "")
    if folder is not None and (folder / "package.json").is_file():
        command = "npm start"
    else:
        command = f"{INTERPRETERS[Path(found).suffix]} {found}" if found else "node server.js"
    return f"fleetctl deploy {app} -- {command}"
