"""Desired state as it lies in etcd: one JSON document a key. Only the leader writes them, but for ControllerRecord."""

from enum import StrEnum
from functools import cached_property
from typing import Any, Self

from google.protobuf import json_format
from pydantic import BaseModel, ConfigDict, Field

from fleet.v1 import types_pb2
from fleet_core.spec import AppSpec, spec_digest

PREFIX = "/fleet/v1/"
CONTROLLERS = f"{PREFIX}controllers/"


class Record(BaseModel):
    """Unknown fields, of a newer controller, are refused rather than lost at the next write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def encode(self) -> bytes:
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Raises pydantic.ValidationError."""
        return cls.model_validate_json(value)


class AppState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    REMOVING = "removing"


class SizeMode(StrEnum):
    FLOATING = "floating"
    PINNED = "pinned"


class AppRecord(Record):
    """One app. A worker is *acceptable* when its generation is at least its slot's floor: what is not is to be replaced."""

    name: str
    state: AppState = AppState.RUNNING
    size_mode: SizeMode = SizeMode.FLOATING
    placement: dict[str, int] = Field(default_factory=dict)
    """Host → workers; kept while the app is stopped."""
    revision: int = 1
    """What new workers run."""
    generation: int = 1
    """What new workers are."""
    floor: int = 1
    """The lowest generation that may stay."""
    rejected: frozenset[int] = frozenset()
    """Generations that may not stay although they are not below the floor: a rollout to them failed or was aborted."""
    slot_floors: dict[str, int] = Field(default_factory=dict)
    """ "host/slot" → its own, higher floor: one worker was told to restart."""
    generations: dict[int, int] = Field(default_factory=lambda: {1: 1})
    """Generation → revision, for every generation that may still run."""
    good_revisions: tuple[int, ...] = ()
    """Those that were rolled out in full, in the order in which they last were."""
    rollout: str = ""
    """The newest one's id."""
    spent_generation: int = 0
    """Generations up to it may have been given out before etcd was restored from a backup: none of them is given out again."""
    spent_revision: int = 0
    """The same of revisions."""

    @property
    def size(self) -> int:
        return sum(self.placement.values())

    def wanted(self, host: str) -> int:
        """Workers `host` should have now."""
        return self.placement.get(host, 0) if self.state is AppState.RUNNING else 0

    @property
    def wanted_total(self) -> int:
        return self.size if self.state is AppState.RUNNING else 0

    def floor_of(self, host: str, slot: int) -> int:
        return max(self.floor, self.slot_floors.get(f"{host}/{slot}", 0))

    def accepts(self, host: str, slot: int, generation: int) -> bool:
        """A worker of this generation may keep the slot."""
        return generation >= self.floor_of(host, slot) and generation not in self.rejected


class RevisionRecord(Record):
    """An immutable version of an app's spec; the spec in protobuf's JSON form."""

    app: str
    number: int
    spec: dict[str, Any]
    spec_digest: str
    artifact_digest: str = ""
    created_at: str = ""
    """The controller's clock (RFC 3339, UTC); for people, never compared."""
    cause: str = ""
    """What made it, in a user's words: "start", "env-set COLOUR"."""

    @classmethod
    def of(
        cls, spec: AppSpec, number: int, *, created_at: str = "", cause: str = "", artifact_digest: str = ""
    ) -> "RevisionRecord":
        message = spec.to_proto()
        fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
        return cls(
            app=spec.name,
            number=number,
            spec=fields,
            spec_digest=spec_digest(message),
            artifact_digest=artifact_digest,
            created_at=created_at,
            cause=cause,
        )

    def spec_message(self) -> types_pb2.AppSpec:
        return json_format.ParseDict(self.spec, types_pb2.AppSpec())

    @cached_property
    def app_spec(self) -> AppSpec:
        """Read once: a record never changes."""
        return AppSpec.from_proto(self.spec_message())


class RolloutKind(StrEnum):
    START = "start"
    SET_SIZE = "set_size"
    RESTART = "restart"
    STOP = "stop"
    REMOVE = "remove"
    UPDATE = "update"
    ROLLBACK = "rollback"
    MOVE = "move"


class RolloutState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    ROLLING_BACK = "rolling_back"
    ABORTED = "aborted"

    @property
    def under_way(self) -> bool:
        return self in (RolloutState.RUNNING, RolloutState.ROLLING_BACK)


