"""An app's command as a file says it: `command`, or `script` with `args` and `interpreter`. Pure: the hosts' disks count, not
this machine's, so a program without a slash is looked for on the worker's own PATH."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePath

from fleet_core.spec import Runtime
from fleetctl.fleet_file.paths import absolute, within_code
from fleetctl.fleet_file.reader import Reader
from fleetctl.fleet_file.tree import Path_, Scalar, Table
from fleetctl.target import INTERPRETERS, NODE_COMMANDS


@dataclass(frozen=True, slots=True)
class CommandLine:
    argv: tuple[str, ...]
    runtime: Runtime


def usual_runtime(argv: tuple[str, ...]) -> Runtime:
    """node for what runs in Node as it is, also below a package manager."""
    return Runtime.NODE if PurePath(argv[0]).name in NODE_COMMANDS else Runtime.PROGRAM


def command_line(reader: Reader, table: Table, path: Path_, folder: Path | None, cwd: str = ".") -> CommandLine | None:
    """None where it was complained about. `folder`: of the file; None: a script lies in the code, from `cwd` there."""
    entries = table.entries
    if "command" in entries:
        for other in ("script", "args", "interpreter"):
            if other in entries:
                reader.complain(table.keys.get(other), (*path, other), "it goes with script; command has it all")
                return None
        words = reader.words(entries["command"], (*path, "command"))
        return CommandLine(words, usual_runtime(words)) if words else None
    if "script" not in entries:
        reader.complain(table.place, path, "what shall run? Write command, or script")
        return None
    script = entries["script"]
    if not isinstance(script, Scalar) or script.value is None or not script.text:
        reader.complain(script.place, (*path, "script"), "write the path of a file")
        return None
    args = reader.words(entries["args"], (*path, "args")) if "args" in entries else ()
    interpreter = _interpreter(reader, table, path, script.text)
    if folder is not None:
        file = absolute(script.text, folder)
    else:
        below = within_code(script.text)
        if below is None:
            reader.complain(
                script.place, (*path, "script"), "it is not in the code: write a path from the code's folder"
            )
            return None
        below = os.path.relpath(below, cwd)
        file = below if below.startswith("../") else f"./{below}"
    argv = (*interpreter, file, *args)
    return CommandLine(argv, usual_runtime(argv))


def _interpreter(reader: Reader, table: Table, path: Path_, script: str) -> tuple[str, ...]:
    if "interpreter" in table.entries:
        return reader.words(table.entries["interpreter"], (*path, "interpreter"))
    known = INTERPRETERS.get(PurePath(script).suffix)
    return (known,) if known else ()
