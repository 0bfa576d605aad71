"""The last lines a worker printed before it ended, for `status`: short, and never older than the process that printed them."""

import os
from pathlib import Path

_LINES = 20
"""As much as Node prints of an uncaught error, whose message is above its stack."""
_FROM_STDERR = 16
"""Of those, where stdout has some as well."""
_MOST_BYTES = 2048
_LINE_BYTES = 400
_TAIL_BYTES = 4096


def read_last_lines(log_dir: Path, app: str, slot: int, since: float) -> list[str]:
    """Of stdout, then of stderr. `since`: logs not written to after this time (seconds since 1970) are another process's."""
    folder = log_dir / app
    errors = _tail(folder / f"{slot}.err.log", since)
    output = _tail(folder / f"{slot}.out.log", since)
    errors = errors[-max(_FROM_STDERR, _LINES - len(output)) :]
    output = output[len(output) - min(len(output), _LINES - len(errors)) :]
    lines = [*output, *errors]
    while sum(len(line.encode()) for line in lines) > _MOST_BYTES:
        del lines[0]
    return lines


def _tail(path: Path, since: float) -> list[str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return []  # it never printed, or its log is gone
    try:
        status = os.fstat(descriptor)
        if status.st_mtime < since:
            return []
        start = max(0, status.st_size - _TAIL_BYTES)
        text = os.pread(descriptor, _TAIL_BYTES, start)
    finally:
        os.close(descriptor)
    if start and b"\n" in text:
        text = text[text.index(b"\n") + 1 :]  # the first line is not whole
    lines = [line[:_LINE_BYTES].decode(errors="replace").rstrip() for line in text.split(b"\n")]
    return [line for line in lines if line][-_LINES:]
