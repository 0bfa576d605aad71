"""`export`: a fleet file of what runs."""

from collections.abc import Sequence
from pathlib import Path

import click

from fleet.v1 import control_pb2
from fleet_core.spec import AppSpec
from fleetctl.applying import present_fleet
from fleetctl.command import fleet_command
from fleetctl.errors import CliError, ExitCode
from fleetctl.fleet_file.size import Wanted
from fleetctl.fleet_file.writer import app_entry, document
from fleetctl.names import complete_apps
from fleetctl.output import Output
from fleetctl.settings import Settings
from fleetctl.wording import count


@fleet_command("export")
@click.argument("names", metavar="[APP]...", nargs=-1, shell_complete=complete_apps)
@click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to write it; default: standard output. An existing file is replaced only with --yes, or when you say so.",
)
def export(settings: Settings, names: tuple[str, ...], path: Path | None) -> None:
    """Write a fleet file of the apps that run.

    To apply it changes nothing. A stopped app is left out, unless it is named: to apply the file would start it.
    """
    output = Output(settings)
    apps = _chosen(output, present_fleet(settings)[0], names)
    try:
        entries = {app.name: app_entry(AppSpec.from_proto(app.spec), _size(app)) for app in apps}
    except ValueError as error:
        raise CliError(
            ExitCode.FAILED, "this fleetctl cannot read what the controller has of an app: upgrade fleetctl"
        ) from error
    if path is not None:
        write_file(output, path, document(entries))
        output.note(f"{path}: {count(len(entries), 'app')}")
    elif settings.output == "json":
        output.document({"apps": entries})
    else:
        click.echo(document(entries), nl=False)


def write_file(output: Output, path: Path, text: str) -> None:
    """Asks before it replaces a file. Raises CliError."""
    if path.suffix == ".toml":
        raise CliError(ExitCode.USAGE, f"{path}: a fleet file is written in YAML: name it .yaml")
    if path.exists():
        output.confirm(f"Replace {path}?")
    try:
        path.write_text(text)
    except OSError as error:
        raise CliError(ExitCode.FAILED, f"{path} cannot be written: {error.strerror}") from error


def _chosen(output: Output, present: Sequence[control_pb2.App], names: Sequence[str]) -> list[control_pb2.App]:
    by_name = {app.name: app for app in present}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise CliError(ExitCode.NOT_FOUND, f"no app is named {missing[0]}", "`fleetctl ls` shows the apps")
    chosen = []
    for app in (by_name[name] for name in dict.fromkeys(names)) if names else sorted(present, key=lambda app: app.name):
        if app.state == control_pb2.APP_STATE_STOPPED and names:
            output.note(f"{app.name} is stopped: to apply this file starts it")
        elif app.state != control_pb2.APP_STATE_RUNNING:
            word = "stopped" if app.state == control_pb2.APP_STATE_STOPPED else "being removed"
            output.note(f"{app.name} is {word}: left out")
            continue
        chosen.append(app)
    return chosen


def _size(app: control_pb2.App) -> Wanted:
    if app.size_mode == control_pb2.SIZE_MODE_PINNED:
        return Wanted(hosts={host: count for host, count in app.placement.items() if count})
    return Wanted(count=app.size)
