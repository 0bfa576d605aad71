"""`export`: a fleet file of what runs."""

from pathlib import Path

import click

from fleetctl.applying import present_fleet
from fleetctl.command import fleet_command
from fleetctl.errors import CliError, ExitCode
from fleetctl.exported import exported
from fleetctl.fleet_file.writer import document
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
    entries, notes = exported(present_fleet(settings).apps, names)
    for note in notes:
        output.note(note)
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
