"""The leader's loop: whenever something changed, plan the apps it concerns, and send out what follows.

All decisions are the planner's; this module only gathers what it must see and carries what it says to agents, balancers and etcd.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from fleet_controller.assignments import AppProgress, Assignments
from fleet_controller.balancers import Upstreams
from fleet_controller.desired import Desired
from fleet_controller.hosts import Hosts, ObservedHost, ObservedWorker
from fleet_controller.leader import Term
from fleet_controller.lineage import Lineage
from fleet_controller.mutations import endings
from fleet_controller.planning.departures import without_departing
from fleet_controller.planning.relocation import at_rest, draining
from fleet_controller.planning.rollout import plan
from fleet_controller.planning.views import Failure, Situation
from fleet_controller.preparations import brings_code, code_views
from fleet_controller.records import (
    AppRecord,
    AppState,
    BalancerRecord,
    FailedWorkerRecord,
    HostRecord,
    RevisionRecord,
    RolloutKind,
    RolloutRecord,
    RolloutState,
    app_key,
    revision_key,
    rollout_key,
)
from fleet_controller.store.interface import Conflict, Created, Delete, Put, Store, StoreError, Unchanged
from fleet_core.ids import WorkerId
from fleet_core.spec import RolloutPolicy

_log = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
"""So long a new leader waits for hosts to report before it believes an upstream list that lacks their endpoints."""
LAST_WORDS_SECONDS = 0.7
"""So long a failed rollout waits for what the worker printed last; agents read it from the log, which is written first."""
_RETRY_SECONDS = 0.5
_WITHDRAWAL_SECONDS = 0.01
"""So long planning leaves the processor to an endpoint's way off the lists: balancers may run on this machine, too."""

_REPLACING = (RolloutKind.UPDATE, RolloutKind.ROLLBACK, RolloutKind.RESTART)


