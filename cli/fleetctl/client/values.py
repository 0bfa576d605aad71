"""What the fleet is and does, as frozen values: the objects that `-o json` prints, field for field, with types.

The one mapping from the wire is `fleetctl.views`; a test holds both together. Times are seconds, sizes bytes, CPU per cent of
one core.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self, TypeVar

import msgspec

_T = TypeVar("_T", bound="Value")


class Value(msgspec.Struct, frozen=True):
    """Compared by what it holds."""


def from_view(view: Mapping[str, Any], kind: type[_T]) -> _T:
    """The value of what `-o json` prints; fields this library does not know yet are left out."""
    return msgspec.convert(view, kind)


class Word(StrEnum):
    """What a newer controller says and this library does not know is UNKNOWN."""

    @classmethod
    def _missing_(cls, value: object) -> Self:
        return cls("unknown")


class AppState(Word):
    RUNNING = "running"
    STOPPED = "stopped"
    REMOVING = "removing"
    UNKNOWN = "unknown"


class WorkerState(Word):
    """pending → starting → ready ⇄ unready → stopping → exited; backoff and failed for crash loops."""

    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    STOPPING = "stopping"
    EXITED = "exited"
    BACKOFF = "backoff"
    FAILED = "failed"
    UNKNOWN = "unknown"


class HostState(Word):
    ONLINE = "online"
    UNKNOWN = "unknown"
    """Its agent is not connected: its workers may well run."""


class Scheduling(Word):
    OPEN = "open"
    CORDONED = "cordoned"
    DRAINING = "draining"
    DRAINED = "drained"
    UNKNOWN = "unknown"


class BalancerState(Word):
    CONNECTED = "connected"
    AWAY = "away"
    UNKNOWN = "unknown"


class EndpointState(Word):
    READY = "ready"
    DRAINING = "draining"
    UNKNOWN = "unknown"


class SizeMode(Word):
    FLOATING = "floating"
    """A total, spread evenly over the hosts."""
    PINNED = "pinned"
    """So many on each named host."""
    UNKNOWN = "unknown"


class RolloutKind(Word):
    START = "start"
    SET_SIZE = "set-size"
    RESTART = "restart"
    STOP = "stop"
    REMOVE = "remove"
    UPDATE = "update"
    ROLLBACK = "rollback"
    MOVE = "move"
    UNKNOWN = "unknown"


class RolloutState(Word):
    RUNNING = "running"
    ROLLING_BACK = "rolling-back"
    DONE = "done"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


class HostProgress(Value, frozen=True):
    """A rollout on one host; `doing` is the step under way."""

    host: str
    steps: int
    steps_done: int
    doing: str


class FailedWorker(Value, frozen=True):
    """The worker a rollout stopped at, "my-app/host1/3", why, and what it printed last, escape sequences and all."""

    id: str
    generation: int
    reason: str
    last_lines: tuple[str, ...]


class RolloutStatus(Value, frozen=True):
    """How far a rollout is, or how it ended."""

    id: str
    app: str
    kind: RolloutKind
    state: RolloutState
    steps: int
    steps_done: int
    replaced: int
    """Workers it started, replaced or stopped."""
    seconds: float
    message: str
    """Why it failed, or what it waits for."""
    revision: int
    generation: int
    hosts: tuple[HostProgress, ...]
    cause: str
    began_at: str
    """By the clock of the controller that led then (RFC 3339, UTC)."""
    previous_revision: int | None
    """What it goes, or went, back to when it fails."""
    paused: bool
    awaits_promotion: bool
    failed_worker: FailedWorker | None

    @property
    def under_way(self) -> bool:
        return self.state in (RolloutState.RUNNING, RolloutState.ROLLING_BACK)


class Route(Value, frozen=True):
    """How clients reach an app: "ADDRESS:PORT" each, and what they ask for there; none: anything."""

    http: str | None
    https: str | None
    tcp: str | None
    hosts: tuple[str, ...]
    paths: tuple[str, ...]


class App(Value, frozen=True):
    """An app, desired and observed."""

    name: str
    state: AppState
    revision: int
    generation: int
    size: int
    """Workers wanted."""
    ready: int
    hosts: tuple[str, ...]
    rollout: RolloutStatus | None
    """The newest one."""
    size_mode: SizeMode
    placement: Mapping[str, int]
    http: str | None
    route: Route | None
    notices: tuple[str, ...]
    """What an operator should know; empty: all is well."""


class Worker(Value, frozen=True):
    """One worker as its agent sees it; `id` names its slot, "my-app/host1/3"."""

    id: str
    app: str
    host: str
    slot: int
    pid: int | None
    port: int
    state: WorkerState
    ready: bool
    revision: int
    generation: int
    restarts: int
    uptime_seconds: float
    rss_bytes: int
    cpu_percent: float
    address: str
    reason: str
    """Why its last process ended."""
    open_files: int
    threads: int
    status: str
    last_lines: tuple[str, ...]


class Host(Value, frozen=True):
    name: str
    state: HostState
    cpus: int
    workers: int
    labels: Mapping[str, str]
    address: str
    agent_version: str
    uid: str
    scheduling: Scheduling
    unheard_seconds: float
    notices: tuple[str, ...]
    """What its agent says is wrong with it; empty: nothing."""


class Balancer(Value, frozen=True):
    name: str
    state: BalancerState
    driver: str
    driver_version: str
    version: str
    pools_current: int
    pools: int
    error: str
    """What it refused last; empty: nothing."""
    absent_seconds: float
    notices: tuple[str, ...]
    """What an operator should know of it: a full disk, certificates that expire, hosts without one."""


class Endpoint(Value, frozen=True):
    worker: str
    generation: int
    address: str
    port: int
    state: EndpointState


class Upstream(Value, frozen=True):
    """Where the balancers send an app's requests; `acknowledged`: balancer → version it has."""

    pool: str
    version: int
    http: str | None
    route: Route | None
    endpoints: tuple[Endpoint, ...]
    acknowledged: Mapping[str, int]


