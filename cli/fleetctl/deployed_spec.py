"""What the command line says of code that is sent: the command in it, its folder, and the spec of an app that begins with it."""

from pathlib import Path

from fleet.v1 import types_pb2
from fleetctl.code_spec import command_of, inside
from fleetctl.errors import CliError, ExitCode
from fleetctl.target import INTERPRETERS
from fleetctl.wish import Wish


def new_spec(app: str, wish: Wish, words: tuple[str, ...], cwd: Path | None, folder: Path | None) -> types_pb2.AppSpec:
    """Of an app that begins with its code. `folder`: what is sent; None: an archive. Raises CliError."""
    if not words:
        raise CliError(
            ExitCode.NOT_FOUND,
            f"no app is named {app}, and a new one needs a command to run in the code: {_example(app, folder)}",
            "`fleetctl ls` shows the apps",
        )
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


def folder_within(cwd: Path, folder: Path | None) -> str:
    """A working directory of this machine, inside the code. Raises CliError."""
    below = inside(str(cwd), folder)
    if below is None:
        raise CliError(ExitCode.USAGE, f"--cwd {cwd} is not in what is deployed: name a folder in it")
    return below
