"""What a log's lines look like where they are not copied as they come. Pure: time comes in."""

import time
from json.encoder import encode_basestring_ascii

MAX_LINE_BYTES = 64 * 1024
"""A longer one becomes several JSON objects."""


def rfc3339(seconds: float) -> str:
    """Of seconds since the epoch: `2026-01-31T23:59:59.999Z`."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z"


def stamp_lines(data: bytes, seconds: float, *, continues: bool) -> bytes:
    """Each line that begins in `data` gets the time. `continues`: the first one began earlier.

    An unfinished line is handed on at once, so that none is ever kept here, and lost with this process.
    """
    stamp = f"{rfc3339(seconds)} ".encode()
    ends = data.endswith(b"\n")
    stamped = (data[:-1] if ends else data).replace(b"\n", b"\n" + stamp)
    return (b"" if continues else stamp) + stamped + (b"\n" if ends else b"")


class JsonLines:
    """One stream's lines as JSON objects. Keeps an unfinished line, of MAX_LINE_BYTES at the most, until it ends."""

    def __init__(self, app: str, slot: int, stream: str) -> None:
        self._names = f'"app":{encode_basestring_ascii(app)},"slot":{slot},"stream":"{stream}","message":'
        self._rest = b""

    def feed(self, data: bytes, seconds: float) -> bytes:
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) >= MAX_LINE_BYTES:
            lines.append(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]
        return self._objects(lines, seconds)

    def finish(self, seconds: float) -> bytes:
        """What stands after the last line's end."""
        rest, self._rest = self._rest, b""
        return self._objects([rest], seconds) if rest else b""

    def _objects(self, lines: list[bytes], seconds: float) -> bytes:
        if not lines:
            return b""
        head = f'{{"time":"{rfc3339(seconds)}",{self._names}'
        texts = b"\n".join(lines).decode(errors="replace").split("\n")
        return "".join([f"{head}{encode_basestring_ascii(text)}}}\n" for text in texts]).encode()
