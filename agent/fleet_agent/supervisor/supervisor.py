"""The shell around `life`: makes, watches, signals and adopts processes, and tells the agent.

What is done on each event is decided in `life`; here it is journaled, reported and carried out, in this order, but for a start,
whose record is written between fork and release (`spawn`).

A stop signal goes to the whole process group, as systemd's KillMode=control-group and PM2 have it, because `npm start` and shells
do not pass one on. The leader's end is not the worker's: as long as the grace lasts, the rest of its session may finish. After a
crash nobody waits: the rest of the group is killed before the next process starts, and soon after it the daemons that had
left the group and the session, which are known by the FLEET_ variables in their environment.
"""

import os
import signal
from collections.abc import Callable
from functools import partial

from fleet_agent.supervisor import life as lives
from fleet_agent.supervisor.cgroups import Cgroups
from fleet_agent.supervisor.complaints import complain
from fleet_agent.supervisor.contact import Hears
from fleet_agent.supervisor.contacts import Contacts
from fleet_agent.supervisor.held import Held
from fleet_agent.supervisor.journal import Journal, Record, file_stem
from fleet_agent.supervisor.life import Ask, Effect, Life, Start, Step
from fleet_agent.supervisor.logs import Logs
from fleet_agent.supervisor.loop import HANG_UP, READ, Loop, now
from fleet_agent.supervisor.news import Emit, News
from fleet_agent.supervisor.notify import Said
from fleet_agent.supervisor.processes import (
    UNKNOWN_END,
    End,
    Place,
    Sessions,
    Tree,
    living_by_session,
    open_verified,
    send,
)
from fleet_agent.supervisor.protocol import Key, Launch, Worker
from fleet_agent.supervisor.spawn import Nursery, SpawnError
from fleet_agent.supervisor.starting import Means, Outcomes, Starter

_REAPING_SECONDS = 0.1
"""How long the exit status of an adopted process may stay unknown between its end and its reaping by init."""

_STRAYS_SECONDS = 0.05
"""After a crash, until the daemons it left are looked for: all of /proc is."""


def random_jitter() -> float:
    """In [0, 1). The module `random` would cost more memory than all of this."""
    return int.from_bytes(os.urandom(2), "big") / 65536


