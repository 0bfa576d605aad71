"""All that one process and its supervisor have to talk through, from before its fork to the end of its tree.

What a process inherits has fixed places, so that the next supervisor finds its copies there:

```
3        the app's listening socket                       where Launch.listen_port is set
next     the process's end of the channel                 where Launch.channel is set
next     a copy of the socket behind NOTIFY_SOCKET        where Launch.notify is set
next     a copy of the supervisor's end of the channel    where Launch.channel is set
```

The copies are not for the program's use: they keep its peers open while no supervisor lives (`kept`). Node closes none of them
and passes none on to its own children.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from fleet_agent.supervisor import channels
from fleet_agent.supervisor.channels import Meeting, Peer
from fleet_agent.supervisor.complaints import complain
from fleet_agent.supervisor.identity import UNCHANGED, identity_of
from fleet_agent.supervisor.kept import Kept, copy_from
from fleet_agent.supervisor.loop import Loop
from fleet_agent.supervisor.notify import NotifySocket, Said
from fleet_agent.supervisor.protocol import Launch
from fleet_agent.supervisor.spawn import FIRST_INHERITED, Handed
from fleet_agent.supervisor.watchdog import Watchdog


@dataclass(frozen=True)
class Hears:
    """Whom a contact tells. Nothing is told after `Contact.close`."""

    belongs: Callable[[int], bool]
    """Is this pid of the worker's tree."""
    notified: Callable[[Said], None]
    told: Callable[[str], None]
    """A word by message, in the terms of `Launch.ready_by`."""
    missed: Callable[[], None]
    """The watchdog's time is over."""


@dataclass(frozen=True)
class Places:
    """Which number is what in a process; -1: not there."""

    listener: int
    channel: int
    notify: int
    supervisor_end: int


def places(launch: Launch) -> Places:
    wanted = (bool(launch.listen_port), launch.channel, launch.notify, launch.channel)
    numbers, number = [], FIRST_INHERITED
    for there in wanted:
        numbers.append(number if there else -1)
        number += there
    return Places(*numbers)


class Paths(NamedTuple):
    """Of a worker's sockets, whatever process of it is the present one."""

    notify: Path
    meeting: Path


def paths_in(folder: Path, stem: str) -> Paths:
    return Paths(folder / f"{stem}.notify", folder / f"{stem}.channel")


_Adopted = TypeVar("_Adopted", NotifySocket, Peer)