class Revision(Value, frozen=True):
    revision: int
    created_at: str
    cause: str
    differences: tuple[str, ...]
    """From the revision before: "field: before → after"."""
    good: bool
    """It was rolled out in full once."""
    current: bool
    artifact_digest: str | None
    spec_digest: str


class History(Value, frozen=True):
    """The oldest first."""

    app: str
    revisions: tuple[Revision, ...]
    rollouts: tuple[RolloutStatus, ...]


class Info(Value, frozen=True):
    """The controller that leads, and etcd behind it."""

    controller: str
    version: str
    protocol_version: int
    epoch: str
    etcd_endpoints: tuple[str, ...]
    etcd_error: str
    """Empty: etcd answers."""
    fleet_id: str
    notices: tuple[str, ...]
    """What an operator should know or do about the fleet as a whole; empty: all is well."""
    apps: int
    hosts: int
    workers: int


class HostSize(Value, frozen=True):
    host: str
    before: int
    after: int


class SizePlan(Value, frozen=True):
    """What a change of size would do."""

    app: str
    size_mode: SizeMode
    plan: tuple[HostSize, ...]
    shrinking_others: tuple[str, ...]
    """Hosts that would lose workers without having been named."""


class AppDrain(Value, frozen=True):
    app: str
    workers_left: int
    doing: str


class DrainStatus(Value, frozen=True):
    """How far a drain is; `state` is draining or drained."""

    host: str
    state: Scheduling
    workers_left: int
    apps: tuple[AppDrain, ...]
    message: str


class LogLine(Value, frozen=True):
    """A line a worker printed to `stream`, stdout or stderr; bytes that are not UTF-8 became U+FFFD."""

    worker: str
    app: str
    host: str
    slot: int
    stream: str
    text: str


class AppReport(App, frozen=True):
    """An app, its workers, and what to do next about it."""

    workers: tuple[Worker, ...]
    next: tuple[str, ...]


class Status(Value, frozen=True):
    """All there is, at about one time; `notices` are of the fleet as a whole, `next` is what to do about hosts and balancers."""

    apps: tuple[AppReport, ...]
    hosts: tuple[Host, ...]
    balancers: tuple[Balancer, ...]
    notices: tuple[str, ...]
    next: tuple[str, ...]


class HostUsage(Host, frozen=True):
    cpu_percent: float
    rss_bytes: int
    restarts: int


class AppUsage(App, frozen=True):
    cpu_percent: float
    rss_bytes: int
    restarts: int


class Sample(Value, frozen=True):
    """Who uses what, now; the workers by what they use, the most first."""

    hosts: tuple[HostUsage, ...]
    apps: tuple[AppUsage, ...]
    workers: tuple[Worker, ...]


class Change(Word):
    """What applying a file would do with an app."""

    CREATE = "create"
    CHANGE = "change"
    START = "start"
    SAME = "same"
    FAIL = "fail"
    """It cannot become what the file says; `message` says why."""
    UNKNOWN = "unknown"


class Difference(Value, frozen=True):
    """How one app of a file differs from what runs."""

    app: str
    change: Change
    differences: tuple[str, ...] = ()
    replaces_workers: bool = False
    message: str = ""


class Result(Word):
    """What became of an app of a file."""

    CREATED = "created"
    CHANGED = "changed"
    STARTED = "started"
    UNCHANGED = "unchanged"
    REMOVED = "removed"
    FAILED = "failed"
    NOT_BEGUN = "not begun"
    """Something before it ended the run."""
    UNKNOWN = "unknown"


class Applied(Value, frozen=True):
    app: str
    result: Result
    differences: tuple[str, ...]
    message: str
    """Why it failed, or what is to be known of it though it is unchanged."""
