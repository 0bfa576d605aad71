"""The daemons' own log files: appended to by the daemons themselves, kept bounded from here."""

import os
import shutil
from pathlib import Path

MAX_LOG_BYTES = 10 * 1024 * 1024
_TAIL_BYTES = 8192


def open_log(path: Path) -> int:
    """A descriptor for appending, the caller's to close. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rotate_if_large(path)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def rotate_if_large(path: Path, limit: int = MAX_LOG_BYTES) -> bool:
    """Copy a file over `limit` bytes to PATH.1 and empty it. Raises OSError.

    The daemon holds the file open, so it cannot be renamed away; what it writes between copy and truncation is lost.
    """
    try:
        if path.stat().st_size <= limit:
            return False
    except FileNotFoundError:
        return False
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)
    return True


def last_lines(path: Path, count: int = 8) -> list[str]:
    """The last lines that are not empty; none when the file cannot be read."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]
