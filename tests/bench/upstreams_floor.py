"""The least that can bring a worker into HAProxy: a message on a unix socket, the same commands, nothing read back.

`python -m tests.bench.upstreams_floor MESSAGES STATS`: a datagram is a line of Runtime API commands; they are given to HAProxy's
stats socket, and the next datagram is read once it has answered.
"""

import socket
import sys

_PROMPT = b"> "


def main() -> None:
    messages, stats = sys.argv[1:]
    api = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    api.connect(stats)
    ask(api, b"prompt")
    inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    inbox.bind(messages)
    print("ready", flush=True)
    while line := inbox.recv(4096):
        ask(api, line)


def ask(api: socket.socket, line: bytes) -> None:
    """Give commands in one line, and read until each was answered."""
    api.sendall(line + b"\n")
    expected = line.count(b";") + 1
    answer = b""
    while answer.count(_PROMPT) < expected:
        answer += api.recv(65_536)


if __name__ == "__main__":
    main()
