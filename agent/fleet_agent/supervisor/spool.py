"""Between a pipe and a log whose lines are formatted: bytes that left the one and are not in the other yet.

A file beside the FIFO, so that what it holds survives its supervisor. It begins with a page that says how far its content has
been dealt with and, while a piece is being appended to the log, where in the log that began. Each change is one system call that
a kill finds done or not begun: splice(2) takes from the pipe exactly what it adds to the file, a write within one page is not
parted, and a truncation is whole. There is no fsync, as for the journal: a reboot ends the workers too.

At most one spool of a supervisor has a piece begun, and while it has, nothing else is written to that log.
"""

import contextlib
import os
import struct
from pathlib import Path
from typing import NamedTuple

from fleet_agent.supervisor.log_file import PIPE_BYTES, SPLICE_NONBLOCK

_HEADER = struct.Struct("<4sBBxxQQQd")
_MAGIC = b"fsp1"
_PAGE = 4096
"""Of the header. What was never written reads as zeros: nothing dealt with, nothing begun."""
_BEGUN, _CONTINUES, _FINAL = 1, 2, 4


class Piece(NamedTuple):
    """What tells a formatted piece from all others, and makes it the same again."""

    inode: int
    """Of the log it goes to."""
    length: int
    """Of that log before it."""
    seconds: float
    continues: bool
    final: bool
    """It is all there is, whether or not its line is finished."""


class Spool:
    """Owns its descriptor until `close`. Every method but `close` raises OSError where the file cannot be changed."""

    def __init__(self, path: Path) -> None:
        """What another supervisor left there stands."""
        self._path = path
        self._descriptor = _open(path)
        self._size = max(0, os.fstat(self._descriptor).st_size - _PAGE)
        self._at = 0
        self.begun: Piece | None = None
        """That was being appended when its supervisor ended; to be dealt with before anything else."""
        self._read_header()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Close and delete it."""
        self.close()
        self._path.unlink(missing_ok=True)

    @property
    def pending(self) -> int:
        """Bytes not dealt with."""
        return self._size - self._at

    def fill(self, fifo: int) -> None:
        """With what is in the pipe, at most PIPE_BYTES. Raises BlockingIOError where nothing is."""
        self._size += os.splice(
            fifo, self._descriptor, PIPE_BYTES, offset_dst=_PAGE + self._size, flags=SPLICE_NONBLOCK
        )

    def read(self, size: int) -> bytes:
        """The next bytes, `size` of them at most; they stay."""
        return os.pread(self._descriptor, min(size, self.pending), _PAGE + self._at)

    def begin(self, piece: Piece) -> None:
        """From now until `advance` the next bytes are on their way to the log."""
        flags = _BEGUN | (_CONTINUES if piece.continues else 0) | (_FINAL if piece.final else 0)
        self._write_header(flags, piece.inode, piece.length, piece.seconds)

    def advance(self, size: int) -> None:
        """So many bytes are in the log, or lost to it."""
        self.begun = None
        self._at += size
        if self._at >= self._size:
            os.ftruncate(self._descriptor, 0)
            self._at = self._size = 0
            return
        self._write_header(0, 0, 0, 0.0)
        if self._at >= PIPE_BYTES:
            self._shift()

    def _shift(self) -> None:
        """What is dealt with goes, by way of a new file: in its place a kill would find it half done."""
        beside = self._path.with_name(f"{self._path.name}.new")
        with contextlib.suppress(OSError):  # there is no room: it is as good as it was
            beside.unlink(missing_ok=True)
            descriptor = _open(beside)
            try:
                rest = self.read(self.pending)
                if os.pwrite(descriptor, rest, _PAGE) == len(rest):
                    beside.rename(self._path)
                    self._descriptor, descriptor = descriptor, self._descriptor
                    self._at, self._size = 0, len(rest)
            finally:
                os.close(descriptor)

    def _read_header(self) -> None:
        header = os.pread(self._descriptor, _HEADER.size, 0)
        if len(header) < _HEADER.size or not self._size:
            return
        magic, flags, _, at, inode, length, seconds = _HEADER.unpack(header)
        if magic == _MAGIC and at <= self._size:
            self._at = at
            if flags & _BEGUN:
                self.begun = Piece(inode, length, seconds, bool(flags & _CONTINUES), bool(flags & _FINAL))

    def _write_header(self, flags: int, inode: int, length: int, seconds: float) -> None:
        os.pwrite(self._descriptor, _HEADER.pack(_MAGIC, flags, 0, self._at, inode, length, seconds), 0)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
