"""Where output goes: handsome on a terminal, plain and complete in a pipe, exact in JSON and YAML."""

import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from fleetctl.errors import CliError, ExitCode
from fleetctl.settings import Settings
from fleetctl.wording import printable

COLUMN_GAP = 2
_NOTE_INDENT = 4
_UNBOUNDED = 1_000_000

STYLES = {
    "ready": "green",
    "online": "green",
    "running": "green",
    "connected": "green",
    "done": "green",
    "starting": "yellow",
    "pending": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "backoff": "red",
    "unready": "red",
    "failed": "red",
    "away": "red",
    "unknown": "red",
    "exited": "dim",
    "stopped": "dim",
    "removing": "yellow",
    "superseded": "yellow",
    "aborted": "yellow",
    "rolling-back": "yellow",
    "cordoned": "yellow",
    "drained": "yellow",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, at least `width` wide. On a terminal too narrow for all, the columns with the highest `rank` are
    left out first; rank 0 always stays."""

    title: str
    right: bool = False
    rank: int = 0
    width: int = 0


def make_console(stream: TextIO, settings: Settings) -> Console:
    """A console that takes nothing in a text for markup, and never cuts lines short in a pipe."""
    terminal = stream.isatty()
    return Console(
        file=stream,
        force_terminal=terminal,
        color_system=None if settings.colourless or not terminal else "auto",
        width=None if terminal else _UNBOUNDED,
        highlight=False,
        markup=False,
        emoji=False,
    )


class Output:
    """One command's output."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.console = make_console(sys.stdout, settings)
        self.errors = make_console(sys.stderr, settings)

    @property
    def interactive(self) -> bool:
        """Somebody is there to answer a question."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def document(self, data: object) -> None:
        """`data` as the format asked for by -o; called only where that is not table."""
        if self.settings.output == "yaml":
            import yaml

            sys.stdout.write(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
        else:
            sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")

    def record(self, data: object) -> None:
        """One object of a stream: a line of JSON, or a YAML document."""
        if self.settings.output == "yaml":
            import yaml

            sys.stdout.write(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, explicit_start=True))
        else:
            sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def line(self, *parts: str | Text | tuple[str, str]) -> None:
        """One line for people."""
        self.console.print(Text.assemble(*parts), soft_wrap=True)

    def paragraph(self, text: str, indent: int = 2, style: str = "") -> None:
        """A sentence set in from the edge: wrapped between words on a terminal, one line in a pipe."""
        margin = " " * indent
        wrapped = textwrap.wrap(
            printable(text),
            width=max(self.console.width, 20 + indent),
            initial_indent=margin,
            subsequent_indent=margin + "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for part in wrapped:
            self.console.print(Text(part, style), soft_wrap=True)

    def note(self, text: str) -> None:
        """A remark beside the output: to standard error, also where a program reads standard output."""
        self.errors.print(Text(printable(text), "yellow"), soft_wrap=True)

    def names(self, names: Iterable[str]) -> None:
        """What -q leaves of a list."""
        sys.stdout.writelines(f"{name}\n" for name in names)

    def table(
        self,
        columns: Sequence[Column],
        rows: Sequence[Sequence[str | Text]],
        indent: int = 0,
        notes: Sequence[Sequence[str]] = (),
    ) -> None:
        """`notes`: sentences below each row, where there are any."""
        lines = table_lines(columns, rows, self.console.width - indent)
        margin = " " * indent
        if any(notes):
            self.line(margin, lines[0])
            for line, sentences in zip(lines[1:], notes, strict=True):
                self.line(margin, line)
                for sentence in sentences:
                    self.paragraph(sentence, indent + _NOTE_INDENT, style="dim")
            return
        if self.console.is_terminal:
            self.console.print(Text("\n").join(Text(margin) + line for line in lines), soft_wrap=True)
        else:
            # Rich takes a millisecond a line, and a pipe wants no styles.
            self.console.file.writelines(f"{margin}{line.plain}\n" for line in lines)

    def confirm(self, question: str) -> None:
        """Ask, unless --yes was given. Raises CliError when nobody can answer, or the answer is no."""
        if self.settings.yes:
            return
        if not self.interactive:
            raise CliError(ExitCode.REFUSED, f"{question} Nothing was changed: say --yes to go on")
        import click

        if not click.confirm(question, err=True):
            raise CliError(ExitCode.REFUSED, "nothing was changed")


def state(word: str) -> Text:
    """A state in its colour."""
    return Text(word, STYLES.get(word, ""))


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], space: int) -> list[Text]:
    """A heading and a line for each row, within `space` columns of the terminal if that can be done."""
    cells = [[cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row] for row in rows]
    widths = [
        max([column.width, cell_len(column.title), *(row[index].cell_len for row in cells)])
        for index, column in enumerate(columns)
    ]
    kept = _fitting(columns, widths, space)
    return [
        _aligned([row[index] for index in kept], [widths[index] for index in kept], [columns[index] for index in kept])
        for row in ([Text(column.title, "bold") for column in columns], *cells)
    ]


def _fitting(columns: Sequence[Column], widths: Sequence[int], space: int) -> list[int]:
    kept = list(range(len(columns)))
    while sum(widths[index] + COLUMN_GAP for index in kept) - COLUMN_GAP > space:
        optional = [index for index in kept if columns[index].rank]
        if not optional:
            break
        kept.remove(max(optional, key=lambda index: columns[index].rank))
    return kept


def _aligned(cells: Sequence[Text], widths: Sequence[int], columns: Sequence[Column]) -> Text:
    """One line of a table, without trailing blanks."""
    line = Text()
    for cell, width, column in zip(cells, widths, columns, strict=True):
        blank = " " * (width - cell.cell_len)
        if column.right:
            line.append(blank).append_text(cell)
        else:
            line.append_text(cell).append(blank)
        line.append(" " * COLUMN_GAP)
    line.rstrip()
    return line