class Supervisor:
    """All workers of one runtime folder. Owns their descriptors; `close` leaves the processes alone."""

    def __init__(
        self,
        loop: Loop,
        journal: Journal,
        logs: Logs,
        contacts: Contacts,
        emit: Emit,
        *,
        nursery: Nursery,
        home: str,
        cgroups: Cgroups | None = None,
        jitter: Callable[[], float] = random_jitter,
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._logs = logs
        self._contacts = contacts
        self._cgroups = cgroups
        self._home = home
        self._jitter = jitter
        self._workers: dict[Key, Held] = {}
        self._when_down: list[Callable[[], None]] = []
        self._starter = Starter(
            loop,
            Means(journal, logs, contacts, nursery, cgroups, home),
            Outcomes(self._hears, self._on_started, self._on_not_started, self._workers),
        )
        self._becoming: set[Held] = set()
        """Those whose process was released, and has not told yet whether it became its program."""
        self._news = News(loop, emit, lambda: self._starter.busy, lambda: bool(self._becoming))
        self._crashed: list[tuple[Tree, float]] = []
        """Trees that ended by themselves, and when: their daemons were not looked for yet."""
        self._looking: list[tuple[Held, Tree]] = []
        """Stopping workers whose leader has ended, and whose other processes were not looked for yet."""

    def close(self) -> None:
        """Workers live on, and the next supervisor finds them in the journal."""
        for held in self._workers.values():
            held.close(self._loop)
        self._workers.clear()
        self._becoming.clear()

    # What the agent asks for

    def workers(self) -> list[Worker]:
        return [lives.report(held.life) for held in self._workers.values()]

    @property
    def stopping_all(self) -> bool:
        return bool(self._when_down)

    def run(self, key: Key, launch: Launch) -> None:
        held = self._workers.get(key)
        if held is not None:
            self._step(held, lives.run(held.life, launch))
            return
        life, effects = lives.begin(key, launch)
        held = self._workers[key] = Held(life)
        self._carry_out(held, effects)

    def stop(self, key: Key, number: int, grace_seconds: float) -> None:
        held = self._workers.get(key)
        if held is not None:
            self._step(held, lives.stop(held.life, number, grace_seconds, now()))

    def note(self, key: Key, pid: int, *, ready: bool) -> None:
        held = self._workers.get(key)
        if held is not None:
            self._step(held, lives.note(held.life, pid, ready=ready))

    def fail(self, key: Key, pid: int, reason: str) -> None:
        held = self._workers.get(key)
        if held is not None:
            self._step(held, lives.fail(held.life, pid, reason, now()))

    def forget(self, key: Key) -> str:
        """Why it is refused; "" when the record is gone."""
        held = self._workers.get(key)
        if held is None:
            return ""
        if held.life.state not in lives.ENDED:
            return f"worker {key.app}/{key.slot} of generation {key.generation} is {held.life.state}; stop it first"
        if held.logs is not None:
            held.logs.end()  # before the record goes: a supervisor that follows would know nothing of them
        try:
            self._journal.remove(key)
        except OSError as error:
            return f"the journal cannot be changed: {error.strerror}"
        del self._workers[key]
        if held.logs is not None:
            held.logs.close()
        self._logs.remove(file_stem(key))
        self._contacts.forget(key)
        self._news.forgotten(key)
        return ""

    def stop_all(self, grace_seconds: float, when_down: Callable[[], None]) -> None:
        """Calls back once no worker has a process."""
        self._when_down.append(when_down)
        for held in list(self._workers.values()):
            self._step(held, lives.stop(held.life, held.life.launch.stop_signal, grace_seconds, now()))
        self._tell_when_down()

    # Adoption

    def adopt(self, records: list[Record], place: Place) -> None:
        """Take over what another supervisor left, before anybody is served."""
        self._contacts.adopt_listeners(record.life for record in records if record.place == place)
        for record in records:
            held = self._workers[record.life.key] = Held(record.life)
            self._adopt_logs(held)  # also of one that ended: something may be left in its pipes
            if held.life.pid and record.place == place:
                self._adopt_process(held)
            else:
                self._step(held, lives.resume(held.life, now()), adopted=True)
        self._logs.keep_only({file_stem(key) for key in self._workers})
        self._contacts.adopted(self._workers)
        self._release_listeners()
        if self._cgroups is not None:
            self._cgroups.keep_only({held.life.key for held in self._workers.values() if held.leaf is not None})

    def _adopt_logs(self, held: Held) -> None:
        try:
            self._starter.adopt_logs(held)
        except SpawnError as error:
            complain(f"{held.life.key.app}/{held.life.key.slot}: {error}")

    def _adopt_process(self, held: Held) -> None:
        life = held.life
        pidfd = open_verified(life.pid, life.start_ticks)
        held.tree = Tree(life.pid, life.start_ticks, pidfd, life.launch.env, child=False)
        self._set_timer(held)
        if self._cgroups is not None:
            leaf = self._cgroups.find(life.key)
            held.leaf = leaf.from_the_start() if leaf is not None and pidfd is None else leaf
        if life.killed:
            held.kill_all()
        elif life.unsure:
            self._signal(held, held.tree, life.unsure)
        if pidfd is None:
            self._leader_ended(held, held.tree.outcome() or UNKNOWN_END)
        else:
            self._adopt_contact(held, pidfd)
            self._loop.watch(pidfd, READ, partial(self._on_pidfd, held, held.tree))

    def _adopt_contact(self, held: Held, pidfd: int) -> None:
        try:
            held.contact = self._contacts.adopt(held.life, pidfd, self._hears(held))
        except OSError as error:
            reason = error.strerror or error
            complain(f"{held.life.key.app}/{held.life.key.slot}: sockets: {reason}")
        if held.contact is not None and held.life.ever_ready and held.life.state != "stopping":
            held.contact.arm_watchdog()

    # From a step of a life to the world

    def _step(self, held: Held, step: Step, *, adopted: bool = False) -> None:
        before, (held.life, effects) = held.life, step
        if held.life == before and not effects and not adopted:
            return
        if held.life.deadline != before.deadline or adopted:
            self._set_timer(held)
        if Start() not in effects:
            self._write(held.life)
        if held.life.state != before.state:
            self._on_state(held, before)
        self._news.changed(held.life, before)
        self._carry_out(held, effects)

    def _on_state(self, held: Held, before: Life) -> None:
        if held.contact is not None and held.life.state == "running":
            held.contact.arm_watchdog()
        elif held.contact is not None and held.life.state == "stopping":
            held.contact.disarm_watchdog()
        if before.launch.listen_port and held.life.state in lives.ENDED:
            self._release_listeners()
        if held.leaf is not None and self._cgroups is not None and held.life.state in lives.ENDED:
            self._cgroups.retire(held.leaf)
            held.leaf = None

    def _carry_out(self, held: Held, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, Start):
                self._starter.start_soon(held)
            elif isinstance(effect, Ask):
                if held.contact is None or not held.contact.ask_to_shut_down():
                    self._step(held, lives.unheard(held.life, now()))
            elif held.tree is not None and effect.number == signal.SIGKILL:
                held.kill_all()
            elif held.tree is not None:
                self._signal(held, held.tree, effect.number)

    def _signal(self, held: Held, tree: Tree, number: int) -> None:
        """Journaled before as not sure, after as sent: a supervisor killed in between leaves it to the next."""
        tree.signal_group(number)
        tree.signal_group(signal.SIGCONT)  # one that was suspended could not obey
        held.life = lives.sent(held.life)
        self._write(held.life)

    def _set_timer(self, held: Held) -> None:
        """To be called when the deadline may be another."""
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        if held.life.deadline is not None:
            held.timer = self._loop.at(held.life.deadline, partial(self._on_deadline, held))

    def _on_deadline(self, held: Held) -> None:
        held.timer = None
        self._step(held, lives.due(held.life, now()))

    def _write(self, life: Life) -> None:
        try:
            self._journal.write(life)
        except OSError as error:
            complain(f"the journal cannot be written: {error.strerror}")

    def _on_started(self, held: Held, launch_before: Launch) -> None:
        tree = held.tree
        if tree is None or tree.pidfd is None:
            return
        self._loop.watch(tree.pidfd, READ, partial(self._on_pidfd, held, tree))
        self._loop.watch(held.report, READ, partial(self._on_report, held))
        self._becoming.add(held)
        if held.contact is not None:
            held.contact.watch()
        if launch_before.listen_port and launch_before != held.life.launch:
            self._release_listeners()
        self._news.changed(held.life, None)

    def _on_not_started(self, held: Held, reason: str) -> None:
        self._step(held, lives.ended(held.life, reason, now(), self._jitter()))

    def _on_report(self, held: Held, _mask: int) -> None:
        held.refused = self._settle_report(held)

    def _settle_report(self, held: Held) -> str:
        refused = held.settle_report(self._loop)
        self._becoming.discard(held)
        if not self._becoming:
            self._news.became()
        return refused

    def _hears(self, held: Held) -> Hears:
        return Hears(
            belongs=lambda pid: held.tree is not None and held.tree.holds(pid),
            notified=partial(self._on_notified, held),
            told=partial(self._on_told, held),
            missed=partial(self._on_missed, held),
        )

    def _release_listeners(self) -> None:
        self._contacts.release_listeners(held.life for held in self._workers.values())

    # From the world to a step of a life

    def _on_notified(self, held: Held, said: Said) -> None:
        if said.status is not None:
            self._step(held, lives.status(held.life, held.life.pid, said.status))
        if said.ready is not None:
            self._step(held, lives.note(held.life, held.life.pid, ready=said.ready, by="notify"))

    def _on_told(self, held: Held, by: str) -> None:
        self._step(held, lives.note(held.life, held.life.pid, ready=True, by=by))

    def _on_missed(self, held: Held) -> None:
        reason = f"watchdog: nothing heard for {held.life.launch.watchdog_seconds:g} s"
        self._step(held, lives.fail(held.life, held.life.pid, reason, now(), signal.SIGABRT))

    def _on_pidfd(self, held: Held, tree: Tree, mask: int) -> None:
        if held.tree is not tree or held.leader_end is not None or tree.pidfd is None:
            return
        outcome = tree.outcome()
        if outcome is None and mask & HANG_UP:
            outcome = UNKNOWN_END
        if outcome is not None:
            self._leader_ended(held, outcome)
        elif not tree.child:
            self._loop.change(tree.pidfd, 0)  # the hang-up that follows reaping is always told
            self._loop.at(now() + _REAPING_SECONDS, partial(self._on_pidfd, held, tree, HANG_UP))

    def _leader_ended(self, held: Held, outcome: End) -> None:
        tree = held.tree
        if tree is None:
            return
        refused = self._settle_report(held)
        held.leader_end = End(refused) if refused else outcome
        if held.life.state == "stopping":
            if tree.pidfd is not None:
                self._loop.unwatch(tree.pidfd)
            self._await_members(held, tree)
        else:
            self._tree_ended(held, tree)

    def _await_members(self, held: Held, tree: Tree) -> None:
        """Many workers may stop together, and one look at /proc serves them all: at the end of this turn."""
        if not self._looking:
            self._loop.at(now(), self._look_for_members)
        self._looking.append((held, tree))

    def _look_for_members(self) -> None:
        looking, self._looking = self._looking, []
        living = living_by_session()
        for held, tree in looking:
            self._watch_members(held, tree, living)

    def _watch_members(self, held: Held, tree: Tree, living: Sessions) -> None:
        if held.life.killed:
            held.kill_all()
        strays = tree.open_strays(self._home, living, self._leaders(), now())
        for stray in strays:
            send(stray, signal.SIGKILL if held.life.killed else held.life.launch.stop_signal)
        held.members = {*tree.open_members(living), *strays}
        if not held.members:
            self._tree_ended(held, tree)
            return
        for member in held.members:
            self._loop.watch(member, READ, partial(self._on_member, held, tree, member))

    def _leaders(self) -> set[int]:
        return {held.life.pid for held in self._workers.values() if held.life.pid}

    def _kill_strays(self) -> None:
        """What daemons the crashed have left, once their next processes are on their way."""
        crashed, self._crashed = self._crashed, []
        living, leaders = living_by_session(), self._leaders()
        for tree, ended in crashed:
            for stray in tree.open_strays(self._home, living, leaders, ended):
                send(stray, signal.SIGKILL)
                os.close(stray)

    def _on_member(self, held: Held, tree: Tree, member: int, _mask: int) -> None:
        if member in held.members:
            held.drop_member(self._loop, member)
            if not held.members and held.tree is tree:
                self._await_members(held, tree)  # it may have left others

    def _tree_ended(self, held: Held, tree: Tree) -> None:
        """What can wait until the next process is on its way waits (`_bury`)."""
        end, ended = held.how_it_ended(), now()
        crashed = held.life.state != "stopping"
        step = lives.ended(held.life, end.reason, ended, self._jitter(), end.exit_code)
        if held.leaf is not None:
            held.leaf.kill()
        tree.signal_group(signal.SIGKILL)
        if held.leaf is not None:
            tree.reap()  # it counts in pids.max
        held.tree = None
        held.end_contact()
        self._step(held, step)
        self._loop.soon(partial(self._bury, tree, ended, crashed=crashed))
        self._tell_when_down()

    def _bury(self, tree: Tree, ended: float, *, crashed: bool) -> None:
        if tree.pidfd is not None:
            self._loop.unwatch(tree.pidfd)
        tree.reap()
        tree.close()
        if crashed:
            if not self._crashed:
                self._loop.at(now() + _STRAYS_SECONDS, self._kill_strays)
            self._crashed.append((tree, ended))

    def _tell_when_down(self) -> None:
        if self._when_down and all(held.tree is None for held in self._workers.values()):
            callbacks, self._when_down = self._when_down, []
            for callback in callbacks:
                callback()
