"""One access log on disk: `X.log`, and `X.log.1` the newest of the rotated ones."""

import contextlib
import errno
import os
from pathlib import Path


class LogFile:
    """Holds at most about `max_bytes`, and so does each of `max_files` older ones. The owner calls `close`."""

    def __init__(self, path: Path, max_bytes: int, max_files: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.max_files = max_files
        self.trouble = ""
        """Why the last lines could not be written, in words; empty: they were."""
        self._descriptor = -1
        self._size = 0

    def append(self, lines: bytes) -> bool:
        """Whole lines: all are written, or none, and False."""
        try:
            self._make_room(len(lines))
            written = os.write(self._descriptor, lines)
            if written < len(lines):
                # The disk is full: what is cut is taken back.
                os.ftruncate(self._descriptor, self._size)
                self.trouble = os.strerror(errno.ENOSPC)
                return False
            self._size += written
        except OSError as error:
            self.trouble = error.strerror or str(error)
            self.close()
            return False
        self.trouble = ""
        return True

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _make_room(self, size: int) -> None:
        """Open, and another one where this one would become too large, or somebody took it away."""
        if self._descriptor >= 0 and os.fstat(self._descriptor).st_nlink == 0:
            self.close()
        if self._descriptor < 0:
            self._open()
        if self._size and self._size + size > self.max_bytes:
            self.close()
            self._rotate()
            self._open()

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self.path, flags, 0o640)
        self._size = os.fstat(self._descriptor).st_size
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            # A machine went down in the middle of a line.
            self._size += os.write(self._descriptor, b"\n")

    def _rotate(self) -> None:
        old = rotated(self.path)
        for number in sorted(old, reverse=True):
            if number >= self.max_files:
                old[number].unlink(missing_ok=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    old[number].rename(_numbered(self.path, number + 1))
        if self.max_files:
            self.path.rename(_numbered(self.path, 1))
        else:
            self.path.unlink(missing_ok=True)


def rotated(path: Path) -> dict[int, Path]:
    """The old ones of the log `path`, by number. Raises OSError."""
    found = {}
    for candidate in path.parent.glob(f"{path.name}.*"):
        number = candidate.name.removeprefix(f"{path.name}.")
        if number.isdigit():
            found[int(number)] = candidate
    return found


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
