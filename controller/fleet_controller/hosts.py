"""Observed state of hosts: what their agents reported to this leader. In memory only, rebuilt from reports."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from fleet.v1 import agent_pb2, types_pb2
from fleet_controller.outbox import Outbox
from fleet_controller.planning.views import Life, Phase, WorkerView
from fleet_core.ids import Epoch, WorkerId

_LIFE = {
    types_pb2.WORKER_STATE_PENDING: Life.PENDING,
    types_pb2.WORKER_STATE_STARTING: Life.STARTING,
    types_pb2.WORKER_STATE_READY: Life.READY,
    types_pb2.WORKER_STATE_UNREADY: Life.UNREADY,
    types_pb2.WORKER_STATE_STOPPING: Life.STOPPING,
    types_pb2.WORKER_STATE_EXITED: Life.EXITED,
    types_pb2.WORKER_STATE_BACKOFF: Life.BACKOFF,
    types_pb2.WORKER_STATE_FAILED: Life.FAILED,
}

_RIVAL_SECONDS = 10.0
"""A second agent dials more often than that; a process that follows another one is refused for less."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a worker runs, by digests."""

    spec_digest: str
    artifact_digest: str = ""


@dataclass(slots=True)
class ObservedWorker:
    view: WorkerView
    content: Content | None = None
    """As the agent said when the session began; None: it did not."""
    rss_bytes: int = 0
    cpu_percent: float = 0.0
    open_files: int = 0
    threads: int = 0
    status_text: str = ""
    last_lines: tuple[str, ...] = ()
    started_at: float = 0.0
    """By the leader's clock; 0: it has no process."""


@dataclass(slots=True)
class Rival:
    """A second agent of one name, which is refused while the first one lives."""

    address: str
    since: float
    """By the leader's clock."""
    last: float


@dataclass(slots=True)
class ObservedHost:
    """One host. `outbox` is None while its agent is not connected; its workers are then as last reported."""

    name: str
    uid: str = ""
    instance: str = ""
    """Of its agent's process; empty: it does not say."""
    rival: Rival | None = None
    cpus: int = 0
    address: str = ""
    agent_version: str = ""
    prepares_code: bool = False
    """Its agent makes code ready before a target names it, and says how far it is."""
    labels: dict[str, str] = field(default_factory=dict)
    outbox: Outbox[agent_pb2.ControllerMessage] | None = None
    reported: bool = False
    """To this leader, in this session or an earlier one."""
    current: bool = False
    """In this session: what we believe of its workers is not older than the session."""
    left_at: float = 0.0
    """The leader's time at which it was last connected; the term's beginning where it never was."""
    leaving: bool = False
    """It said, in this session, that it is about to stop its workers."""
    let_go: bool = False
    """It was told that no balancer sends its workers anything."""
    notices: tuple[str, ...] = ()
    """What its agent says is wrong with it."""
    workers: dict[WorkerId, ObservedWorker] = field(default_factory=dict)
    assigned: frozenset[object] | None = None
    """The targets and preparations last sent in this session; None: nothing sent yet."""
    withheld: str = ""
    """Workers because of which it gets no assignment: nobody knows what they run."""
    specs_sent: set[str] = field(default_factory=set)
    preparations: tuple[agent_pb2.PreparationStatus, ...] = ()
    """As last reported."""

    @property
    def connected(self) -> bool:
        return self.outbox is not None and self.current

    def told(self, identity: WorkerId, revision: int, phase: Phase) -> None:
        """An assignment with this target was sent: from now on the target exists, whatever a report on its way may say."""
        worker = self.workers.get(identity)
        if worker is None:
            self.workers[identity] = ObservedWorker(WorkerView(identity, revision, Life.PENDING, phase))
        elif phase is Phase.STOP:
            worker.view = replace(worker.view, phase=Phase.STOP)