class Contact:
    """One process's. Owned by the worker that holds it; what its launch does not ask for is None."""

    def __init__(self, stem: str, launch: Launch, hears: Hears, loop: Loop, kept: Kept, folder: Path) -> None:
        self._stem = stem
        self._launch = launch
        self._hears = hears
        self._loop = loop
        self._kept = kept
        self._paths = paths_in(folder, stem)
        self._process = 0, 0
        self.notify: NotifySocket | None = None
        self.channel: Peer | None = None
        self.meeting: Meeting | None = None
        self._process_end: socket.socket | None = None
        self._watchdog: Watchdog | None = None

    def make(self) -> None:
        """For a process that is to be made. Raises OSError and IdentityError; `close` it then too."""
        if self._launch.notify:
            self._bind_notify()
        if self._launch.channel:
            self._bind_meeting()
            self.channel, self._process_end = channels.pair()

    def handed(self, listener: int) -> Handed:
        """To `spawn`, with the app's listening socket or -1."""
        given = (
            listener,
            -1 if self._process_end is None else self._process_end.fileno(),
            -1 if self.notify is None else self.notify.descriptor,
            -1 if self.channel is None else self.channel.descriptor,
        )
        return Handed(tuple(number for number in given if number >= 0), self._environment())

    @property
    def inode(self) -> int:
        """Of the supervisor's end of the channel, by which the next one knows it; 0: none."""
        return 0 if self.channel is None else self.channel.inode

    def record(self, pid: int, start_ticks: int) -> None:
        """The process is made and does not run yet: from here on its sockets outlive this supervisor."""
        self._process = pid, start_ticks
        if self.notify is not None:
            self._kept.keep(self._kept_name("notify"), self.notify.descriptor)
        if self.channel is not None:
            self._kept.keep(self._kept_name("channel"), self.channel.descriptor)

    def recover(self, pid: int, start_ticks: int, pidfd: int, inode: int) -> None:
        """Get back what another supervisor held. Raises OSError and IdentityError where what is lost cannot be made anew."""
        self._process = pid, start_ticks
        there = places(self._launch)
        if self._launch.notify:
            self.notify = self._get_back(
                "notify", pidfd, there.notify, lambda found: NotifySocket.adopt(found, self._paths.notify)
            )
            if self.notify is None:
                self._bind_notify()
        if self._launch.channel:
            self.channel = self._get_back(
                "channel", pidfd, there.supervisor_end, lambda found: channels.peer_of(found, inode)
            )
            if self.channel is None:
                complain(f"the channel of {self._stem} is lost; its next start has one")
            self._bind_meeting()

    def watch(self) -> None:
        """The process runs."""
        self._close_process_end()
        if self.notify is not None:
            self.notify.watch(self._loop, self._hears.belongs, self._hear)
        if self.channel is not None:
            self.channel.watch(self._loop, self._hears.told, lambda _peer: None)
        if self.meeting is not None:
            self.meeting.watch(self._loop, self._hears.belongs, self._hears.told)
        if self._launch.watchdog_seconds:
            self._watchdog = Watchdog(self._loop, self._launch.watchdog_seconds, self._hears.missed)

    def arm_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.arm()

    def disarm_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.close()

    def ask_to_shut_down(self) -> bool:
        """False where nothing took the message."""
        native = self.channel is not None and self.channel.send(channels.SHUTDOWN)
        below = self.meeting is not None and self.meeting.send(channels.SHUTDOWN)
        return native or below

    def close(self, *, for_good: bool) -> None:
        """`for_good`: the process is gone with its tree. Else another supervisor will adopt it."""
        self._close_process_end()
        self.disarm_watchdog()
        for endpoint in (self.notify, self.channel, self.meeting):
            if endpoint is not None:
                endpoint.close()
        if for_good:
            if self._launch.notify:
                self._kept.drop(self._kept_name("notify"))
            if self._launch.channel:
                self._kept.drop(self._kept_name("channel"))
            for bound in (self.notify, self.meeting):
                if bound is not None:
                    bound.path.unlink(missing_ok=True)

    def _hear(self, said: Said) -> None:
        if self._watchdog is not None and (said.alive or said.ready):
            self._watchdog.heard()
        self._hears.notified(said)

    def _environment(self) -> dict[str, str]:
        there = places(self._launch)
        env: dict[str, str] = {}
        if there.listener >= 0:
            env.update(LISTEN_FDS="1", LISTEN_FDNAMES="fleet", FLEET_LISTEN_FD=str(there.listener))
            env["FLEET_STOP_SIGNAL"] = str(self._launch.stop_signal)
        if self.notify is not None:
            env["NOTIFY_SOCKET"] = os.fspath(self.notify.path)
        if self._launch.watchdog_seconds:
            env["WATCHDOG_USEC"] = str(int(self._launch.watchdog_seconds * 1_000_000))
        if self.meeting is not None:
            env.update(NODE_CHANNEL_FD=str(there.channel), NODE_CHANNEL_SERIALIZATION_MODE="json")
            env["FLEET_CHANNEL"] = os.fspath(self.meeting.path)
        return env

    def _bind_notify(self) -> None:
        self.notify = NotifySocket.bind(self._paths.notify)
        _give_to(self._launch, self._paths.notify)

    def _bind_meeting(self) -> None:
        self.meeting = Meeting(self._paths.meeting)
        _give_to(self._launch, self._paths.meeting)

    def _kept_name(self, kind: str) -> str:
        pid, start_ticks = self._process
        return f"{kind}.{self._stem}.{pid}.{start_ticks}"

    def _get_back(self, kind: str, pidfd: int, number: int, adopt: Callable[[int], _Adopted | None]) -> _Adopted | None:
        stored = self._kept.take(self._kept_name(kind))
        found = None if stored is None else adopt(stored)
        if found is None and (copied := copy_from(pidfd, number)) is not None:
            found = adopt(copied)
            if found is not None:
                self._kept.keep(self._kept_name(kind), found.descriptor)
        return found

    def _close_process_end(self) -> None:
        if self._process_end is not None:
            self._process_end.close()
            self._process_end = None


def _give_to(launch: Launch, path: Path) -> None:
    """A program of another user must be able to connect. Raises OSError and IdentityError."""
    owner = identity_of(launch).uid
    if owner != UNCHANGED:
        os.chown(path, owner, -1)
