"""Reads the lines of one log, from some way before its end and on across rotation, losing and repeating none.

The supervisor rotates `X.log` by renaming: `X.log.1` is the newest of the old ones, the numbers may have gaps, and a file is not
written to once it was renamed. A file that is being read stays open, so its inode names it wherever it is renamed to.
"""

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

_BLOCK_BYTES = 64 * 1024
MAX_LINE_BYTES = 64 * 1024
"""A longer line is handed out in pieces."""
_MOST_ROTATED_FILES = 1000


@dataclass
class _OpenFile:
    descriptor: int
    inode: int
    offset: int = 0


class LogTail:
    """Owns descriptors until `close`. Every method raises OSError when a log cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: deque[_OpenFile] = deque()
        """Oldest first; the first is being read. Empty: the log did not exist yet."""
        self._rest = b""

    def close(self) -> None:
        while self._files:
            os.close(self._files.popleft().descriptor)

    def start(self, lines: int) -> None:
        """Begin so that the last `lines` lines there are now come first."""
        missing = lines
        paths = self._present()
        for path in reversed(paths):
            opened = self._open(path)
            if opened is None or any(opened.inode == other.inode for other in self._files):
                if opened is not None:
                    os.close(opened.descriptor)
                continue
            opened.offset, found = _lines_from_end(opened.descriptor, missing, at_end=not self._files)
            self._files.appendleft(opened)
            missing -= found
            if missing <= 0:
                break

    def start_at_beginning(self) -> None:
        """Begin with the first byte of a log that has just come to be."""
        for path in self._present():
            opened = self._open(path)
            if opened is not None:
                self._files.append(opened)

    def read(self) -> list[bytes]:
        """The next whole lines, without their ends, about 64 KiB of them; empty at the present end."""
        while True:
            data = self._read_block()
            if not data:
                return []
            *lines, self._rest = (self._rest + data).split(b"\n")
            while len(self._rest) >= MAX_LINE_BYTES:
                lines.append(self._rest[:MAX_LINE_BYTES])
                self._rest = self._rest[MAX_LINE_BYTES:]
            if lines:
                return lines

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
                newer = self._newer_than(self._files[0].inode)
                if not newer:
                    return b""
                # Written between our last read and the rename; after it, nothing is.
                data = _read_on(self._files[0])
                self._files.extend(newer)
                if data:
                    return data
            os.close(self._files.popleft().descriptor)

    def _newer_than(self, inode: int) -> list[_OpenFile]:
        """Files that came after the one with `inode`, opened, oldest first. A rotation meanwhile makes it look again."""
        while True:
            before = [(path, _inode(path)) for path in self._present()]
            place = next((at for at, (_, other) in enumerate(before) if other == inode), -1)
            newer: list[_OpenFile] = []
            for path, expected in before[place + 1 :]:
                opened = self._open(path)
                if opened is not None:
                    newer.append(opened)
                if opened is None or opened.inode != expected:
                    break
            else:
                if before == [(path, _inode(path)) for path in self._present()]:
                    return newer
            for opened in newer:
                os.close(opened.descriptor)

    def _present(self) -> list[Path]:
        """The files of this log, oldest first."""
        numbered: list[tuple[int, Path]] = []
        prefix = f"{self.path.name}."
        try:
            names = os.listdir(self.path.parent)  # noqa: PTH208 - names are all that is needed
        except FileNotFoundError:
            return []
        for name in names:
            number = name.removeprefix(prefix)
            if name == self.path.name:
                numbered.append((0, self.path))
            elif name.startswith(prefix) and number.isdecimal() and 0 < int(number) <= _MOST_ROTATED_FILES:
                numbered.append((int(number), self.path.with_name(name)))
        return [path for _, path in sorted(numbered, reverse=True)]

    @staticmethod
    def _open(path: Path) -> _OpenFile | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        return _OpenFile(descriptor, os.fstat(descriptor).st_ino)


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
    (`at_end`); in an older one it is continued, and counted, in the next."""
    size = end = os.fstat(descriptor).st_size
    if lines <= 0 or size == 0:
        return size, 0
    ends = 0
    unfinished = at_end and os.pread(descriptor, 1, size - 1) != b"\n"
    # The end of the line before the first one wanted.
    wanted = lines if unfinished else lines + 1
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        block = os.pread(descriptor, end - start, start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            ends += 1
            if ends == wanted:
                return start + at + 1, lines
        end = start
    return 0, ends + (1 if unfinished else 0)
