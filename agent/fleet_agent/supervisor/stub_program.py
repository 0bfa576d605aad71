"""What `stub` does, as a Python program, for machines it has no code for. Run by its path, it sees nothing of this package."""

import marshal
import os
import resource
import socket
import struct
from collections.abc import Callable
from typing import Any, NoReturn

FIRST_INHERITED = 3
MOST_INHERITED = 16
CHANNEL = FIRST_INHERITED + MOST_INHERITED
"""A byte that comes here, with the descriptors to inherit, starts the process; its end before that ends it. Failures are told on
it; execve closes it."""
ORDER = CHANNEL + 1
"""A file with what is to be done; written before that byte."""
_NOT_STARTED = 127
_MAX_DESCRIPTOR = 1 << 30


def _open(path: bytes, mode: int) -> None:
    os.set_inheritable(os.open(path, mode), True)


def _receive(count: int) -> None:
    """They get the lowest numbers (recvmsg(2)): from FIRST_INHERITED on, as all below are open."""
    channel = socket.socket(fileno=CHANNEL)
    channel.recvmsg(1, socket.CMSG_SPACE(count * 4))
    channel.detach()


def _execve(path: bytes, argv: list[bytes], env: list[bytes]) -> None:
    os.execve(path, argv, dict(item.split(b"=", 1) for item in env))  # noqa: S606


_CALLS: dict[str, Callable[..., object]] = {
    "write": os.write,
    "close": os.close,
    "receive": _receive,
    "execve": _execve,
    "chdir": os.chdir,
    "fchown": lambda descriptor, uid: os.fchown(descriptor, uid, -1),
    "umask": os.umask,
    "setuid": os.setuid,
    "setgid": os.setgid,
    "setgroups": os.setgroups,
    "setpriority": os.setpriority,
    "open": _open,
    "setrlimit": lambda number, soft, hard: resource.setrlimit(number, (soft, hard)),
}


def main() -> NoReturn:
    try:
        channel = socket.socket(fileno=CHANNEL)
        if channel.recv(1, socket.MSG_PEEK):
            channel.set_inheritable(False)
            with os.fdopen(ORDER, "rb") as file:
                steps: list[tuple[str, tuple[Any, ...], str]] = marshal.load(file)  # noqa: S302 - from the supervisor alone
            os.closerange(FIRST_INHERITED, CHANNEL)
            os.closerange(ORDER, _MAX_DESCRIPTOR)
            _perform(steps)
    finally:
        os._exit(_NOT_STARTED)


def _perform(steps: list[tuple[str, tuple[Any, ...], str]]) -> None:
    failures = []
    for name, arguments, failed in steps:
        try:
            _CALLS[name](*arguments)
        except (OSError, ValueError) as error:
            failures.append((getattr(error, "errno", None) or 22, failed))
            if name != "execve":
                break
    os.write(CHANNEL, pack_failures(failures))


def pack_failures(failures: list[tuple[int, str]]) -> bytes:
    """(errno or 0, what is said of it) each."""
    numbers = struct.pack(f"=I{len(failures)}i", len(failures), *(number for number, _ in failures))
    return numbers + "\0".join(said for _, said in failures).encode(errors="surrogateescape")


if __name__ == "__main__":
    main()
