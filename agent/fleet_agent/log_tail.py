"""Reads the lines of one log, from some way before its end and on across rotation and compression, losing and repeating none.

A file that is being read stays open, so its inode names it wherever it is renamed to, and its origin where it is compressed
(`log_names`). A file is not written to once it was renamed.
"""

import gzip
import os
import shutil
import tempfile
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fleet_agent.log_names import LogName, Origin, log_names, origin_of

_BLOCK_BYTES = 64 * 1024
_LOOKS = 100
"""A log that is rotated faster than it can be opened is read from where that gets."""
MAX_LINE_BYTES = 64 * 1024
"""A longer line is handed out in pieces."""


@dataclass
class _OpenFile:
    descriptor: int
    inode: int
    origin: Origin | None
    """Of a compressed file; a plain one's changes as long as it is written to."""
    offset: int = 0

    @property
    def written(self) -> int:
        """Nanoseconds since 1970."""
        _, written = self.origin or origin_of(os.fstat(self.descriptor))
        return written

    def is_at(self, name: LogName) -> bool:
        if self.origin is None and not name.compressed:
            return name.inode == self.inode
        return name.origin == (self.origin or origin_of(os.fstat(self.descriptor)))


class Place(NamedTuple):
    """In a log, whatever its file is called by now."""

    inode: int = 0
    """Of the file before it was compressed; 0: there was none."""
    offset: int = 0
    written: int = 0
    """Nanoseconds since 1970: when the file was last written to."""


class LogTail:
    """Owns descriptors until `close`. Every method raises OSError when a log cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: deque[_OpenFile] = deque()
        """Oldest first; the first is being read. Empty: the log did not exist yet."""
        self._rest = b""
        self._rest_at = Place()

    @property
    def place(self) -> Place:
        """Of the first line that was not handed out."""
        if not self._files:
            return Place()
        began_before = len(self._rest) > self._files[0].offset
        return self._rest_at if began_before else self._before(self._rest)

    def close(self) -> None:
        while self._files:
            os.close(self._files.popleft().descriptor)

    def start(self, lines: int | None, since: float = 0.0) -> None:
        """Begin so that the last `lines` lines there are now (None: all) come first, without files last written to before
        `since` (seconds since 1970). A rotation meanwhile makes it look again: what moved on would be missing."""
        for _ in range(_LOOKS):
            names = log_names(self.path)
            self._open_last(names, lines, since)
            if _order(names) == _order(log_names(self.path)):
                return
            self.close()
        self._open_last(log_names(self.path), lines, since)

    def _open_last(self, names: list[LogName], lines: int | None, since: float) -> None:
        missing = lines
        for name in reversed(names):
            if self._files and name.origin[1] < since * 1e9:
                break
            opened = _open(name)
            if opened is None or any(opened.inode == other.inode for other in self._files):
                if opened is not None:
                    os.close(opened.descriptor)
                continue
            if name.origin[1] < since * 1e9:
                opened.offset = os.fstat(opened.descriptor).st_size
            elif missing is not None:
                opened.offset, found = _lines_from_end(opened.descriptor, missing, at_end=not self._files)
                missing -= found
            self._files.appendleft(opened)
            # A line that begins where a file does may have begun in the one before.
            if missing is not None and missing <= 0 and (opened.offset > 0 or not lines):
                break

    def start_at_beginning(self) -> None:
        """Begin with the first byte of a log that has just come to be."""
        self._files.extend(self._opened(log_names))

    def start_at(self, place: Place) -> None:
        """Go on where another reader was."""
        self._files.extend(self._opened(lambda path: _from(place, log_names(path))))
        if self._files:
            first = self._files[0]
            if place.inode in (first.inode, first.origin and first.origin[0]):
                first.offset = place.offset

    def read(self) -> list[bytes]:
        """The next whole lines, without their ends, about 64 KiB of them; empty at the present end."""
        while True:
            data = self._read_block()
            if not data:
                return []
            if not self._rest:
                self._rest_at = self._before(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            if lines:
                self._rest_at = self._before(self._rest)
            while len(self._rest) >= MAX_LINE_BYTES:
                lines.append(self._rest[:MAX_LINE_BYTES])
                self._rest = self._rest[MAX_LINE_BYTES:]
            if lines:
                return lines

    def _before(self, data: bytes) -> Place:
        """Where `data`, which was read last, begins."""
        file = self._files[0]
        return Place(file.origin[0] if file.origin else file.inode, file.offset - len(data), file.written)

    def unfinished(self) -> list[bytes]:
        """What stands after the last line's end; to be asked for once, when nothing more is awaited."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []

    def _read_block(self) -> bytes:
        while True:
            if not self._files:
                self.start_at_beginning()
                if not self._files:
                    return b""
            data = _read_on(self._files[0])
            if data:
                return data
            if len(self._files) == 1:
                newer = self._newer_than(self._files[0])
                if not newer:
                    return b""
                # Written between our last read and the rename; after it, nothing is.
                data = _read_on(self._files[0])
                self._files.extend(newer)
                if data:
                    return data
            os.close(self._files.popleft().descriptor)

    def _newer_than(self, last: _OpenFile) -> list[_OpenFile]:
        """Files that came after `last`, opened, oldest first."""
        if last.origin is None and _inode(self.path) == last.inode:
            return []
        return self._opened(lambda path: _after(last, log_names(path)))

    def _opened(self, choose: Callable[[Path], list[LogName]]) -> list[_OpenFile]:
        """Those chosen. A rotation meanwhile makes it look again."""
        while True:
            names = choose(self.path)
            files: list[_OpenFile] = []
            for name in names:
                opened = _open(name)
                if opened is not None:
                    files.append(opened)
                if opened is None or opened.inode != name.inode:
                    break
            else:
                if _order(names) == _order(choose(self.path)):
                    return files
            for opened in files:
                os.close(opened.descriptor)


