"""Sends code and shows how far it is."""

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from fleetctl.connection import Connection
from fleetctl.output import Output
from fleetctl.packing import Archive
from fleetctl.upload import upload
from fleetctl.wording import count
from fleetctl.wording import size as bytes_shown


async def send(connection: Connection, archive: Archive, output: Output) -> None:
    """Returns when the controller has it. Raises FleetError."""
    console = output.errors
    shown = console.is_terminal and not output.settings.quiet
    columns = (TextColumn("sending"), BarColumn(24), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task("", total=archive.size)
        sent = await upload(connection, archive, lambda bytes_there: progress.update(task, completed=bytes_there))
    if not output.settings.quiet and not output.settings.structured:
        what = (
            f"{count(archive.files, 'file')}, {bytes_shown(archive.size)}"
            if archive.files
            else bytes_shown(archive.size)
        )
        output.line(f"code {archive.digest[:12]} ({what}) {'sent' if sent else 'is there already'}")
