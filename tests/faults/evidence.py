"""What a run left behind: the workers' own journals, the log files, and the history of what was done. It judges nothing."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tests.faults.writer import (
    ATTEMPTED,
    BEAT,
    FULL,
    LONGEST_NOTIFY,
    LONGEST_WRITE,
    STARTED,
    TOLD,
    UNHEARD,
    WORDS,
    WRITTEN,
)

_NANOSECONDS = 1e9


class Key(NamedTuple):
    """What a worker was told to be."""

    app: str
    slot: int
    generation: int

    def __str__(self) -> str:
        return f"{self.app}/{self.slot}@{self.generation}"


class Process(NamedTuple):
    """Names one process of one boot for ever."""

    pid: int
    start_ticks: int


@dataclass(frozen=True)
class Life:
    """One writer, by its own journal. Times are seconds of CLOCK_MONOTONIC."""

    key: Key
    process: Process
    started: float
    last_beat: float
    attempted: int = 0
    written: int = 0
    """The last line whose write(2) returned; one more may have been written."""
    longest_write: float = 0.0
    told: float | None = None
    """When a stop signal arrived."""
    longest_notify: float = 0.0
    unheard: int = 0
    """Notifications that could not be sent, or not at once."""
    full: int = 0
    """Writes for which there was no room in the pipe."""

    @property
    def name(self) -> str:
        """As it begins each of its lines."""
        return ".".join(map(str, (*self.key, *self.process)))


Event = dict[str, Any]
"""One line of the history: `at` (seconds of CLOCK_MONOTONIC), `event`, and what belongs to it."""


class History:
    """Writes each event before what it tells of is done, so that no fault is missing."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("w")

    def add(self, event: str, **details: object) -> None:
        self._file.write(json.dumps({"at": time.monotonic(), "event": event, **details}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Evidence:
    lives: list[Life]
    logs: dict[tuple[str, int], list[bytes]]
    """By app and slot the content of each file, the oldest first."""
    history: list[Event]


def read_evidence(journals: Path, log_dir: Path, history: Path) -> Evidence:
    lives = sorted(_read_lives(journals), key=lambda life: life.started)
    logs = {
        (app, slot): _read_log(log_dir / app / f"{slot}.out.log") for app, slot, *_ in {life.key[:2] for life in lives}
    }
    events = [json.loads(line) for line in history.read_text().splitlines()]
    return Evidence(lives, logs, events)


def _read_lives(folder: Path) -> Iterator[Life]:
    for path in folder.glob("*.life"):
        app, *numbers = path.name.removesuffix(".life").split(".")
        slot, generation, pid, start_ticks = map(int, numbers)
        words = memoryview(path.read_bytes()).cast("Q")
        if len(words) != WORDS:
            raise ValueError(f"{path} is not a writer's journal")
        yield Life(
            Key(app, slot, generation),
            Process(pid, start_ticks),
            words[STARTED] / _NANOSECONDS,
            words[BEAT] / _NANOSECONDS,
            words[ATTEMPTED],
            words[WRITTEN],
            words[LONGEST_WRITE] / _NANOSECONDS,
            words[TOLD] / _NANOSECONDS if words[TOLD] else None,
            words[LONGEST_NOTIFY] / _NANOSECONDS,
            words[UNHEARD],
            words[FULL],
        )


def _read_log(path: Path) -> list[bytes]:
    rotated = [other for other in path.parent.glob(f"{path.name}.*") if re.fullmatch(r"\d+", other.suffix[1:])]
    rotated.sort(key=lambda other: -int(other.suffix[1:]))
    return [file.read_bytes() for file in [*rotated, path] if file.exists()]
