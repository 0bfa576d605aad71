"""The floor's program: the least a parent can do in Python. Standard library only, one thread, driven by `Conversation`.

It starts processes in a loop of Popen, waits for their ends on pidfds, starts them again at once, and copies their output
from a pipe into a file where asked to.
"""

import json
import os
import select
import signal
import socket
import subprocess
from typing import Any

_COPY_BYTES = 64 * 1024


class BareParent:
    def __init__(self) -> None:
        self._poll = select.poll()
        self._children: dict[int, tuple[subprocess.Popen[bytes], dict[str, Any]]] = {}
        self._copies: dict[int, int] = {}
        self._requests = b""
        self._shared: socket.socket | None = None

    def serve(self) -> None:
        """Until the end of standard input; then kills what it started."""
        self._poll.register(0, select.POLLIN)
        while True:
            for descriptor, _events in self._poll.poll():
                if descriptor == 0:
                    data = os.read(0, 65536)
                    if not data:
                        return self._end()
                    self._take(data)
                elif descriptor in self._children:
                    self._again(descriptor)
                else:
                    self._copy(descriptor)

    def _take(self, data: bytes) -> None:
        self._requests += data
        while b"\n" in self._requests:
            line, _, self._requests = self._requests.partition(b"\n")
            request = json.loads(line)
            answer: dict[str, Any] = {}
            if request.get("listen") and self._shared is None:
                self._shared = socket.create_server(("127.0.0.1", 0), backlog=511)
                self._shared.setblocking(False)
            if self._shared is not None:
                answer["address"] = "{}:{}".format(*self._shared.getsockname())
            for _ in range(request["count"]):
                self._start(request)
            os.write(1, json.dumps(answer).encode() + b"\n")

    def _start(self, request: dict[str, Any]) -> None:
        env = request["env"]
        inherited: tuple[int, ...] = ()
        if self._shared is not None:
            env = {**env, "BENCH_FD": str(self._shared.fileno())}
            inherited = (self._shared.fileno(),)
        output: int = subprocess.DEVNULL
        if request.get("file"):
            output = os.open(request["file"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        elif request.get("copy"):
            output = subprocess.PIPE
        child = subprocess.Popen(
            request["argv"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            pass_fds=inherited,
            start_new_session=True,
        )
        if output >= 0:
            os.close(output)
        if child.stdout is not None:
            source = child.stdout.fileno()
            self._copies[source] = os.open(request["copy"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            self._poll.register(source, select.POLLIN)
        pidfd = os.pidfd_open(child.pid)
        self._children[pidfd] = (child, request)
        self._poll.register(pidfd, select.POLLIN)

    def _again(self, pidfd: int) -> None:
        child, request = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        child.wait()
        self._start(request)

    def _copy(self, source: int) -> None:
        data = os.read(source, _COPY_BYTES)
        if data:
            os.write(self._copies[source], data)
        else:
            self._poll.unregister(source)

    def _end(self) -> None:
        for pidfd, (child, _request) in self._children.items():
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            child.wait()


if __name__ == "__main__":
    BareParent().serve()
