"""`import`: a fleet file from what another supervisor runs on this machine."""

import os
from collections.abc import Callable
from pathlib import Path

import click

from fleetctl.command import fleet_command
from fleetctl.errors import CliError, ExitCode
from fleetctl.export import write_file
from fleetctl.fleet_file.tree import FleetFileError
from fleetctl.fleet_file.writer import app_entry, document
from fleetctl.fleet_source import refused
from fleetctl.moving.forever import app_of_process, apps_of_forever, processes_of
from fleetctl.moving.imported import Imported, content_of, printed_by, together
from fleetctl.moving.pm2 import apps_of_pm2
from fleetctl.moving.slc import DATABASE_FILE, MEMORY_FILE, apps_of_slc, models_of_database, models_of_json
from fleetctl.moving.systemd import apps_of_systemd
from fleetctl.output import Output
from fleetctl.settings import Settings
from fleetctl.wording import count

_OUT = click.option(
    "-f", "--file", "out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Where to write it; default: standard output.",
)  # fmt: skip
_SOURCE = click.argument("source", required=False, type=click.Path(path_type=Path))


@click.group("import")
def import_() -> None:
    """Write a fleet file from what another supervisor runs here.

    Nothing is stopped, started or asked of the fleet. What a fleet file cannot say, and what you have to look at, is told in a
    line each on standard error; docs/moving/ has a page for each of them.
    """


@fleet_command("pm2")
@_SOURCE
@_OUT
def pm2(settings: Settings, source: Path | None, out: Path | None) -> None:
    """Write a fleet file of what PM2 runs.

    SOURCE is a file with what `pm2 jlist` prints, or the dump of `pm2 save`. Without it `pm2 jlist` is asked, or where no PM2
    runs, its dump is read.
    """
    home = Path(os.environ.get("PM2_HOME") or Path.home() / ".pm2")
    if source is None and not (home / "rpc.sock").exists():
        # pm2 would start its daemon to answer.
        source = home / "dump.pm2"
        if not source.exists():
            raise CliError(ExitCode.NOT_FOUND, f"no PM2 runs, and there is no {source}: name a file, or set PM2_HOME")
    text = content_of(source) if source else printed_by(("pm2", "jlist"))
    _write(settings, out, lambda: apps_of_pm2(text, str(source or "pm2 jlist"), os.environ))


@fleet_command("systemd")
@click.argument("units", nargs=-1, required=True, metavar="UNIT...")
@_OUT
def systemd(settings: Settings, units: tuple[str, ...], out: Path | None) -> None:
    """Write a fleet file of systemd's services.

    UNIT is a unit file, or a unit's name, which `systemctl cat` is asked for.
    """

    def each() -> Imported:
        return together(apps_of_systemd(_unit(unit), Path(unit).name, unit) for unit in units)

    _write(settings, out, each)


@fleet_command("forever")
@_SOURCE
@_OUT
def forever(settings: Settings, source: Path | None, out: Path | None) -> None:
    """Write a fleet file of what forever runs.

    SOURCE is a file as `forever start` takes it. Without it `forever list` is asked, and the processes themselves for their
    command lines.
    """
    if source is not None:
        text = content_of(source)
        _write(settings, out, lambda: apps_of_forever(text, str(source)))
        return
    processes = processes_of(printed_by(("forever", "list", "--plain")))
    _write(settings, out, lambda: together(app_of_process(each, *_of_process(each.pid)) for each in processes))


@fleet_command("slc")
@_SOURCE
@_OUT
def slc(settings: Settings, source: Path | None, out: Path | None) -> None:
    """Write a fleet file of StrongLoop Process Manager's services.

    SOURCE is strong-pm's folder, default ~/.strong-pm: its strong-mesh.db or strong-pm.json is read.
    """
    base = (source or Path.home() / ".strong-pm").absolute()
    database, memory = base / DATABASE_FILE, base / MEMORY_FILE

    def read() -> Imported:
        if database.exists():
            return apps_of_slc(models_of_database(database), base, str(database))
        if memory.exists():
            return apps_of_slc(models_of_json(content_of(memory), str(memory)), base, str(memory))
        raise CliError(
            ExitCode.NOT_FOUND, f"there is no {DATABASE_FILE} and no {MEMORY_FILE} in {base}: name strong-pm's folder"
        )

    _write(settings, out, read)


for _command in (pm2, systemd, forever, slc):
    import_.add_command(_command)


def _write(settings: Settings, out: Path | None, read: Callable[[], Imported]) -> None:
    """Raises CliError."""
    output = Output(settings)
    try:
        imported = read()
    except FleetFileError as error:
        raise refused(error) from error
    for warning in imported.warnings:
        output.note(warning)
    if not imported.apps:
        raise CliError(ExitCode.NOT_FOUND, "there is no app to import")
    entries = {app.name: app_entry(app.spec, app.size) for app in imported.apps}
    if out is not None:
        write_file(output, out, document(entries))
        output.note(f"{out}: {count(len(entries), 'app')}; look at it, then `fleetctl apply -f {out} --dry-run`")
    elif settings.structured:
        output.document({"apps": entries})
    else:
        click.echo(document(entries), nl=False)


def _unit(unit: str) -> str:
    return content_of(Path(unit)) if "/" in unit or Path(unit).is_file() else printed_by(("systemctl", "cat", unit))


def _of_process(pid: int) -> tuple[list[str], str]:
    """A process's command line and working directory (proc(5)). Raises CliError."""
    process = Path("/proc") / str(pid)
    try:
        words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return [os.fsdecode(word) for word in words], os.readlink(process / "cwd")  # noqa: PTH115 (a text)
    except OSError as error:
        raise CliError(ExitCode.FAILED, f"process {pid} of forever cannot be looked at: {error.strerror}") from error
