"""Reads a tar archive from front to back, in bounded memory and time, whoever wrote it: ustar (POSIX.1-1988), pax
(POSIX.1-2001), GNU's long names and numbers; plain or gzip.

tarfile is not used: it keeps every global header and every piece of a sparse file, goes one call deeper for each header before a
member, and looks for words in headers with patterns whose time grows with the square of their length.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO, Protocol

_BLOCK = 512
_BUFFER_BYTES = 256 * 1024
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_LONGEST_HEADER = 64 * 1024
_MOST_HEADERS = 8
"""Before one member: what pax, GNU's tar and git write are four at most."""
_MOST_SIZE = 2**63 - 1
_OF_ONE_MEMBER = frozenset({b"path", b"linkpath", b"size"})


class TarError(ValueError):
    """It cannot be read, or will not be; the text says why, in a line."""


class TrickError(TarError):
    """It may be well-formed, but no archive of code needs that."""


class Kind(Enum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    HARD_LINK = "hard link"
    OTHER = "other"
    """A device, a FIFO, or nothing that is known here."""


_KINDS = {b"0": Kind.FILE, b"\0": Kind.FILE, b"7": Kind.FILE, b"5": Kind.FOLDER, b"2": Kind.LINK, b"1": Kind.HARD_LINK}


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    """As it is written; bytes that are not UTF-8 as surrogates (PEP 383)."""
    kind: Kind
    mode: int
    size: int
    """Bytes of content; 0 of all but files."""
    modified: float | None
    """Seconds since 1970; None: it says nothing that could be a time."""
    target: str
    """Where a link leads."""


class _Source(Protocol):
    def read(self, most: int, /) -> bytes:
        """b"": the end."""


class TarStream:
    def __init__(self, stream: BinaryIO, most_bytes: int) -> None:
        """`most_bytes`: of all that is read, headers and what gzip made small included."""
        head = stream.read(len(_GZIP))
        stream.seek(0)
        self._source: _Source = _Unzipped(stream) if head == _GZIP else stream
        self._left = most_bytes
        self._most = most_bytes
        self._buffer = memoryview(b"")
        self._content = 0
        self._padding = 0

    def members(self) -> Iterator[Member]:
        """In the archive's order. `content` is that of the last one. Raises TarError, zlib.error, OSError."""
        first = True
        while True:
            for _ in self.content():
                pass
            self._skip(self._padding)
            self._padding = 0
            member = self._next(first=first)
            if member is None:
                return
            first = False
            self._content, self._padding = member.size, -member.size % _BLOCK
            yield member

    def content(self) -> Iterator[memoryview]:
        """What of the member was not read yet. Raises as `members`."""
        while self._content:
            data = self._some(self._content)
            self._content -= len(data)
            yield data

    def _next(self, *, first: bool) -> Member | None:
        """None: the end."""
        said: dict[bytes, bytes] = {}
        for number in range(_MOST_HEADERS + 1):
            header = self._exactly(_BLOCK, at_its_end=not first and number == 0)
            if header is None or not any(header):
                if number:
                    raise TarError("it ends after a header that belongs to a member")
                return None
            kind = header[156:157]
            size = _checked(header)
            if kind not in b"xXgLK":
                return _member(header, kind, size, said)
            if size > _LONGEST_HEADER:
                raise TrickError(f"it has a header of {size} bytes")
            text = self._exactly(size) or b""
            self._skip(-size % _BLOCK)
            if kind == b"g":
                _check_global(text)
            elif kind in b"xX":
                said |= _records(text)
            else:
                said[b"path" if kind == b"L" else b"linkpath"] = text.split(b"\0", 1)[0]
        raise TrickError(f"it has more than {_MOST_HEADERS} headers before one member")

    def _exactly(self, count: int, *, at_its_end: bool = False) -> bytes | None:
        """None: there is nothing more, and `at_its_end` allows for that."""
        parts: list[bytes] = []
        left = count
        while left:
            try:
                data = bytes(self._some(left))
            except EOFError:
                if at_its_end and not parts:
                    return None
                raise TarError("it ends in the middle") from None
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    def _skip(self, count: int) -> None:
        while count:
            try:
                count -= len(self._some(count))
            except EOFError:
                raise TarError("it ends in the middle") from None

    def _some(self, most: int) -> memoryview:
        """At least a byte. Raises EOFError."""
        if not self._buffer:
            data = self._source.read(_BUFFER_BYTES)
            if not data:
                raise EOFError("it ends in the middle")
            self._left -= len(data)
            if self._left < 0:
                raise TrickError(f"it has more than {self._most} bytes")
            self._buffer = memoryview(data)
        taken, self._buffer = self._buffer[:most], self._buffer[most:]
        return taken


class _Unzipped:
    """What gzip made small; several streams one after the other are one, as to gzip(1)."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inflate = zlib.decompressobj(_GZIP_WINDOW)
        self._raw = b""

    def read(self, most: int, /) -> bytes:
        while True:
            if not self._raw:
                self._raw = self._stream.read(_BUFFER_BYTES)
            ended = not self._raw
            if self._inflate.eof:
                if not self._raw.lstrip(b"\0"):
                    return b""
                self._inflate = zlib.decompressobj(_GZIP_WINDOW)
            data = self._inflate.decompress(self._raw, most)
            self._raw = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if data:
                return data
            if ended:
                raise TarError("it ends in the middle")


def _checked(header: bytes) -> int:
    """The size it names. Raises TarError where it is no header."""
    told = _number(header[148:156])
    rest = header[:148] + b" " * 8 + header[156:]
    total = sum(rest)
    # Some took bytes for signed numbers; to look for those takes longer than all else here.
    if told != total and told != total - 256 * sum(byte > 127 for byte in rest):
        raise TarError("a header has the wrong checksum")
    return _size(_number(header[124:136]))


def _size(number: int) -> int:
    if not 0 <= number <= _MOST_SIZE:
        raise TarError(f"a member has {number} bytes")
    return number


def _number(field: bytes) -> int:
    """Octal digits, or GNU's binary form."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F | (0x80 if field[0] & 0x40 else 0)]) + field[1:], signed=True)
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise TarError("a header has a number that is none")
    return int(digits, 8)


def _member(header: bytes, kind: bytes, size: int, said: dict[bytes, bytes]) -> Member:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    name = said.get(b"path") or name
    if kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in said):
        raise TrickError(f"{shown(_text(name))} is a sparse file: pack it without --sparse")
    target = said.get(b"linkpath") or header[157:257].split(b"\0", 1)[0]
    if b"size" in said:
        size = _size(_decimal(said[b"size"]))
    found = _KINDS.get(kind, Kind.OTHER)
    if kind == b"\0" and name.endswith(b"/"):
        found = Kind.FOLDER  # as it was before 1988
    has_content = kind not in (b"1", b"2", b"3", b"4", b"5", b"6") and found is not Kind.FOLDER
    return Member(
        _text(name),
        found,
        _number(header[100:108]),
        size if has_content else 0,
        _time(header[136:148], said.get(b"mtime")),
        _text(target),
    )


def _records(text: bytes) -> dict[bytes, bytes]:
    """pax: "LENGTH KEY=VALUE\\n", the length that of all of it."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text) and text[at]:
        space = text.find(b" ", at, at + 8)
        length = _decimal(text[at:space]) if space > at else 0
        record = text[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if not length or at + length > len(text) or record[-1:] != b"\n" or not equals:
            raise TarError("a pax header cannot be read")
        found[key] = value
        at += length
    return found


def _check_global(text: bytes) -> None:
    """What holds for all members that follow is comments and times: nobody names all of them alike."""
    for key in _records(text):
        if key in _OF_ONE_MEMBER or key.startswith(b"GNU.sparse."):
            raise TrickError(f"it gives all members one {_text(key)}")


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise TarError("a pax header has a number that is none")
    return int(digits)


def _time(field: bytes, said: bytes | None) -> float | None:
    """None also where no file could have it."""
    try:
        seconds = float(said[:32]) if said else float(_number(field))
    except (TarError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < 2**33 else None


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def shown(name: str) -> str:
    """A name of a stranger's in one line."""
    return repr(name if len(name) <= 200 else f"{name[:200]}…")
