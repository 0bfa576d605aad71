"""What an import finds, and how it reads what other programs print."""

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetctl.errors import CliError, ExitCode
from fleetctl.fleet_file.document import MOST_BYTES, WantedApp

MOST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Imported:
    apps: tuple[WantedApp, ...]
    warnings: tuple[str, ...] = ()
    """What a fleet file cannot say of them, or what has to be looked at, a line each."""


def together(found: Iterable[Imported]) -> Imported:
    """Several of them as one. Raises CliError where two apps have one name."""
    apps: dict[str, WantedApp] = {}
    warnings: list[str] = []
    for each in found:
        for app in each.apps:
            if app.name in apps:
                raise CliError(ExitCode.USAGE, f"two of them would be the app {app.name}: import them one by one")
            apps[app.name] = app
        warnings += each.warnings
    return Imported(tuple(apps.values()), tuple(warnings))


def printed_by(command: Sequence[str]) -> str:
    """What a program prints. Raises CliError where it is not there, fails, or takes longer than MOST_SECONDS."""
    program = shutil.which(command[0])
    if program is None:
        raise CliError(ExitCode.NOT_FOUND, f"{command[0]} is not on PATH here: name a file to import instead")
    said = " ".join(command)
    try:
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, stdin=subprocess.DEVNULL, timeout=MOST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise CliError(ExitCode.FAILED, f"{said} did not end within {MOST_SECONDS:g} s") from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {done.returncode}"]
        raise CliError(ExitCode.FAILED, f"{said}: {reason[-1]}")
    return done.stdout.decode(errors="replace")


def content_of(path: Path) -> str:
    """Raises CliError."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise CliError(ExitCode.NOT_FOUND, f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise CliError(ExitCode.USAGE, f"{path} is longer than {MOST_BYTES // 1024 // 1024} MiB")
    return content.decode(errors="replace")
