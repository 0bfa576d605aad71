"""Single keys from a terminal, while it is asked for them."""

import asyncio
import os
import re
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
}
_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)


@contextmanager
def keys(stream: TextIO, pressed: Callable[[str], None]) -> Iterator[None]:
    """Call `pressed` for each key, in the running loop; Ctrl-C and Ctrl-Z stay signals (cbreak mode, termios(3)).

    Where `stream` is no terminal, no key is ever pressed. The terminal is put back as it was.
    """
    if not stream.isatty():
        yield
        return
    descriptor = stream.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            data = os.read(descriptor, 1024)
        except OSError:  # EIO: the terminal is gone
            data = b""
        if not data:
            loop.remove_reader(descriptor)
            pressed("q")
        for key in names(data):
            pressed(key)

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def names(data: bytes) -> list[str]:
    """The keys that made these bytes: a letter, or "up", "down", "page up", "page down"."""
    found = []
    for match in _KEY.finditer(data):
        key = _SEQUENCES.get(match[0], "")
        if not key and len(match[0]) == 1 and match[0].isascii():
            key = match[0].decode()
        if key:
            found.append(key)
    return found