class Conductor:
    """Lives as long as one term. `touch` is called from the sessions, on the same event loop."""

    def __init__(
        self,
        store: Store,
        desired: Desired,
        term: Term,
        lineage: Lineage,
        hosts: Hosts,
        upstreams: Upstreams,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._desired = desired
        self._term = term
        self._lineage = lineage
        self._epoch = lineage.epoch
        self._hosts = hosts
        self._upstreams = upstreams
        self._clock = clock
        self._began = clock()
        self._touched: set[str] = set()
        self._rest_until = 0.0
        self._news = asyncio.Event()
        self._commits: dict[str, asyncio.Task[None]] = {}
        self.apps: dict[str, AppProgress] = {}
        self._assignments = Assignments(desired, term, lineage.epoch, self.apps)
        self.planned = asyncio.Condition()
        """Notified after each pass."""

    def touch(self, apps: Iterable[str] | None = None) -> None:
        """These apps (None: all) must be planned again."""
        self._touched.update(self._all_apps() if apps is None else apps)
        self._news.set()

    def reported(self, host: ObservedHost, apps: Iterable[str]) -> None:
        """A host told changes in these apps. What cannot answer requests any more leaves the lists now; the rest is planned."""
        if self._lineage.trouble:
            return
        gone: dict[str, set[WorkerId]] = {app: set() for app in apps}
        for identity, worker in host.workers.items():
            if identity.app in gone and not worker.view.listable:
                gone[identity.app].add(identity)
        for app, workers in gone.items():
            if self._upstreams.withdraw(app, workers):
                self._rest_until = self._clock() + _WITHDRAWAL_SECONDS
        self.touch(gone)

    async def run(self) -> None:
        """Plan until cancelled."""
        after_grace = asyncio.get_running_loop().call_later(GRACE_SECONDS, self.touch)
        try:
            while True:
                self._news.clear()
                began = self._clock()
                if self._term.awake():
                    touched, self._touched = self._touched, set()
                    self._pass(touched)
                self._rest_until = self._clock() + (self._clock() - began)
                async with self.planned:
                    self.planned.notify_all()
                await self._wait()
                # Reports of many workers come one by one: never plan more than half of the time, and take what came together.
                await asyncio.sleep(max(0.0, self._rest_until - self._clock()))
        finally:
            after_grace.cancel()
            for task in self._commits.values():
                task.cancel()
            await asyncio.gather(*self._commits.values(), return_exceptions=True)

    async def _wait(self) -> None:
        now = self._clock()
        wakes = {
            name: p.plan.wake_at for name, p in self.apps.items() if p.plan is not None and p.plan.wake_at is not None
        }
        next_wake = min(wakes.values(), default=None)
        provable = self._term.provable()
        if not provable:
            next_wake = min(now + _RETRY_SECONDS, next_wake or now + _RETRY_SECONDS)
        try:
            async with asyncio.timeout(None if next_wake is None else max(0.0, next_wake - now)):
                await self._news.wait()
        except TimeoutError:
            now = self._clock()
            self._touched.update(name for name, wake in wakes.items() if wake <= now)
        if self._term.provable() != provable:
            self.touch()

    # One pass

    def _pass(self, touched: set[str]) -> None:
        if self._lineage.trouble:
            return
        known = self._all_apps()
        unknown = self._unknown_apps(known)
        if self._believable():
            self._upstreams.rename(known.union(*unknown.values()))
        for name in sorted(touched):
            app = self._desired.get(app_key(name), AppRecord)
            if app is None:
                self.apps.pop(name, None)
            else:
                self._plan_app(app)
        for host in self._hosts:
            self._assignments.send(host, known, unknown.get(host.name, frozenset()))
            self._assignments.let_go(host, self._upstreams)

    def _plan_app(self, app: AppRecord) -> None:
        revision = self._desired.get(revision_key(app.name, app.revision), RevisionRecord)
        if revision is None:
            _log.error("app %s names revision %d, which is missing: it is left alone", app.name, app.revision)
            return
        progress = self.apps.setdefault(app.name, AppProgress())
        rollout = self._desired.get(rollout_key(app.rollout), RolloutRecord)
        if rollout is not None and not rollout.state.under_way:
            rollout = None
        if rollout is not None and progress.rollout != rollout.id:
            progress.rollout, progress.began = rollout.id, self._clock()
        workers = tuple(self._hosts.workers_of(app.name))
        situation = Situation(
            app=at_rest(app, draining(self._desired.all(HostRecord))),
            spec=revision.app_spec,
            rollout=rollout,
            workers=workers,
            reported=frozenset(host.name for host in self._hosts if host.reported),
            connected=frozenset(host.name for host in self._hosts if host.connected and not host.leaving)
            if self._term.provable()
            else frozenset(),
            balancers=self._upstreams.views(app.name, (record.name for record in self._desired.all(BalancerRecord))),
            memory=progress.memory,
            brings_code=brings_code(rollout, revision),
            code=code_views(self._hosts, app, revision),
        )
        progress.plan = plan(situation, self._clock())
        progress.memory = progress.plan.memory
        if self._believable():
            by_id = {worker.id: worker for worker in workers}
            path = self._health_path(app.name, {by_id[worker].revision for worker in progress.plan.endpoints})
            leaving = {host.name for host in self._hosts if host.leaving}
            endpoints = without_departing(progress.plan.endpoints, leaving)
            if endpoints or not self._unheard(app, situation.reported):
                self._upstreams.update(app.name, situation.spec.route, endpoints, by_id, path)
        if rollout is not None and (progress.plan.failure or progress.plan.settled):
            self._end(app, rollout, progress)

    def _health_path(self, app: str, revisions: Iterable[int]) -> str:
        """What balancers may ask every listed worker for; empty while revisions differ: an older one may not know the path."""
        records = [self._desired.get(revision_key(app, number), RevisionRecord) for number in revisions]
        paths = {record.app_spec.ready.health_path if record is not None else "" for record in records}
        return paths.pop() if len(paths) == 1 else ""

    def _believable(self) -> bool:
        """Whether lists made from what was reported may replace those balancers hold from the leader before."""
        if self._clock() - self._began >= GRACE_SECONDS:
            return True
        reported = {host.name for host in self._hosts if host.reported}
        return all(record.name in reported for record in self._desired.all(HostRecord))

    def _unknown_apps(self, known: set[str]) -> dict[str, frozenset[str]]:
        """Host → apps that run there and that nobody made or removed, as far as etcd knows: it was restored from before they were
        made. They are left alone."""
        found = {}
        for host in self._hosts:
            unknown = {identity.app for identity in host.workers} - known
            if unknown and (unknown := unknown - self._removed_apps()):
                found[host.name] = frozenset(unknown)
        return found

    def _unheard(self, app: AppRecord, reported: frozenset[str]) -> bool:
        """Whether a host with a share of the app never reported to this leader.

        A list that is empty for that alone would take from balancers what they can reach: they keep the one they have, and their
        checks hide what is dead.
        """
        return any(app.wanted(record.name) and record.name not in reported for record in self._desired.all(HostRecord))

    # To etcd

    def _end(self, app: AppRecord, rollout: RolloutRecord, progress: AppProgress) -> None:
        """Write that the rollout ended, unless that is being written."""
        if app.name in self._commits or progress.plan is None:
            return
        seconds = round(self._clock() - progress.began, 3)
        failure = progress.plan.failure
        # Taken with the records: what changes them before the task writes must make it fail.
        read = [Unchanged(key, self._desired.written_at(key)) for key in (app_key(app.name), rollout_key(rollout.id))]
        task = asyncio.create_task(self._write_end(app, rollout, read, failure, seconds), name=f"end-{rollout.id}")
        self._commits[app.name] = task
        task.add_done_callback(lambda _: self._commits.pop(app.name, None))

    async def _write_end(
        self,
        app: AppRecord,
        rollout: RolloutRecord,
        read: Iterable[Unchanged],
        failure: Failure | None,
        seconds: float,
    ) -> None:
        if failure is not None:
            policy = self._policy_of(app).on_failure
            worker = await self._failed_worker(failure)
            stopped = self.as_far_as_it_is(rollout)
            new_app, new_rollout = endings.failed(app, stopped, failure.text, worker, policy, seconds)
        else:
            new_app, new_rollout = endings.done(app, rollout, seconds, self._replaced(rollout))
        expectations: list[Unchanged | Created] = [self._term.fence(), *read]
        writes: list[Put | Delete] = [Put(rollout_key(rollout.id), new_rollout.encode())]
        if rollout.kind is RolloutKind.REMOVE and new_rollout.state is RolloutState.DONE:
            writes += self._forget(app, rollout)
        else:
            writes.append(Put(app_key(app.name), new_app.encode()))
        try:
            self._lineage.require_sound()
            self._term.committed(await self._store.commit(expectations, writes))
        except Conflict:
            pass  # somebody changed the app meanwhile: its next plan decides anew
        except StoreError as error:
            _log.warning("the end of rollout %s of %s is not written yet: %s", rollout.id, app.name, error)
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            _log.info("rollout %s of %s: %s %s", rollout.id, app.name, new_rollout.state, new_rollout.message)
            return
        asyncio.get_running_loop().call_soon(self.touch, [app.name])

    def as_far_as_it_is(self, rollout: RolloutRecord) -> RolloutRecord:
        """The rollout with how much of it is done, if it is under way and does not go back: what is to be known once it ended."""
        progress = self.apps.get(rollout.app)
        if rollout.state is not RolloutState.RUNNING or progress is None or progress.plan is None:
            return rollout
        if progress.rollout != rollout.id:
            return rollout
        left = progress.plan.remaining
        done = {host: max(0, steps - left.get(host, 0)) for host, steps in rollout.host_steps.items()}
        return rollout.model_copy(update={"host_steps_done": done})

    def _replaced(self, rollout: RolloutRecord) -> int | None:
        """How many workers run because of a rollout that replaces; None: it is of another kind.

        It may have left some alone: those an update taken back had not reached, and those whose slot went meanwhile.
        """
        if rollout.kind not in _REPLACING or rollout.previous is None:
            return None
        newest = rollout.previous.generation
        return sum(worker.live and worker.id.generation > newest for worker in self._hosts.workers_of(rollout.app))

    def _policy_of(self, app: AppRecord) -> RolloutPolicy:
        revision = self._desired.get(revision_key(app.name, app.revision), RevisionRecord)
        return revision.app_spec.rollout if revision is not None else RolloutPolicy()

    async def _failed_worker(self, failure: Failure) -> FailedWorkerRecord | None:
        """With what it printed last, which its agent reports a moment after its end."""
        if failure.worker is None:
            return None
        if not failure.worker.slot:
            name = str(failure.worker.slot_id)
            return FailedWorkerRecord(
                worker=name, generation=failure.worker.generation, reason=failure.reason, last_lines=failure.last_lines
            )
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS), self.planned:
                await self.planned.wait_for(lambda: (seen := self._seen(failure)) is None or seen.last_lines)
        except TimeoutError:
            pass  # it printed nothing
        seen = self._seen(failure)
        return FailedWorkerRecord(
            worker=str(failure.worker.slot_id),
            generation=failure.worker.generation,
            reason=seen.view.reason if seen is not None else "",
            last_lines=seen.last_lines if seen is not None else (),
        )

    def _seen(self, failure: Failure) -> ObservedWorker | None:
        host = self._hosts.get(failure.worker.host) if failure.worker is not None else None
        return host.workers.get(failure.worker) if host is not None and failure.worker is not None else None

    def _forget(self, app: AppRecord, rollout: RolloutRecord) -> list[Put | Delete]:
        """Everything of a removed app but the rollout that tells of its removal."""
        keys = [app_key(app.name)]
        keys += [revision_key(r.app, r.number) for r in self._desired.all(RevisionRecord) if r.app == app.name]
        keys += [rollout_key(r.id) for r in self._desired.rollouts_of(app.name) if r.id != rollout.id]
        known = {record.name for record in self._desired.all(AppRecord)}
        removals = [r for r in self._desired.all(RolloutRecord) if r.app not in known]
        removals.sort(key=lambda record: self._desired.written_at(rollout_key(record.id)))
        keys += [rollout_key(identifier) for identifier in endings.forgotten_removals(removals, self._may_run)]
        return [Delete(key) for key in keys]

    def _may_run(self, app: str) -> bool:
        """A host runs it, or is away and may."""
        hosts = [self._hosts.get(record.name) for record in self._desired.all(HostRecord)]
        return any(
            host is None or not host.connected or any(identity.app == app for identity in host.workers)
            for host in hosts
        )

    def _removed_apps(self) -> set[str]:
        """Those a user removed, as far as they are remembered: a host that was away meanwhile may still run them."""
        return {
            record.app
            for record in self._desired.all(RolloutRecord)
            if record.kind is RolloutKind.REMOVE and record.state is RolloutState.DONE
        }

    def _all_apps(self) -> set[str]:
        return {record.name for record in self._desired.all(AppRecord)}

    def unknown_notices(self) -> list[str]:
        """Apps that run and of which etcd knows nothing, one sentence each."""
        unknown = self._unknown_apps(self._all_apps())
        return [
            f"{name} runs on {', '.join(sorted(host for host, apps in unknown.items() if name in apps))}, and etcd knows nothing "
            "of it: it is left alone; `fleetctl start` or `fleetctl apply` makes it known again"
            for name in sorted(frozenset().union(*unknown.values()))
        ] + [
            f"host {host.name} is told nothing: etcd has lost what {host.withheld} runs, and its agent does not say it; "
            "upgrade fleet-agent there"
            for host in self._hosts
            if host.withheld
        ]

    def notices(self, app: AppRecord) -> list[str]:
        """What an operator should know of an app, one sentence each."""
        notices = list(self._upstreams.refusals(app.name))
        if app.state is AppState.RUNNING:
            missing = [name for name in app.placement if (host := self._hosts.get(name)) is None or not host.connected]
            notices += [f"host {name} is not connected: its workers may well be running" for name in sorted(missing)]
        return notices
