"""`logs`: what workers write, merged, each line with its worker in front."""

import asyncio
import sys
import zlib
from contextlib import aclosing

import click

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.client.log_stream import MOST_LINES, UNFOLLOWED_SECONDS, USUAL_LINES, log_stream
from fleetctl.command import POSITIVE_DURATION, WholeNumber, fleet_command
from fleetctl.connection import Connection
from fleetctl.errors import CliError, ExitCode
from fleetctl.lifecycle import parse_worker
from fleetctl.names import complete_apps, complete_hosts, complete_workers
from fleetctl.output import Output
from fleetctl.settings import Settings
from fleetctl.wording import coloured_line, count, duration, printed_line

# Of the 256-colour palette, those that are legible on black and on white.
_COLOURS = (32, 35, 70, 97, 103, 130, 133, 136, 166, 168, 172, 175)
_RED, _RESET = "\x1b[31m", "\x1b[0m"


@fleet_command("logs")
@click.argument("app", required=False, default="", shell_complete=complete_apps)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option(
    "--lines",
    type=WholeNumber(0, MOST_LINES),
    metavar="N",
    help="The last N of each worker's streams; default: 20, or all with --since.",
)
@click.option("--since", type=POSITIVE_DURATION, metavar="TIME", help="Only what was written in the last 10m, 1h, 2d.")
@click.option("--host", metavar="HOST", shell_complete=complete_hosts, default="", help="Only this host's workers.")
@click.option(
    "--worker", metavar="APP/HOST/SLOT", shell_complete=complete_workers, default="", help="Only this worker."
)
def logs(
    settings: Settings,
    app: str,
    follow: bool,  # noqa: FBT001
    lines: int | None,
    since: float | None,
    host: str,
    worker: str,
) -> None:
    """Print what workers write, and follow it with -f.

    A line begins with its worker, then | for standard output or ! for standard error.
    """
    if lines is None:
        lines = MOST_LINES if since else USUAL_LINES
    request = control_pb2.StreamLogsRequest(app=app, host=host, lines=lines, follow=follow, since_seconds=since or 0)
    if worker:
        slot = parse_worker(worker, app)
        if host and host != slot.host:
            raise click.UsageError(f"worker {worker} is not on {host}", click.get_current_context())
        request.app, request.host, request.slot = slot.app, slot.host, slot.slot
    printer = LogPrinter(Output(settings))
    limit = settings.timeout or (None if follow else UNFOLLOWED_SECONDS)
    try:
        asyncio.run(_print(settings, request, printer, limit))
    except KeyboardInterrupt:
        # Quietly: this is how following ends. The shell's prompt gets a line of its own.
        if sys.stderr.isatty():
            click.echo(err=True)
        click.get_current_context().exit(ExitCode.DETACHED)


class LogPrinter:
    """Prints entries, and names a host that could not be asked once."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._coloured = output.console.color_system is not None
        self._width = 0
        self._missed: set[str] = set()
        self.shown = 0
        """Lines printed."""
        self._colours: dict[str, int] = {}

    def show(self, response: control_pb2.StreamLogsResponse) -> None:
        entries = response.entries
        self.shown += len(entries)
        if self._output.settings.structured:
            for entry in entries:
                self._output.record(views.log_view(entry))
        else:
            # A column that only widens: lines of one batch stand in line.
            self._width = max([self._width, *(len(_worker(entry)) for entry in entries)])
            sys.stdout.write("".join(self._line(entry) for entry in entries))
            sys.stdout.flush()
        missed = sorted(set(response.unreachable_hosts) - self._missed)
        if missed:
            self._missed.update(missed)
            self.note(
                f"{count(len(missed), 'host')} could not be asked: {', '.join(missed)}; fleetctl host ls shows more"
            )

    def note(self, text: str) -> None:
        self._output.note(text)

    def _colour(self, worker: str) -> int:
        """Its own as long as there are enough; most often the same one each time the logs are looked at."""
        if worker not in self._colours:
            first = zlib.crc32(worker.encode()) % len(_COLOURS)
            turns = [*_COLOURS[first:], *_COLOURS[:first]]
            taken = set(self._colours.values())
            self._colours[worker] = next((colour for colour in turns if colour not in taken), turns[0])
        return self._colours[worker]

    def _line(self, entry: control_pb2.LogEntry) -> str:
        worker = _worker(entry)
        bar = "!" if entry.stream == "stderr" else "|"
        text = entry.text.decode(errors="replace")
        if self._output.console.is_terminal:
            # A program may print anything; it may not move the cursor over other workers' lines, nor switch screens.
            text = coloured_line(text) if self._coloured else printed_line(text)
        if not self._coloured:
            return f"{worker:<{self._width}} {bar} {text}\n"
        colour = f"\x1b[38;5;{self._colour(worker)}m"
        if entry.stream == "stderr":
            bar = f"{_RESET}{_RED}{bar}"
        return f"{colour}{worker:<{self._width}} {bar}{_RESET} {text}{_RESET}\n"


async def _print(
    settings: Settings, request: control_pb2.StreamLogsRequest, printer: LogPrinter, limit: float | None
) -> None:
    async with Connection.open(settings) as connection:
        try:
            async with asyncio.timeout(limit):
                async with aclosing(log_stream(connection, request, printer.note)) as responses:
                    async for response in responses:
                        printer.show(response)
                if not printer.shown and not request.follow:
                    printer.note("no lines")
        except TimeoutError:
            if request.follow:
                return
            raise CliError(
                ExitCode.STILL_RUNNING, f"the hosts did not send all lines within {duration(limit or 0)}: ask for fewer"
            ) from None


def _worker(entry: control_pb2.LogEntry) -> str:
    return f"{entry.app}/{entry.host}/{entry.slot}"
