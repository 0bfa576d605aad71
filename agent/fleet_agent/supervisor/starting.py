"""Starts: all of a turn are made at its end, and a process is made beforehand for the next."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from fleet_agent.supervisor import life as lives
from fleet_agent.supervisor.cgroups import CgroupError, Cgroups
from fleet_agent.supervisor.contact import Hears
from fleet_agent.supervisor.contacts import Contacts
from fleet_agent.supervisor.held import Held
from fleet_agent.supervisor.journal import Journal, file_stem
from fleet_agent.supervisor.limits import NEEDS_CGROUP, asks_for_limits
from fleet_agent.supervisor.logs import Logs, WorkerLogs
from fleet_agent.supervisor.loop import Loop, Timer, now
from fleet_agent.supervisor.processes import HOME_VARIABLE, Tree
from fleet_agent.supervisor.protocol import Key, Launch
from fleet_agent.supervisor.spawn import Handed, Nursery, Output, SpawnError

_SPARE_SECONDS = 0.02
"""After a start, until a process is made that waits for the next."""


@dataclass(frozen=True)
class Means:
    """What a process is made with. The starter owns none of it."""

    journal: Journal
    logs: Logs
    contacts: Contacts
    nursery: Nursery
    cgroups: Cgroups | None
    """None: limits are refused."""
    home: str
    """Names the runtime folder in the environment of all that is started (`processes.HOME_VARIABLE`)."""


@dataclass(frozen=True)
class Outcomes:
    """Whom a starter asks and tells."""

    hears: Callable[[Held], Hears]
    started: Callable[[Held, Launch], None]
    """With the launch before; the process and its report are to be watched now."""
    failed: Callable[[Held, str], None]
    """Why there is no process."""
    workers: Mapping[Key, Held]


class Starter:
    """Makes the processes of workers that `life` wants started."""

    def __init__(self, loop: Loop, means: Means, outcomes: Outcomes) -> None:
        self._loop = loop
        self._means = means
        self._outcomes = outcomes
        self._starting: dict[Key, Held] = {}
        """Those to start at the end of this turn."""
        self._spare: Timer | None = None

    @property
    def busy(self) -> bool:
        return bool(self._starting)

    def start_soon(self, held: Held) -> None:
        if not self._starting:
            self._loop.soon(self._start_all)
        self._starting[held.life.key] = held

    def adopt_logs(self, held: Held) -> None:
        """Raises SpawnError."""
        self._open_logs(held).follow(held.life.wanted or held.life.launch)

    def _open_logs(self, held: Held) -> WorkerLogs:
        """Raises SpawnError."""
        key = held.life.key
        try:
            held.logs = held.logs or self._means.logs.open(file_stem(key), key.app, key.slot)
        except OSError as error:
            raise SpawnError(f"log pipes: {error.strerror}: {error.filename}") from error
        return held.logs

    def _start_all(self) -> None:
        starting, self._starting = self._starting, {}
        self._means.nursery.expect(len(starting))
        for key, held in starting.items():
            due = self._outcomes.workers.get(key) is held and held.life.state == "starting" and not held.life.pid
            if due:  # neither forgotten nor stopped meanwhile
                self._start(held)
        self._means.nursery.expect(0)
        if self._spare is None:
            self._spare = self._loop.at(now() + _SPARE_SECONDS, self._make_spare)

    def _make_spare(self) -> None:
        self._spare = None
        self._means.nursery.prepare()

    def _start(self, held: Held) -> None:
        before = held.life
        launch = before.wanted or before.launch

        def record(pid: int, start_ticks: int) -> None:
            held.life = lives.started(before, pid, start_ticks, now())
            if held.contact is not None:
                held.contact.record(pid, start_ticks)
                held.life = held.life._replace(channel_inode=held.contact.inode)
            self._means.journal.write(held.life, waited_for=True)

        try:
            logs = held.logs or self._open_logs(held)
            held.contact, handed = self._means.contacts.open(before.key, launch, partial(self._outcomes.hears, held))
            env = {**handed.env, HOME_VARIABLE: self._means.home}
            handed = Handed(handed.inherit, env, self._make_leaf(held, launch))
            output = Output(*logs.paths)
            spawned = self._means.nursery.spawn(launch, output, record, handed)
        except SpawnError as error:
            held.end_contact()
            held.life = before
            self._outcomes.failed(held, str(error))
            return
        logs.follow(launch)  # before anything it prints is read
        held.leader_end, held.refused = None, ""
        held.report = spawned.report
        held.tree = Tree(spawned.pid, spawned.start_ticks, spawned.pidfd, held.life.launch.env, child=True)
        self._outcomes.started(held, before.launch)

    def _make_leaf(self, held: Held, launch: Launch) -> str:
        """The folder of the cgroup to join, "" for none. Raises SpawnError."""
        if self._means.cgroups is None:
            if asks_for_limits(launch):
                raise SpawnError(NEEDS_CGROUP)
            return ""
        try:
            held.leaf = self._means.cgroups.make(held.life.key, launch)
        except CgroupError as error:
            raise SpawnError(str(error)) from error
        return str(held.leaf.path)
