"""Makes and adopts what workers and supervisor talk through: a contact for each process, listening sockets for each app."""

import errno
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from fleet_agent.supervisor.contact import Contact, Hears, paths_in, places
from fleet_agent.supervisor.identity import IdentityError
from fleet_agent.supervisor.journal import file_stem
from fleet_agent.supervisor.kept import Kept
from fleet_agent.supervisor.life import ENDED, Life
from fleet_agent.supervisor.listeners import Listeners, Shared, shared_by
from fleet_agent.supervisor.loop import Loop
from fleet_agent.supervisor.processes import open_verified
from fleet_agent.supervisor.protocol import Key, Launch
from fleet_agent.supervisor.spawn import NOTHING_HANDED, Handed, SpawnError


class Contacts:
    """Of one runtime folder. Owns the listening sockets, not the contacts it makes."""

    def __init__(self, loop: Loop, folder: Path, kept: Kept) -> None:
        """`folder` and those above it must let the workers' users pass, who are given their own sockets in it."""
        self._loop = loop
        self._folder = folder
        self._kept = kept
        self._listeners = Listeners(kept)
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)

    def close(self) -> None:
        """Closes no socket for the workers: they, and the fd store, have them too."""
        self._listeners.close()

    def open(self, key: Key, launch: Launch, hears: Callable[[], Hears]) -> tuple[Contact | None, Handed]:
        """For a process that is to be made. `hears` is asked where it has a contact. Raises SpawnError."""
        shared = shared_by(key, launch)
        if shared is None and not launch.notify and not launch.channel:
            return None, NOTHING_HANDED
        listener = -1
        if shared is not None:
            try:
                listener = self._listeners.open(shared)
            except OSError as error:
                where = f"{shared.address}:{shared.port}"
                raise SpawnError(f"listening socket {where}: {error.strerror or error}") from error
        contact = self._contact(key, launch, hears())
        try:
            contact.make()
        except OSError as error:
            contact.close(for_good=True)
            raise SpawnError(f"sockets in {self._folder}: {error.strerror or error}") from error
        except IdentityError as error:
            contact.close(for_good=True)
            raise SpawnError(str(error)) from error
        return contact, contact.handed(listener)

    def adopt(self, life: Life, pidfd: int, hears: Hears) -> Contact | None:
        """For a process that lives. Raises OSError where a socket that was lost cannot be made anew."""
        if not life.launch.notify and not life.launch.channel:
            return None
        contact = self._contact(life.key, life.launch, hears)
        try:
            contact.recover(life.pid, life.start_ticks, pidfd, life.channel_inode)
        except OSError:
            contact.close(for_good=False)
            raise
        except IdentityError as error:
            contact.close(for_good=False)
            raise OSError(errno.EINVAL, str(error)) from error
        contact.watch()
        return contact

    def adopt_listeners(self, alive: Iterable[Life]) -> None:
        """To be called before any process is made. `alive`: those whose pids mean something here."""
        for life in alive:
            shared = shared_by(life.key, life.launch)
            if shared is None:
                continue
            pidfd = open_verified(life.pid, life.start_ticks) if life.pid else None
            self._listeners.adopt(shared, pidfd, places(life.launch).listener)
            if pidfd is not None:
                os.close(pidfd)

    def adopted(self, everybody: Collection[Key]) -> None:
        """All that lives was adopted. What belongs to no worker goes: a supervisor was killed while it forgot it."""
        self._kept.drop_unclaimed()
        stems = {file_stem(key) for key in everybody}
        for path in self._folder.iterdir():
            if path.stem not in stems:
                path.unlink(missing_ok=True)

    def forget(self, key: Key) -> None:
        """Delete what a supervisor left behind that was killed while the last process of this worker ended."""
        for path in paths_in(self._folder, file_stem(key)):
            path.unlink(missing_ok=True)

    def release_listeners(self, everybody: Iterable[Life]) -> None:
        """Close the listening sockets that no worker has or waits for."""
        wanted: set[Shared | None] = set()
        for life in everybody:
            if life.state not in ENDED:
                wanted.add(shared_by(life.key, life.launch) if life.pid else None)
                wanted.add(None if life.wanted is None else shared_by(life.key, life.wanted))
        self._listeners.keep_only(wanted)

    def _contact(self, key: Key, launch: Launch, hears: Hears) -> Contact:
        return Contact(file_stem(key), launch, hears, self._loop, self._kept, self._folder)
