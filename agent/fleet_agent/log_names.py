"""The files of one log: `X.log`, written to now, and the old ones `X.log.1`, `X.log.2.gz`, …, the higher the older.

The supervisor renumbers them, the agent compresses them, both at any moment, so a name says little of a file. What does: its
inode, as long as somebody holds it open, together with the time of its last write, which does not change once it is an old one.
A compressed file bears both of its original in its header (RFC 1952, FNAME).
"""

import gzip
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

GZ = ".gz"
_MOST_NUMBER = 100_000
_HEADER_BYTES = 10
_FNAME = 8
_FEXTRA = 4
_NAME_BYTES = 64

Origin = tuple[int, int]
"""Inode, and nanoseconds of the last write."""


@dataclass(frozen=True)
class LogName:
    """One file at the moment it was looked at."""

    path: Path
    number: int
    """0: the one written to."""
    inode: int
    origin: Origin
    """Its own, or that of the file it was made from."""

    @property
    def compressed(self) -> bool:
        return self.path.suffix == GZ


def log_names(path: Path) -> list[LogName]:
    """The files of the log `path`, oldest first; of one that is there plain and compressed, the plain one. Raises OSError."""
    found: list[LogName] = []
    prefix = f"{path.name}."
    try:
        names = os.listdir(path.parent)  # noqa: PTH208 - names are all that is needed
    except FileNotFoundError:
        return []
    for name in names:
        number = name.removeprefix(prefix).removesuffix(GZ)
        if name == path.name:
            number = "0"
        elif not (name.startswith(prefix) and number.isdecimal() and 0 < int(number) <= _MOST_NUMBER):
            continue
        entry = _look(path.with_name(name), int(number))
        if entry is not None:
            found.append(entry)
    plain = {entry.origin for entry in found if not entry.compressed}
    kept = [entry for entry in found if not entry.compressed or entry.origin not in plain]
    # Of one number, which lasts only a moment, the compressed one is the older.
    return sorted(kept, key=lambda entry: (-entry.number, not entry.compressed))


def origin_of(status: os.stat_result) -> Origin:
    return status.st_ino, status.st_mtime_ns


def gzip_writer(stream: BinaryIO, origin: Origin) -> gzip.GzipFile:
    """To write what was in the file `origin` to `stream`."""
    name = f"{origin[0]}-{origin[1]}"
    return gzip.GzipFile(filename=name, mode="wb", compresslevel=6, fileobj=stream, mtime=origin[1] // 10**9)


def _look(path: Path, number: int) -> LogName | None:
    try:
        if path.suffix != GZ:
            status = path.stat()
            return LogName(path, number, status.st_ino, origin_of(status))
        with path.open("rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            return LogName(
                path, number, status.st_ino, _origin_in(cast(bytes, stream.read(_NAME_BYTES))) or origin_of(status)
            )
    except FileNotFoundError:
        return None


def _origin_in(header: bytes) -> Origin | None:
    """None: somebody else compressed it."""
    if len(header) < _HEADER_BYTES or not header[3] & _FNAME or header[3] & _FEXTRA:
        return None
    name = header[_HEADER_BYTES:].split(b"\0", 1)[0]
    inode, _, written = name.partition(b"-")
    return (int(inode), int(written)) if inode.isdigit() and written.isdigit() else None
