"""The spec of an app whose code is sent: what it runs, where, and how it is built."""

import os
import shlex
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from fleet.v1 import control_pb2, types_pb2
from fleetctl.client.size import Size
from fleetctl.errors import CliError, ExitCode
from fleetctl.target import INTERPRETERS, NODE_COMMANDS, Command

_BUILD_SECONDS = 300.0


def moved_into(spec: types_pb2.AppSpec, folder: Path | None, run: Command | None) -> types_pb2.AppSpec:
    """The spec for code that was sent: what named `folder` on this machine names the unpacked code on a host.

    What lies in the app's old working directory is looked for in `folder`, too. Raises CliError where nothing of the command
    would run the new code.
    """
    moved = types_pb2.AppSpec()
    moved.CopyFrom(spec)
    first_time = spec.cwd.startswith("/")
    if first_time:
        moved.cwd = inside(spec.cwd, folder) or "."
    if run is not None:
        moved.argv[:] = run.argv
        moved.runtime = types_pb2.RUNTIME_NODE if run.node else types_pb2.RUNTIME_PROGRAM
    elif first_time:
        moved.argv[:] = [_moved_word(word, Path(spec.cwd), folder, moved.cwd) for word in spec.argv]
        if moved.argv[0].startswith("./") or not moved.argv[0].startswith("/"):
            return moved
        outside = [word for word in moved.argv[1:] if word.startswith("/")]
        if outside:
            raise CliError(
                ExitCode.USAGE,
                f"{spec.name} runs {outside[0]}, which is not in what is deployed",
                "say what to run there with --run, for example --run 'node server.js'",
            )
    return moved


def _moved_word(word: str, old: Path, folder: Path | None, cwd: str) -> str:
    below = inside(word, folder)
    if below is None:
        below = inside(word, old)
        if below is None or (folder is not None and not (folder / below).exists()):
            return word
    below = os.path.relpath(below, cwd)
    return below if "/" in below else f"./{below}"


def command_of(words: tuple[str, ...], folder: Path | None) -> Command:
    """A program is looked for on each host's PATH, its venv first; a script is run by its interpreter. Raises CliError."""
    name = words[0].removeprefix("./")
    sent = folder is not None and not name.startswith("/") and (folder / name).is_file()
    interpreter = INTERPRETERS.get(Path(name).suffix)
    if folder is not None and "/" in words[0] and not words[0].startswith("/") and not sent:
        raise CliError(ExitCode.NOT_FOUND, f"there is no file {words[0]} in what is deployed from {folder}")
    if interpreter and (sent or folder is None):
        return Command((interpreter, f"./{name}", *words[1:]), interpreter == "node", "")
    if folder is not None and sent:
        if not os.access(folder / name, os.X_OK):
            raise CliError(ExitCode.USAGE, f"{words[0]} is not executable: chmod +x it, or name its interpreter first")
        return Command((f"./{name}", *words[1:]), _runs_node(folder / name), "")
    return Command(words, Path(words[0]).name in NODE_COMMANDS, "")


def _runs_node(script: Path) -> bool:
    with script.open("rb") as stream:
        line = stream.readline(256)
    words = line[2:].decode(errors="replace").split() if line.startswith(b"#!") else []
    return any(Path(word).name in NODE_COMMANDS for word in words)


def inside(path: str, folder: Path | None) -> str | None:
    """`path` relative to `folder`; None: it is not in it."""
    if folder is None or not path.startswith("/"):
        return None
    for root in (folder, folder.resolve()):
        try:
            return str(PurePosixPath(path).relative_to(root))
        except ValueError:
            continue
    return None


def build_policy(build: str | None, *, no_build: bool, seconds: float | None) -> types_pb2.BuildPolicy | None:
    """None: as the app has it. Raises CliError."""
    if build is None and not no_build and seconds is None:
        return None
    command = [] if build is None else words("--build", build)
    return types_pb2.BuildPolicy(command=command, skip=no_build, timeout_seconds=seconds or _BUILD_SECONDS)


def words(option: str, text: str) -> list[str]:
    """As a shell would split them. Raises CliError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise CliError(ExitCode.USAGE, f"{option} {text!r}: {error}") from error
    if not words:
        raise CliError(ExitCode.USAGE, f"{option} is empty: name a program and its arguments")
    return words


def without_command(app: str, example: str) -> CliError:
    """To be raised."""
    text = f"no app is named {app}, and a new one needs a command to run in the code: {example}"
    return CliError(ExitCode.NOT_FOUND, text, "`fleetctl ls` shows the apps")


def check_same_place(known: control_pb2.App, size: Size | None, hosts: Collection[str]) -> None:
    """How many workers an app that exists has, and where, is no matter of its code. Raises CliError."""
    app = known.name
    if size is not None and size.absolute not in (None, known.size):
        text = f"{app} has {known.size} workers already: `fleetctl set-size {app} {size.absolute}` changes that"
        raise CliError(ExitCode.USAGE, text)
    placed = {host for host, workers in known.placement.items() if workers}
    if hosts and set(hosts) != placed:
        where = ", ".join(sorted(placed)) or "no host"
        text = f"{app} runs on {where}: `fleetctl set-size {app} SIZE --host HOST` changes that"
        raise CliError(ExitCode.USAGE, text)


def folder_within(cwd: Path, folder: Path | None) -> str:
    """A working directory of this machine, inside the code. Raises CliError."""
    below = inside(str(cwd), folder)
    if below is None:
        raise CliError(ExitCode.USAGE, f"--cwd {cwd} is not in what is deployed: name a folder in it")
    return below