class Hosts:
    """All hosts that ever spoke to this leader."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._hosts: dict[str, ObservedHost] = {}

    def __iter__(self) -> Iterator[ObservedHost]:
        return iter(self._hosts.values())

    def get(self, name: str) -> ObservedHost | None:
        return self._hosts.get(name)

    def join(self, hello: agent_pb2.AgentHello, outbox: Outbox[agent_pb2.ControllerMessage]) -> ObservedHost:
        """An agent's session began; whoever held the host before is told to end."""
        host = self._hosts.setdefault(hello.host_name, ObservedHost(hello.host_name, left_at=self._began))
        self._note_leaving(host)
        if host.outbox is not None:
            host.outbox.close()
        host.uid = hello.host_uid
        host.instance = hello.instance
        host.cpus = hello.cpus
        host.address = hello.address
        host.agent_version = hello.agent_version
        host.prepares_code = hello.prepares_code
        host.labels = dict(hello.labels)
        host.outbox = outbox
        host.current = False
        host.leaving = host.let_go = False
        host.notices = ()
        host.assigned = None
        host.specs_sent = set()
        return host

    def double(self, hello: agent_pb2.AgentHello) -> str:
        """Why this agent is not let in: another one of its name lives. Empty: none does.

        One that dials again takes its own place. One that was started anew on the same host waits until the session of the
        process before has ended, which it does by itself.
        """
        host = self._hosts.get(hello.host_name)
        if host is None or host.outbox is None:
            return ""
        same_process = not hello.instance or not host.instance or hello.instance == host.instance
        if host.uid == hello.host_uid and same_process:
            return ""
        now = self._clock()
        if host.rival is None or now - host.rival.last > _RIVAL_SECONDS:
            host.rival = Rival(hello.address, now, now)
        host.rival.address, host.rival.last = hello.address, now
        if host.uid != hello.host_uid:
            return f"another live agent is named {hello.host_name}, at {host.address}: give this host another name"
        return (
            f"another live agent has this host's name and folder, {hello.host_name} at {host.address}: if that is the process "
            "before this one, its session ends in a moment; if the folder was copied from there, stop this agent, remove its "
            "state_dir and give it another name"
        )

    def notices(self, host: ObservedHost) -> list[str]:
        """What is wrong with the host, in words."""
        rival = host.rival
        notices = list(host.notices)
        if rival and self._clock() - rival.last < _RIVAL_SECONDS and rival.last - rival.since > _RIVAL_SECONDS:
            notices.append(
                f"a second agent named {host.name}, at {rival.address}, is refused: give one of them another name"
            )
        return notices

    def leave(self, host: ObservedHost, outbox: Outbox[agent_pb2.ControllerMessage]) -> bool:
        """That session ended; False: another one had taken its place already."""
        if host.outbox is not outbox:
            return False
        self._note_leaving(host)
        host.outbox = None
        return True

    def lost_since(self, name: str) -> float | None:
        """Since when a registered host was not heard of, by the leader's clock; None while it is.

        How long it was silent before this term began, no leader knows: the count begins with the term.
        """
        host = self._hosts.get(name)
        if host is None:
            return self._began
        return None if host.connected else host.left_at

    def _note_leaving(self, host: ObservedHost) -> None:
        """A session that never reported does not make a host heard of."""
        if host.connected:
            host.left_at = self._clock()

    def forget(self, name: str) -> None:
        """A host that was removed; one that is connected stays."""
        host = self._hosts.get(name)
        if host is not None and host.outbox is None:
            del self._hosts[name]

    def watch_usage(self, seconds: float, epoch: Epoch) -> None:
        """Ask every connected agent to sample usage often for so long."""
        message = agent_pb2.ControllerMessage(epoch=epoch.to_proto())
        message.usage_watch.for_seconds = seconds
        for host in self._hosts.values():
            if host.outbox is not None:
                host.outbox.put("usage", lambda: message)

    def heard(self, host: ObservedHost, heartbeat: agent_pb2.AgentHeartbeat) -> None:
        host.notices = tuple(heartbeat.notices)
        for usage in heartbeat.usage:
            worker = host.workers.get(WorkerId.from_proto(usage.id))
            if worker is not None and worker.view.pid == usage.pid:
                _take_usage(worker, usage)

    def report(self, host: ObservedHost, report: agent_pb2.WorkerReport) -> set[str]:
        """Take a report; returns the apps it concerns."""
        now = self._clock()
        before = host.workers
        apps = {identity.app for identity in before} if report.complete else set()
        if report.complete:
            host.workers = {}
            host.reported = host.current = True
        for status in report.workers:
            identity = WorkerId.from_proto(status.id)
            observed = _observed(identity, status, before.get(identity), now)
            if not report.complete and _told_to_stop(before.get(identity)):
                observed.view = replace(observed.view, phase=Phase.STOP)
            host.workers[identity] = observed
            apps.add(identity.app)
        for removed in report.removed:
            identity = WorkerId.from_proto(removed)
            host.workers.pop(identity, None)
            apps.add(identity.app)
        preparations = tuple(report.preparations)
        if preparations != host.preparations:
            apps.update(status.preparation.app for status in (*preparations, *host.preparations))
            host.preparations = preparations
        return apps

    def workers_of(self, app: str) -> Iterable[WorkerView]:
        for host in self._hosts.values():
            if host.reported:
                yield from (worker.view for identity, worker in host.workers.items() if identity.app == app)


def _observed(
    identity: WorkerId, status: types_pb2.WorkerStatus, before: ObservedWorker | None, now: float
) -> ObservedWorker:
    ready_since = None
    if status.state == types_pb2.WORKER_STATE_READY:
        same_process = before is not None and before.view.pid == status.pid
        ready_since = before.view.ready_since if before is not None and same_process else None
        ready_since = now if ready_since is None else ready_since
    view = WorkerView(
        id=identity,
        revision=status.revision,
        life=_LIFE.get(status.state, Life.PENDING),
        phase=Phase.STOP if status.phase == types_pb2.PHASE_STOP else Phase.RUN,
        port=status.port,
        address=status.address,
        ready_since=ready_since,
        restarts=status.restarts,
        reason=status.reason,
        pid=status.pid,
        preparing=status.preparing,
    )
    content = Content(status.spec_digest, status.artifact_digest) if status.spec_digest else None
    if content is None and before is not None:
        content = before.content
    worker = ObservedWorker(view, content, status_text=status.status_text, last_lines=tuple(status.last_lines))
    _take_usage(worker, status)
    worker.started_at = now - status.uptime_seconds if status.pid else 0.0
    if before is not None and before.view.pid == status.pid and not status.rss_bytes:
        worker.rss_bytes, worker.cpu_percent = before.rss_bytes, before.cpu_percent
        worker.open_files, worker.threads = before.open_files, before.threads
    return worker


def _take_usage(worker: ObservedWorker, usage: types_pb2.WorkerStatus) -> None:
    worker.rss_bytes = usage.rss_bytes
    worker.cpu_percent = usage.cpu_percent
    worker.open_files = usage.open_files
    worker.threads = usage.threads


def _told_to_stop(worker: ObservedWorker | None) -> bool:
    return worker is not None and worker.view.phase is Phase.STOP