class Previous(Record):
    """What an app was when a rollout of it began, or, where that one took another's place, when the other began."""

    state: AppState
    size_mode: SizeMode
    placement: dict[str, int]
    revision: int
    generation: int
    """Every generation above it is of the rollouts that go back to this."""
    floor: int
    slot_floors: dict[str, int] = Field(default_factory=dict)
    rejected: frozenset[int] = frozenset()


class FailedWorkerRecord(Record):
    """The worker a rollout stopped at."""

    worker: str
    """ "app/host/slot"; slot 0: none was started, because the host could not make the code ready."""
    generation: int
    reason: str = ""
    last_lines: tuple[str, ...] = ()


class RolloutRecord(Record):
    """A rollout. Its id is the request id of the mutation that began it, which makes a repeated request find it."""

    id: str
    app: str
    kind: RolloutKind
    state: RolloutState = RolloutState.RUNNING
    at_once: bool = False
    """Stop and start without draining and without waiting."""
    revision: int
    generation: int
    previous: Previous | None = None
    """What it goes back to; None: it began with the app."""
    paused: bool = False
    """Begin no further step."""
    promoted: bool = False
    """The canaries are good, says a user."""
    ignored_balancers: tuple[str, ...] = ()
    """Not to be waited for, says a user."""
    ends_as: RolloutState | None = None
    """While it rolls back: FAILED or ABORTED."""
    failed_worker: FailedWorkerRecord | None = None
    steered_by: str = ""
    """The request id of the last pause, resume, abort or promotion, which makes a repeated one find it."""
    cause: str = ""
    """Why, where no user asked for it; else the user's words."""
    began_at: str = ""
    """The controller's clock (RFC 3339, UTC), for people."""
    steps: int = 0
    """Workers to start, replace or stop, counted when it began."""
    host_steps: dict[str, int] = Field(default_factory=dict)
    sequence: int = 0
    """Orders the rollouts of an app: the newest has the highest."""
    host_steps_done: dict[str, int] = Field(default_factory=dict)
    """Of those, how many were done when it stopped going on: it failed, was aborted, or another took its place."""
    replaced: int = 0
    seconds: float = 0.0
    message: str = ""


class Scheduling(StrEnum):
    OPEN = "open"
    CORDONED = "cordoned"
    """Keeps what it runs, takes nothing new."""
    DRAINING = "draining"
    """Its workers are being moved away, or were."""


class HostRecord(Record):
    """A host that joined. Written when it joins, changes, or is told to take no workers; never while it just lives."""

    name: str
    uid: str
    address: str = ""
    cpus: int = 0
    agent_labels: dict[str, str] = Field(default_factory=dict)
    """Of its agent's configuration."""
    given_labels: dict[str, str] = Field(default_factory=dict)
    """Of `host label`: they win; an empty value takes an agent's label away."""
    scheduling: Scheduling = Scheduling.OPEN
    requests: tuple[str, ...] = ()
    """The ids of the last changes by users, oldest first, which makes a repeated one find that it was done."""

    @property
    def labels(self) -> dict[str, str]:
        return {key: value for key, value in {**self.agent_labels, **self.given_labels}.items() if value}


class FleetRecord(Record):
    """The fleet itself: one record, made by its first leader and changed by a restore alone."""

    id: str
    """Minted once; a backup carries it."""
    era: int = 1
    """The first half of every epoch: raised by each restore."""
    restoring: str = ""
    """Not empty: a restore of the backup with this digest began and has not ended."""


class BalancerRecord(Record):
    """A balancer whose acknowledgement every rollout waits for."""

    name: str
    uid: str


class ControllerRecord(Record):
    """A controller, as it said of itself when it started."""

    name: str
    address: str
    """ "host:port" others reach it at."""


FLEET_KEY = f"{PREFIX}fleet"


def app_key(name: str) -> str:
    return f"{PREFIX}apps/{name}"


def revision_key(app: str, number: int) -> str:
    return f"{PREFIX}revisions/{app}/{number}"


def rollout_key(identifier: str) -> str:
    return f"{PREFIX}rollouts/{identifier}"


def host_key(name: str) -> str:
    return f"{PREFIX}hosts/{name}"


def balancer_key(name: str) -> str:
    return f"{PREFIX}balancers/{name}"


def controller_key(name: str) -> str:
    return f"{CONTROLLERS}{name}"
