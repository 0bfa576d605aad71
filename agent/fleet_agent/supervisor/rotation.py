"""Old logs beside the one written to: `X.log.1` is the newest of them, `.gz` follows where the agent has compressed it."""

import contextlib
import fcntl
import os
import time
from pathlib import Path

_COMPRESSED = ".gz"


def rotate(path: Path, keep: int) -> bool:
    """Make `path` the newest old log, and keep that many. A kill between two renames leaves a gap in the numbers, and every byte.

    False: the agent, which holds a lock on the folder while it puts a compressed file in place of another, is at it at this
    moment; nobody waits for that, and nothing was done. Raises OSError.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _renumber(path, keep)
    except BlockingIOError:
        return False
    finally:
        os.close(folder)
    return True


def _renumber(path: Path, keep: int) -> None:
    for number, old in _rotated(path):
        if number >= keep:
            old.unlink(missing_ok=True)
        else:
            with contextlib.suppress(FileNotFoundError):  # compressed at this moment
                old.rename(_numbered(path, number + 1, compressed=old.suffix == _COMPRESSED))
    if keep:
        path.rename(_numbered(path, 1, compressed=False))
    else:
        path.unlink()


def delete_older(path: Path, seconds: float) -> None:
    """Those old logs that were last written to so long ago. Raises OSError."""
    oldest = time.time() - seconds
    for _, old in _rotated(path):
        with contextlib.suppress(FileNotFoundError):
            if old.stat().st_mtime < oldest:
                old.unlink()


def began(path: Path) -> float:
    """When the log `path`, which is there already, was begun: when the one before it ended, as far as that is known; else now."""
    ends = [time.time()]
    for _, old in _rotated(path):
        with contextlib.suppress(FileNotFoundError):
            ends.append(old.stat().st_mtime)
    return max(ends[1:], default=ends[0])


def _rotated(path: Path) -> list[tuple[int, Path]]:
    """The highest number first."""
    prefix = f"{path.name}."
    found = []
    for name in os.listdir(path.parent):  # noqa: PTH208 - names are all that is needed
        number = name.removeprefix(prefix).removesuffix(_COMPRESSED)
        if name.startswith(prefix) and number.isdecimal() and int(number) > 0:
            found.append((int(number), path.with_name(name)))
    return sorted(found, reverse=True)


def _numbered(path: Path, number: int, *, compressed: bool) -> Path:
    return path.with_name(f"{path.name}.{number}{_COMPRESSED if compressed else ''}")
