"""What the rollout planner sees of the world, and what it answers. Plain values: no clock, no stream, no store."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from fleet_controller.records import AppRecord, RolloutRecord, RolloutState
from fleet_core.ids import WorkerId
from fleet_core.spec import AppSpec


class Life(Enum):
    """A worker's state, as its agent last reported it."""

    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    STOPPING = "stopping"
    EXITED = "exited"
    BACKOFF = "backoff"
    FAILED = "failed"


class Phase(Enum):
    RUN = "run"
    STOP = "stop"


class EndpointState(Enum):
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker an agent holds a target for."""

    id: WorkerId
    revision: int
    life: Life
    phase: Phase
    port: int = 0
    address: str = ""
    ready_since: float | None = None
    """The leader's time at which it learnt of this readiness; None while it is not ready."""
    restarts: int = 0
    reason: str = ""
    pid: int = 0
    preparing: bool = False
    """Its code is being fetched, unpacked or built: its time to start has not begun."""

    @property
    def live(self) -> bool:
        """It has a process, or will have one without another word from us, or its process is being stopped."""
        return self.phase is Phase.RUN or self.life is not Life.EXITED

    @property
    def ails(self) -> bool:
        """It crashed, and is not ready again yet."""
        return self.life in (Life.BACKOFF, Life.FAILED) or (self.restarts > 0 and self.life is Life.STARTING)

    @property
    def listable(self) -> bool:
        """It may be answering requests. What is not so is in no upstream list, whatever else is planned."""
        return bool(self.port) and self.life in (Life.READY, Life.UNREADY, Life.STOPPING)

    @property
    def completed(self) -> bool:
        """It ended by itself, and its restart policy lets it rest: nothing more will come of it, and nothing is wrong."""
        return self.phase is Phase.RUN and self.life is Life.EXITED

    @property
    def ready(self) -> bool:
        return self.life is Life.READY and self.phase is Phase.RUN


@dataclass(frozen=True, slots=True)
class CodeView:
    """How far one host is with the code that new workers run."""

    ready: bool = False
    doing: str = ""
    received_bytes: int = 0
    problem: str = ""
    """Why it cannot be made ready; empty: nothing is in the way."""
    last_lines: tuple[str, ...] = ()
    """What a failed build printed last."""


@dataclass(frozen=True, slots=True)
class BalancerView:
    """One registered balancer and one pool."""

    name: str
    connected: bool
    applied: Mapping[WorkerId, EndpointState] | None
    """The newest list it acknowledged in this epoch; None: none yet."""
    absent_seconds: float = 0.0
    """For how long it has not been connected, as far as this leader knows."""
    may_choose: frozenset[WorkerId] = frozenset()
    """Endpoints that are ready in the acknowledged list or in any sent since: it may send them a request at any moment."""
    in_flight: Mapping[WorkerId, int] = field(default_factory=dict)
    """Requests of draining endpoints, as reported since they drain."""
    refusal: str = ""
    """Why it refuses the newest list, in words."""

    def stopped_choosing(self, worker: WorkerId) -> bool:
        return self.connected and self.applied is not None and worker not in self.may_choose

    def has_no_request(self, worker: WorkerId) -> bool:
        if self.applied is not None and worker not in self.applied:
            return True
        return self.in_flight.get(worker) == 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rollout ever came."""

    rollout: str
    state: RolloutState
    left: int
    """Workers that were still to be made right, when they were fewest: what is ready and dies again is no progress."""
    under_way: object
    """What was begun and is not done."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the planner wants to be told next time. Lost with a leader: durations then begin again."""

    draining: frozenset[WorkerId] = frozenset()
    drained_since: Mapping[WorkerId, float] = field(default_factory=dict)
    """Since when every balancer has acknowledged that the endpoint drains."""
    unready_since: Mapping[WorkerId, float] = field(default_factory=dict)
    """Since when a worker that shall run is not ready."""
    restarts_when_sound: Mapping[WorkerId, int] = field(default_factory=dict)
    """Its restarts when it was last sound, or first seen: what exceeds them are crashes since."""
    proven: int = 0
    """The revision whose first worker stayed ready for the policy's `bake_seconds`."""
    promoted: int = 0
    """The revision whose canaries stayed ready for the policy's `canary_seconds`."""
    progress: Progress | None = None
    """When something last got done."""
    progress_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Situation:
    """All that bears on one app."""

    app: AppRecord
    spec: AppSpec
    """The revision new workers run; its policies hold for the whole app."""
    rollout: RolloutRecord | None
    """The running one."""
    workers: tuple[WorkerView, ...]
    """On hosts that reported to this leader, whether connected now or not."""
    reported: frozenset[str]
    """Hosts that reported to this leader."""
    connected: frozenset[str]
    """Hosts an instruction would reach now."""
    balancers: tuple[BalancerView, ...]
    memory: Memory = Memory()
    brings_code: bool = False
    """The rollout is to another revision, and that has deployed code."""
    code: Mapping[str, CodeView] = field(default_factory=dict)
    """Of every host whose agent says how far it is with that code, as it said last."""


@dataclass(frozen=True, slots=True)
class Target:
    """One (app, slot, generation) wanted on a host."""

    id: WorkerId
    revision: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class Preparation:
    """A host is to make the code of a revision ready. Another `attempt` is another try of what failed."""

    host: str
    app: str
    revision: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a rollout cannot go on, in words, and at which worker it stopped; slot 0: at the host's code, before any worker."""

    text: str
    worker: WorkerId | None = None
    reason: str = ""
    last_lines: tuple[str, ...] = ()
    """Of the host's code; a worker's are known by its id."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to instruct next."""

    targets: tuple[Target, ...]
    """Every target of the app on every host that reported."""
    preparations: tuple[Preparation, ...]
    endpoints: Mapping[WorkerId, EndpointState]
    memory: Memory
    remaining: Mapping[str, int]
    """Host → steps not done."""
    doing: Mapping[str, str]
    """Host → the step under way, in words."""
    waiting: str
    """What everything waits for, in words; empty: nothing in particular."""
    failure: Failure | None
    """The rollout must stop, and why."""
    awaits_promotion: bool
    """Its canaries are ready, and only a user's word is missing."""
    settled: bool
    """Observed state is desired state."""
    wake_at: float | None
    """Plan again at this time even if nothing happens."""
