"""A supervisor put together: lock, journal, logs, loop and socket of one runtime folder."""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from types import FrameType
from typing import Any

from fleet_agent.supervisor import processes
from fleet_agent.supervisor.cgroups import Cgroups
from fleet_agent.supervisor.contacts import Contacts
from fleet_agent.supervisor.journal import Journal
from fleet_agent.supervisor.kept import Kept
from fleet_agent.supervisor.logs import Logs
from fleet_agent.supervisor.loop import READ, Loop, now
from fleet_agent.supervisor.server import Client, Server
from fleet_agent.supervisor.service import Message, Service
from fleet_agent.supervisor.spawn import Nursery
from fleet_agent.supervisor.supervisor import Supervisor
from fleet_core import service_manager

_LOCK_SECONDS = 2.0
"""A supervisor that was just killed holds its lock until the kernel has taken it apart."""
_LOCK_PAUSE_SECONDS = 0.01
_LIFE_PART = 0.4
"""Of the watchdog's time, between two signs of life: one may get lost."""


class Host:
    """Everything `fleet-supervisor run` owns. Closing it leaves all workers running."""

    def __init__(
        self,
        runtime_dir: Path,
        log_dir: Path,
        socket_path: Path,
        nursery: Nursery | None = None,
        *,
        cgroup: Path | None = None,
    ) -> None:
        """Adopts what is there, then listens. Raises OSError, and BlockingIOError where another supervisor runs.

        `cgroup`: a delegated cgroup v2 folder, for this supervisor alone.
        """
        with ExitStack() as owned:
            runtime_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
            owned.callback(os.close, _lock(runtime_dir / "supervisor.lock"))
            self._loop = owned.enter_context(closing(Loop()))
            self._watch_signals(owned)
            place = processes.here()
            journal = Journal(runtime_dir / "journal", place)
            kept = owned.enter_context(closing(Kept(service_manager.take_stored())))
            contacts = owned.enter_context(closing(Contacts(self._loop, runtime_dir / "contact", kept)))
            logs = Logs(self._loop, runtime_dir / "fifos", log_dir, kept)
            self._server: Server | None = None
            nursery = owned.enter_context(closing(nursery or Nursery()))
            cgroups = None if cgroup is None else owned.enter_context(closing(Cgroups(self._loop, cgroup)))
            supervisor = owned.enter_context(
                closing(
                    Supervisor(
                        self._loop,
                        journal,
                        logs,
                        contacts,
                        self._emit,
                        nursery=nursery,
                        home=_home(runtime_dir),
                        cgroups=cgroups,
                    )
                )
            )
            supervisor.adopt(journal.read(), place)
            self._service = Service(supervisor)
            self._server = owned.enter_context(closing(Server(socket_path, self._loop, self._handle)))
            self._owned = owned.pop_all()

    def close(self) -> None:
        self._owned.close()

    def run(self) -> None:
        """Until `stop`."""
        service_manager.notify("READY=1")
        self._show_life()
        self._loop.run()
        service_manager.notify("STOPPING=1")

    def _show_life(self) -> None:
        """To a service manager that waits for it: the loop turns. Without one, an idle supervisor never wakes."""
        seconds = service_manager.watchdog_seconds()
        if seconds is not None:
            service_manager.notify("WATCHDOG=1")
            self._loop.at(now() + seconds * _LIFE_PART, self._show_life)

    def stop(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """A signal handler: the wake-up descriptor ends the loop's wait."""
        self._loop.stop()

    def _watch_signals(self, owned: ExitStack) -> None:
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        owned.callback(os.close, wake_read)
        owned.callback(os.close, wake_write)
        before = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        owned.callback(signal.set_wakeup_fd, before)

        def on_wake(_mask: int) -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)

        self._loop.watch(wake_read, READ, on_wake)

    def _emit(self, message: Mapping[str, Any]) -> None:
        if self._server is not None:
            self._server.broadcast(message)

    def _handle(self, client: Client, message: Message) -> None:
        self._service.handle(client, message)


def _home(runtime_dir: Path) -> str:
    """Names the folder on this machine, whoever asks."""
    found = runtime_dir.stat()
    return f"{found.st_dev:x}-{found.st_ino:x}"


def _lock(path: Path) -> int:
    """A record lock (fcntl(2)): unlike flock's, no child that was forked before a kill can hold on to it.

    Raises BlockingIOError where another process keeps it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise BlockingIOError(
                    f"another supervisor runs on {path.parent}; stop it, or choose another folder"
                ) from error
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return descriptor
