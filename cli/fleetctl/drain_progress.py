"""How a drain under way is shown: as a rollout is, with a line for each app that still has workers on the host."""

import time
from collections.abc import Callable
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fleet.v1 import control_pb2
from fleetctl.output import Output
from fleetctl.wording import count, duration, printable

_FRAMES_PER_SECOND = 8
_INDENT = 2


class DrainProgress:
    """Shows nothing; others show more."""

    def update(self, drain: control_pb2.WatchDrainResponse) -> None:
        pass

    def trouble(self, text: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Lines(DrainProgress):
    """A line for each change, for logs and pipes."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._told: dict[str, str] = {}
        self._apps: set[str] = set()

    def update(self, drain: control_pb2.WatchDrainResponse) -> None:
        for app in drain.apps:
            self._tell(app.app, f"{app.workers_left} left, {app.doing}" if app.doing else f"{app.workers_left} left")
        for gone in sorted(self._apps - {app.app for app in drain.apps}):
            self._tell(gone, "none left")
        self._apps.update(app.app for app in drain.apps)
        self._tell(drain.host, drain.message)

    def trouble(self, text: str) -> None:
        self._tell("fleetctl", text)

    def _tell(self, subject: str, text: str) -> None:
        if text and self._told.get(subject) != text:
            self._told[subject] = text
            self._output.line(printable(f"{subject}: {text}"))
            self._output.console.file.flush()


class _Table(DrainProgress):
    """A table that is drawn again in place; gone at the end, when the outcome takes its place."""

    def __init__(self, output: Output, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._drain: control_pb2.WatchDrainResponse | None = None
        self._trouble = ""
        self._live = Live(
            get_renderable=self._render,
            console=output.errors if output.settings.structured else output.console,
            transient=True,
            refresh_per_second=_FRAMES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def update(self, drain: control_pb2.WatchDrainResponse) -> None:
        self._drain, self._trouble = drain, ""

    def trouble(self, text: str) -> None:
        self._trouble = text

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        if self._drain is None:
            return Text(self._trouble, "yellow")
        return render_drain(self._drain, self._clock() - self._began, self._trouble)


def render_drain(drain: control_pb2.WatchDrainResponse, seconds: float, trouble: str) -> Group:
    """One line for the host and one for each app that still has workers there."""
    head = Text.assemble(
        ("drain", "bold"),
        " ",
        (drain.host, "bold cyan"),
        f"  {count(drain.workers_left, 'worker')} left  ",
        (duration(int(seconds)), "dim"),
    )
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for app in drain.apps:
        table.add_row(f"  {app.app}", f"{app.workers_left} left", Text(printable(app.doing)))
    notes = [printable(text) for text in (drain.message, trouble) if text]
    lines: list[RenderableType] = [head, table]
    lines += [Padding(Text(note, "yellow"), (0, 0, 0, _INDENT), expand=False) for note in notes]
    return Group(*lines)


def choose_drain_progress(output: Output) -> DrainProgress:
    """As `progress.choose_progress` does for a rollout."""
    if output.settings.quiet:
        return DrainProgress()
    console = output.errors if output.settings.structured else output.console
    if console.is_terminal and not console.is_dumb_terminal:
        return _Table(output, time.monotonic)
    return DrainProgress() if output.settings.structured else _Lines(output)