def _after(last: _OpenFile, names: list[LogName]) -> list[LogName]:
    """Those that came after `last`. Where it is not among them, it was the oldest, or somebody took it away: its time tells."""
    for at, name in enumerate(names):
        if last.is_at(name):
            return names[at + 1 :]
    return _since(last.written, names)


def _from(place: Place, names: list[LogName]) -> list[LogName]:
    """Its file, and those that came after it. One of its inode that is older was there before it, and is compressed."""
    for at, name in enumerate(names):
        if name.origin[0] == place.inode and name.origin[1] >= place.written:
            return names[at:]
    return _since(place.written, names)


def _since(written: int, names: list[LogName]) -> list[LogName]:
    return [name for name in names if name.number == 0 or name.origin[1] >= written]


def _order(names: list[LogName]) -> list[tuple[Path, int]]:
    return [(name.path, name.inode) for name in names]


def _open(name: LogName) -> _OpenFile | None:
    """None: it is not there any more. A compressed one is unpacked into a file without a name."""
    try:
        descriptor = os.open(name.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    if not name.compressed:
        return _OpenFile(descriptor, os.fstat(descriptor).st_ino, None)
    with os.fdopen(descriptor, "rb") as packed, tempfile.TemporaryFile() as unpacked:
        inode = os.fstat(descriptor).st_ino
        try:
            with gzip.GzipFile(fileobj=packed, mode="rb") as reader:
                shutil.copyfileobj(reader, unpacked)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise OSError(f"{name.path} is damaged: {error}") from error
        unpacked.flush()
        return _OpenFile(os.dup(unpacked.fileno()), inode, name.origin)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _read_on(opened: _OpenFile) -> bytes:
    if opened.offset > os.fstat(opened.descriptor).st_size:
        opened.offset = 0  # someone emptied it
    data = os.pread(opened.descriptor, _BLOCK_BYTES, opened.offset)
    opened.offset += len(data)
    return data


def _lines_from_end(descriptor: int, lines: int, *, at_end: bool) -> tuple[int, int]:
    """(offset of the last `lines` lines of a file, how many of them it has). A line without its end counts in the newest file
    (`at_end`); in an older one it is continued, and counted, in the next: there even 0 lines include it."""
    size = end = os.fstat(descriptor).st_size
    if (lines <= 0 and at_end) or size == 0:
        return size, 0
    ends = 0
    unfinished = at_end and os.pread(descriptor, 1, size - 1) != b"\n"
    # The end of the line before the first one wanted.
    wanted = max(0, lines) if unfinished else max(0, lines) + 1
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        block = os.pread(descriptor, end - start, start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            ends += 1
            if ends == wanted:
                return start + at + 1, max(0, lines)
        end = start
    return 0, ends + (1 if unfinished else 0)
