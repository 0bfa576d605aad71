"""How a rollout under way is shown: a live table on a terminal, a line per change in a pipe, nothing where nobody reads."""

import textwrap
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.client.rollouts import timeless
from fleetctl.outcome import standing
from fleetctl.output import Output
from fleetctl.wording import count, duration, printable

_BAR_WIDTH = 24
_OTHER_LINES = 3
_INDENT = 2
_FRAMES_PER_SECOND = 8


class Progress(Protocol):
    """Shows a rollout from `__enter__` to `__exit__`."""

    def update(self, rollout: control_pb2.Rollout) -> None:
        """The rollout changed."""

    def trouble(self, text: str) -> None:
        """Why there is no news at present; ends with the next update."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def choose_progress(output: Output, clock: Callable[[], float] = time.monotonic) -> Progress:
    """On standard output for people; beside a document, on standard error, and only if that is a terminal."""
    if output.settings.quiet:
        return SilentProgress()
    console = output.errors if output.settings.structured else output.console
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveProgress(console, clock)
    return SilentProgress() if output.settings.structured else LineProgress(output)


class SilentProgress:
    """Shows nothing."""

    def update(self, rollout: control_pb2.Rollout) -> None:
        pass

    def trouble(self, text: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class RecordProgress(SilentProgress):
    """Each change as a record, for programs that follow."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last: control_pb2.Rollout | None = None

    def update(self, rollout: control_pb2.Rollout) -> None:
        now = timeless(rollout)
        if now != self._last:
            self._output.record(views.rollout_view(rollout))
        self._last = now


class LineProgress(SilentProgress):
    """A line for each change, for logs and pipes."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._told: dict[str, str] = {}

    def update(self, rollout: control_pb2.Rollout) -> None:
        for host in rollout.hosts:
            # Between two steps of a host there is nothing to say.
            if host.doing or host.steps_done >= host.steps:
                self._tell(host.host, f"{host.steps_done}/{host.steps} {host.doing}".rstrip())
        if views.under_way(rollout):
            going_back = rollout.state == control_pb2.ROLLOUT_STATE_ROLLING_BACK
            self._tell(rollout.app, f"{standing(rollout)}: {rollout.message}" if going_back else rollout.message)

    def trouble(self, text: str) -> None:
        self._tell("fleetctl", text)

    def _tell(self, subject: str, text: str) -> None:
        if text and self._told.get(subject) != text:
            self._told[subject] = text
            self._output.line(printable(f"{subject}: {text}"))
            self._output.console.file.flush()


class LiveProgress:
    """A table that is drawn again in place; gone at the end, when the outcome takes its place."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._rollout: control_pb2.Rollout | None = None
        self._heard = clock()
        self._trouble = ""
        self._live = Live(
            get_renderable=self._render,
            console=console,
            transient=True,
            refresh_per_second=_FRAMES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def update(self, rollout: control_pb2.Rollout) -> None:
        self._rollout, self._heard, self._trouble = rollout, self._clock(), ""

    def trouble(self, text: str) -> None:
        self._trouble = text

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _render(self) -> Group | Text:
        if self._rollout is None:
            return Text(self._trouble, "yellow")
        since = self._clock() - self._heard if views.under_way(self._rollout) else 0.0
        return render_rollout(self._rollout, self._rollout.seconds + since, self._trouble, self._console.size)


def render_rollout(rollout: control_pb2.Rollout, seconds: float, trouble: str, space: tuple[int, int]) -> Group:
    """The rollout as a table no higher than the terminal, `space` being its columns and lines: finished hosts give way to
    those where something happens."""
    width, height = space
    stands = standing(rollout)
    notes = [printable(text) for text in (rollout.message, trouble) if text]
    head = Text.assemble(
        (views.rollout_kind(rollout), "bold"),
        " ",
        (rollout.app, "bold cyan"),
        f"  {rollout.steps_done}/{rollout.steps}  ",
        (duration(int(seconds)), "dim"),
        (f"  {stands}" if stands else "", "bold yellow"),
    )
    note_lines = sum(len(textwrap.wrap(note, max(width - _INDENT, 1))) for note in notes)
    room = max(1, height - _OTHER_LINES - note_lines)
    shown = list(rollout.hosts)
    if len(shown) > room:
        busy = [host for host in shown if host.steps_done < host.steps]
        shown = (busy + [host for host in shown if host.steps_done >= host.steps])[:room]
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(width=_BAR_WIDTH)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for host in shown:
        finished = host.steps_done >= host.steps
        table.add_row(
            f"  {host.host}",
            ProgressBar(total=max(host.steps, 1), completed=host.steps_done if host.steps else 1, width=_BAR_WIDTH),
            f"{host.steps_done}/{host.steps}",
            Text(printable(host.doing) or ("done" if finished else ""), "green" if finished else ""),
        )
    lines: list[RenderableType] = [head, table]
    if len(shown) < len(rollout.hosts):
        lines.append(Text(f"  and {count(len(rollout.hosts) - len(shown), 'more host')}", "dim"))
    lines += [Padding(Text(note, "yellow"), (0, 0, 0, _INDENT), expand=False) for note in notes]
    return Group(*lines)
