"""What a log's lines look like where they are not copied as they come. Pure: time comes in.

A format turns a stream into text piece by piece. The text depends on nothing but the piece, a time, and whether the piece begins
in the middle of a line: who has these makes the same text of it again.
"""

import time
from json.encoder import encode_basestring_ascii
from typing import Protocol

MAX_LINE_BYTES = 64 * 1024
"""A longer one becomes several JSON objects."""


class Format(Protocol):
    """How one stream's lines are formatted."""

    suffix: str
    """Names the format in a file's name."""
    piece_bytes: int
    """The most that is formatted at a time: it bounds the memory that takes."""

    def cut(self, data: bytes) -> int:
        """How many bytes of `data`, the next piece_bytes of a stream or all there are, make the next piece; 0: wait for more."""
        ...

    def text(self, piece: bytes, seconds: float, *, continues: bool) -> bytes:
        """`seconds` since the epoch; `continues`: the log's last line is not finished."""
        ...


def rfc3339(seconds: float) -> str:
    """Of seconds since the epoch: `2026-01-31T23:59:59.999Z`."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z"


class AsPrinted:
    """No format at all, in pieces that end where a line does. An unfinished one is handed on at once."""

    suffix = "plain"
    piece_bytes = 256 * 1024

    def cut(self, data: bytes) -> int:
        """At the last line's end, so that a rotation can come before what follows."""
        return data.rfind(b"\n") + 1 or len(data)

    def text(self, piece: bytes, seconds: float, *, continues: bool) -> bytes:
        return piece


class Stamps(AsPrinted):
    """Each line begins with the time at which its beginning came."""

    suffix = "stamps"

    def text(self, piece: bytes, seconds: float, *, continues: bool) -> bytes:
        stamp = f"{rfc3339(seconds)} ".encode()
        ends = piece.endswith(b"\n")
        stamped = (piece[:-1] if ends else piece).replace(b"\n", b"\n" + stamp)
        return (b"" if continues else stamp) + stamped + (b"\n" if ends else b"")


class JsonLines:
    """Each line is an object. An unfinished one waits until it ends, or has MAX_LINE_BYTES."""

    suffix = "json"
    piece_bytes = MAX_LINE_BYTES

    def __init__(self, app: str, slot: int, stream: str) -> None:
        self._names = f'"app":{encode_basestring_ascii(app)},"slot":{slot},"stream":"{stream}","message":'

    def cut(self, data: bytes) -> int:
        return data.rfind(b"\n") + 1 or (MAX_LINE_BYTES if len(data) >= MAX_LINE_BYTES else 0)

    def text(self, piece: bytes, seconds: float, *, continues: bool) -> bytes:
        head = f'{{"time":"{rfc3339(seconds)}",{self._names}'
        lines = piece.decode(errors="replace").removesuffix("\n").split("\n")
        return "".join([f"{head}{encode_basestring_ascii(line)}}}\n" for line in lines]).encode()
