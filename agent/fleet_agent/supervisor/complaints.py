"""What the supervisor has to say when nobody asked: a line on stderr, which may be lost, and never costs more than itself."""

import contextlib
import os
import select

_STDERR = 2
_PREFIX = "fleet-supervisor: "


def complain(text: str) -> None:
    """Raises nothing and waits for nobody: stderr may lie on a full disk, be closed, or be a pipe that no one reads."""
    line = f"{_PREFIX}{text}\n".encode(errors="backslashreplace")
    with contextlib.suppress(OSError):
        poll = select.poll()
        poll.register(_STDERR, select.POLLOUT)
        if poll.poll(0):
            os.write(_STDERR, line)
