"""A service manager's fd store for one supervisor (sd_pid_notify_with_fds(3)), out of the parts of `fleetctl up`."""

import asyncio
import json
import os
import sys
from pathlib import Path

from fleetctl.up.fdstore import DescriptorStore
from fleetctl.up.notify import NotifySocket

_PASS = """
import fcntl, json, os, sys
env, numbers = json.loads(sys.argv[1])
copies = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3 + len(numbers)) for number in numbers]
for number, copy in enumerate(copies, 3):
    os.dup2(copy, number)
os.closerange(3 + len(numbers), 1 << 20)
os.environ.update(env, LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


class FdStore:
    """Listens on `path`. What is sent waits in the socket, as with systemd, until somebody looks."""

    def __init__(self, path: Path) -> None:
        self._store = DescriptorStore()
        self._socket = NotifySocket(path)
        self._path = path
        self._loop: asyncio.AbstractEventLoop | None = None

    def serve(self) -> None:
        """Take what is sent when it comes, in the running loop, until `close`: a socket holds ten messages by default."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._receive)

    @property
    def names(self) -> list[str]:
        """Without log pipes, which stay until their worker is forgotten."""
        self._receive()
        return [name for name, _ in self._store.items() if not name.startswith("log.")]

    @property
    def log_names(self) -> list[str]:
        self._receive()
        return [name for name, _ in self._store.items() if name.startswith("log.")]

    def passing(self, argv: list[str]) -> tuple[list[str], tuple[int, ...]]:
        """A command that becomes `argv` with everything stored, and the descriptors to start it with."""
        self._receive()
        self._store.drop_broken()
        items = self._store.items()
        env = {"NOTIFY_SOCKET": os.fspath(self._path)}
        if items:
            env.update(LISTEN_FDS=str(len(items)), LISTEN_FDNAMES=":".join(name for name, _ in items))
        numbers = tuple(number for _, number in items)
        return [sys.executable, "-S", "-c", _PASS, json.dumps([env, numbers]), *argv], numbers

    def close(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
        self._socket.close()
        self._store.close()

    def _receive(self) -> None:
        while (notification := self._socket.receive()) is not None:
            name = notification.fields.get("FDNAME", "")
            if notification.fields.get("FDSTORE") == "1":
                self._store.add(name, notification.descriptors)
            if notification.fields.get("FDSTOREREMOVE") == "1":
                self._store.remove(name)
