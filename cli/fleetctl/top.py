"""`top`: who uses what, now; a screen that stays up to date on a terminal, a table or a stream elsewhere."""

import asyncio
import os
import signal
import sys
from contextlib import ExitStack

import click
from rich.console import Group
from rich.live import Live

from fleetctl import views
from fleetctl.client.overview import snapshot_of
from fleetctl.command import POSITIVE_DURATION, fleet_command
from fleetctl.connection import Connection
from fleetctl.errors import CliError, ExitCode, FleetError, UnavailableError
from fleetctl.keyboard import keys
from fleetctl.names import complete_apps
from fleetctl.output import Output
from fleetctl.settings import Settings
from fleetctl.top_view import last_skip, screen, whole
from fleetctl.usage import Order, Snapshot, ordered, snapshot_view
from fleetctl.wording import duration

_SHORTEST_SECONDS = 0.1
_STALE_SECONDS = 3.0
_TICK_SECONDS = 1.0
_ORDERS = {order.key: order for order in Order}
_STEPS = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -10, "page down": 10, " ": 10}


@fleet_command("top")
@click.argument("app", required=False, default="", shell_complete=complete_apps)
@click.option("--interval", type=POSITIVE_DURATION, default=2.0, metavar="TIME", help="Between two looks; default: 2s.")
@click.option("--once", is_flag=True, help="Look once, and print all of it.")
@click.option(
    "--sort",
    type=click.Choice([order.name.lower() for order in Order]),
    default="cpu",
    help="Workers by this; default: cpu.",
)
def top(settings: Settings, app: str, interval: float, once: bool, sort: str) -> None:  # noqa: FBT001
    """Show who uses how much, live on a terminal.

    CPU is per cent of one core. The keys c, m, u, r and n sort by CPU, memory, uptime (the youngest first), restarts and
    name; the arrows scroll; q quits. With -o json, an object a line at each interval.
    """
    if interval < _SHORTEST_SECONDS:
        raise CliError(ExitCode.USAGE, "--interval: it is too short, write 100ms or more")
    output = Output(settings)
    order = Order[sort.upper()]
    terminal = output.console.is_terminal and not output.console.is_dumb_terminal
    live = terminal and not settings.structured and not settings.quiet
    streams = settings.structured or live
    try:
        asyncio.run(_look(output, app, order, None if once or not streams else interval, live=live))
    except KeyboardInterrupt:
        # Quietly: this is how watching ends.
        click.get_current_context().exit(ExitCode.DETACHED)


async def _look(output: Output, app: str, order: Order, interval: float | None, *, live: bool) -> None:
    """Once, where `interval` is None; else until q, an interrupt or --timeout. Raises CliError."""
    async with Connection.open(output.settings) as connection:
        first = await snapshot_of(connection, app)
        if interval is None:
            _print(output, first, order)
            return
        try:
            async with asyncio.timeout(output.settings.timeout):
                if live:
                    await _Screen(output, connection, app, order, first).show(interval)
                else:
                    await _stream(output, connection, app, order, first, interval)
        except TimeoutError:
            return


def _print(output: Output, snapshot: Snapshot, order: Order) -> None:
    if output.settings.structured:
        output.record(snapshot_view(snapshot, order))
    elif output.settings.quiet:
        output.names(views.worker_name(worker.id) for worker in ordered(snapshot.workers, order))
    else:
        for line in whole(snapshot, order, output.console.width):
            output.line(line)


async def _stream(
    output: Output, connection: Connection, app: str, order: Order, snapshot: Snapshot, interval: float
) -> None:
    away = False
    while True:
        if not away:
            output.record(snapshot_view(snapshot, order))
        await asyncio.sleep(interval)
        try:
            snapshot = await snapshot_of(connection, app)
        except UnavailableError as error:
            if not away:
                output.note(f"{error.message.partition(';')[0]}: nothing is printed until one is back")
            away = True
        else:
            away = False


class _Screen:
    """The live view: redrawn when there is news, a key, another size, or nothing new for too long."""

    def __init__(self, output: Output, connection: Connection, app: str, order: Order, first: Snapshot) -> None:
        self._console = output.console
        self._connection = connection
        self._app = app
        self._order = order
        self._snapshot = first
        self._skip = 0
        self._trouble = ""
        self._ended = False
        self._suspended = False
        self._changed = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._heard = self._clock()

    async def show(self, interval: float) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self._changed.set)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        loop.add_signal_handler(signal.SIGTERM, self._pressed, "q")
        poller = asyncio.create_task(self._poll(interval))
        poller.add_done_callback(lambda _task: self._changed.set())
        try:
            while not self._ended:
                await self._on_screen(poller)
                if self._suspended:
                    self._suspended = False
                    os.kill(os.getpid(), signal.SIGSTOP)  # the shell's `fg` goes on here
        finally:
            poller.cancel()
            await asyncio.gather(poller, return_exceptions=True)
            for number in (signal.SIGWINCH, signal.SIGTSTP, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def _on_screen(self, poller: asyncio.Task[None]) -> None:
        """Until q, or until it is suspended; the terminal is left as it was."""
        with ExitStack() as stack:
            stack.enter_context(keys(sys.stdin, self._pressed))
            live = stack.enter_context(
                Live(
                    self._drawn(),
                    console=self._console,
                    screen=True,
                    auto_refresh=False,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
            )
            while not self._ended and not self._suspended:
                if poller.done():
                    poller.result()  # raises what ended it
                self._changed.clear()
                live.update(self._drawn(), refresh=True)
                try:
                    async with asyncio.timeout(_TICK_SECONDS if self._trouble else None):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def _drawn(self) -> Group:
        width, height = self._console.size
        lines = screen(self._snapshot, self._order, width=width, height=height, skip=self._skip, remark=self._remark())
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*lines)

    def _remark(self) -> str:
        if not self._trouble:
            return ""
        return f"no news for {duration(int(self._clock() - self._heard))}: {self._trouble}"

    async def _poll(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            try:
                # A call may take longer than people look at a screen without wondering.
                async with asyncio.timeout(_STALE_SECONDS + interval):
                    self._snapshot = await snapshot_of(self._connection, self._app)
            except FleetError as error:
                self._trouble = error.message.partition(";")[0]
            except TimeoutError:
                self._trouble = "the controller does not answer"
            else:
                self._heard, self._trouble = self._clock(), ""
            self._skip = min(self._skip, last_skip(len(self._snapshot.workers)))
            self._changed.set()

    def _pressed(self, key: str) -> None:
        if key == "q":
            self._ended = True
        elif key in _ORDERS:
            self._order, self._skip = _ORDERS[key], 0
        elif key in _STEPS:
            self._skip = max(0, min(self._skip + _STEPS[key], last_skip(len(self._snapshot.workers))))
        self._changed.set()

    def _suspend(self) -> None:
        self._suspended = True
        self._changed.set()
