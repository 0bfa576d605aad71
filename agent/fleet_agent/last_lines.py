"""The last lines a worker printed before it ended, for `status`: short, and never older than the process that printed them."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_LINES = 20
"""As much as Node prints of an uncaught error, whose message is above its stack."""
_FROM_STDERR = 16
"""Of those, where stdout has some as well."""
_MOST_BYTES = 2048
_LINE_BYTES = 400
_TAIL_BYTES = 4096
_CLOCK_REALTIME_COARSE = 5
TICK_SECONDS = time.clock_getres(_CLOCK_REALTIME_COARSE)
"""By so much the time of a file's last write may lie before the write (clock_gettime(2)): a program may have ended by then."""


@dataclass(frozen=True)
class LogMarks:
    """Where a slot's logs ended before a worker was started in it: what lies before is of the worker's predecessors."""

    output: tuple[int, int] = (0, 0)
    """(inode, bytes) of stdout's log; inode 0: there was none."""
    errors: tuple[int, int] = (0, 0)


def mark_logs(log_dir: Path, app: str, slot: int) -> LogMarks:
    """To be called before the worker is started."""
    return LogMarks(_end(_log(log_dir, app, slot, "out")), _end(_log(log_dir, app, slot, "err")))


def read_last_lines(log_dir: Path, app: str, slot: int, since: float, marks: LogMarks | None = None) -> list[str]:
    """Of stdout, then of stderr. `since`: logs not written to after this time (seconds since 1970) are another process's.

    A predecessor that still runs beside the worker prints into the same logs: what it printed meanwhile is among the lines.
    """
    marks = marks or LogMarks()
    errors = _tail(_log(log_dir, app, slot, "err"), since, marks.errors)
    output = _tail(_log(log_dir, app, slot, "out"), since, marks.output)
    errors = errors[-max(_FROM_STDERR, _LINES - len(output)) :]
    output = output[len(output) - min(len(output), _LINES - len(errors)) :]
    lines = [*output, *errors]
    while sum(len(line.encode()) for line in lines) > _MOST_BYTES:
        del lines[0]
    return lines


def _log(log_dir: Path, app: str, slot: int, stream: str) -> Path:
    return Path(f"{log_dir}/{app}/{slot}.{stream}.log")  # many at once, before many starts: joining takes twice as long


def _end(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_size


def _tail(path: Path, since: float, mark: tuple[int, int]) -> list[str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return []  # it never printed, or its log is gone
    try:
        status = os.fstat(descriptor)
        if status.st_mtime < since - TICK_SECONDS:
            return []
        # A log of another inode was begun since the mark: it was rotated, and all of it is the worker's.
        marked = mark[1] if mark[0] == status.st_ino else 0
        start = max(marked, status.st_size - _TAIL_BYTES)
        text = os.pread(descriptor, _TAIL_BYTES, start)
    finally:
        os.close(descriptor)
    if start > marked and b"\n" in text:
        text = text[text.index(b"\n") + 1 :]  # the first line is not whole
    lines = [line[:_LINE_BYTES].decode(errors="replace").rstrip() for line in text.split(b"\n")]
    return [line for line in lines if line][-_LINES:]
