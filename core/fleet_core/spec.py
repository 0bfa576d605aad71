"""An app's spec: what a user may write, checked, and its form on the wire.

`AppSpec` mirrors the protobuf message `fleet.v1.AppSpec` field for field (a test holds them together); this class owns the
defaults and the rules, the message owns the wire format.
"""

import hashlib
import resource
import signal
from enum import StrEnum
from typing import Annotated, Any, Self

from google.protobuf import json_format
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fleet.v1 import types_pb2
from fleet_core.ids import check_label, check_name

EVERYWHERE = "0.0.0.0"  # noqa: S104 (what a route without an address means)
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class _Policy(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Runtime(StrEnum):
    PROGRAM = "program"
    NODE = "node"


class ListenMode(StrEnum):
    PORT = "port"
    NONE = "none"
    SOCKET = "socket"


class ReadyMethod(StrEnum):
    LISTEN = "listen"
    HTTP = "http"
    TCP = "tcp"
    COMMAND = "command"
    NOTIFY = "notify"
    MESSAGE = "message"
    UPTIME = "uptime"


class RestartMode(StrEnum):
    ALWAYS = "always"
    ON_FAILURE = "on_failure"
    NEVER = "never"


class ReadyPolicy(_Policy):
    """When a worker counts as ready; a timeout is a failure, never readiness."""

    http_path: str = ""
    start_timeout_seconds: PositiveSeconds = 30
    min_uptime_seconds: Seconds = 1
    interval_seconds: PositiveSeconds = 5
    timeout_seconds: PositiveSeconds = 5
    unready_threshold: Annotated[int, Field(ge=1, le=1000)] = 3
    method: ReadyMethod | None = None
    """None: HTTP where `http_path` is set, else what the listen mode suggests."""
    command: tuple[str, ...] = ()
    watchdog_seconds: Seconds = 0

    @property
    def health_path(self) -> str:
        """What an HTTP check asks; empty: this worker is not asked by HTTP."""
        return self.http_path if self.method in (None, ReadyMethod.HTTP) else ""

    @field_validator("http_path")
    @classmethod
    def _absolute_path(cls, value: str) -> str:
        if value and not value.startswith("/"):
            raise ValueError(f"health path {value!r} must start with /")
        return value


class StopPolicy(_Policy):
    signal: str = "SIGTERM"
    grace_seconds: Seconds = 10
    shutdown_message: bool = False

    @field_validator("signal")
    @classmethod
    def _known_signal(cls, value: str) -> str:
        if value not in signal.Signals.__members__:
            raise ValueError(f"signal {value!r} is not known: write SIGTERM, SIGINT, …")
        return value


class RestartPolicy(_Policy):
    backoff_initial_seconds: PositiveSeconds = 0.5
    backoff_max_seconds: PositiveSeconds = 30
    max_restarts: Annotated[int, Field(ge=0, le=100_000)] = 10
    window_seconds: PositiveSeconds = 300
    stable_seconds: PositiveSeconds = 10
    mode: RestartMode = RestartMode.ALWAYS
    stop_exit_codes: tuple[Annotated[int, Field(ge=0, le=255)], ...] = ()


class ResourceLimit(_Policy):
    """A limit of setrlimit(2); -1: unlimited."""

    soft: Annotated[int, Field(ge=-1, le=2**63 - 1)]
    hard: Annotated[int, Field(ge=-1, le=2**63 - 1)]


class Identity(_Policy):
    user: str = ""
    group: str = ""
    umask: str = "022"
    nice: Annotated[int, Field(ge=-20, le=19)] = 0
    resource_limits: dict[str, ResourceLimit] = Field(default_factory=dict)

    @field_validator("umask")
    @classmethod
    def _octal(cls, value: str) -> str:
        if not value or set(value) - set("01234567") or int(value, 8) > 0o777:
            raise ValueError(f"umask {value!r} is not valid: write it in octal, for example 027")
        return value

    @field_validator("resource_limits")
    @classmethod
    def _known_limits(cls, value: dict[str, ResourceLimit]) -> dict[str, ResourceLimit]:
        for name in value:
            if not hasattr(resource, f"RLIMIT_{name}"):
                raise ValueError(f"resource limit {name!r} is not known: write NOFILE, CORE, AS, … (setrlimit(2))")
        return value


class LimitPolicy(_Policy):
    memory_restart_bytes: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    memory_max_bytes: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    cpu_max_cores: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)] = 0
    pids_max: Annotated[int, Field(ge=0, le=4_194_304)] = 0


class LogPolicy(_Policy):
    timestamps: bool = False
    json_lines: bool = False
    max_bytes: Annotated[int, Field(ge=4096, le=2**40)] = 10 * 1024 * 1024
    max_files: Annotated[int, Field(ge=0, le=1000)] = 5
    max_age_seconds: Annotated[float, Field(ge=0, le=10 * 365 * 86_400, allow_inf_nan=False)] = 0
    compress: bool = False


class OnFailure(StrEnum):
    ROLLBACK = "rollback"
    PAUSE = "pause"


class RolloutPolicy(_Policy):
    max_surge: Annotated[int, Field(ge=0, le=1000)] = 1
    max_unavailable: Annotated[int, Field(ge=0, le=10_000)] = 0
    min_ready_seconds: Seconds = 0.5
    drain_timeout_seconds: Seconds = 30
    parallel_hosts: Annotated[int, Field(ge=1, le=10_000)] = 1
    canary: Annotated[int, Field(ge=0, le=10_000)] = 0
    canary_seconds: Seconds = 0
    on_failure: OnFailure = OnFailure.ROLLBACK
    progress_deadline_seconds: Seconds = 600
    bake_seconds: Seconds = 10

    @model_validator(mode="after")
    def _can_move(self) -> Self:
        if self.max_surge == 0 and self.max_unavailable == 0:
            raise ValueError("max_surge and max_unavailable are both 0, so no worker could ever be replaced: raise one")
        return self


class PlacementPolicy(_Policy):
    labels: dict[str, str] = Field(default_factory=dict)
    lost_after_seconds: Annotated[float, Field(ge=0, le=30 * 86_400, allow_inf_nan=False)] = 150

    @field_validator("labels")
    @classmethod
    def _valid_labels(cls, value: dict[str, str]) -> dict[str, str]:
        for key, content in value.items():
            check_label(key, content)
        return value


class RoutePolicy(_Policy):
    http: str = ""

    @field_validator("http")
    @classmethod
    def _address(cls, value: str) -> str:
        if value:
            parse_address(value)
        return value


def _check_variables(variables: dict[str, str]) -> None:
    for key, content in variables.items():
        if not key or "=" in key or "\0" in key + content:
            raise ValueError(f"environment variable {key!r} cannot be set: names hold no = and no NUL byte")


class AppSpec(_Policy):
    """Everything that makes a worker what it is."""

    name: str
    argv: Annotated[tuple[str, ...], Field(min_length=1)]
    cwd: str
    env: dict[str, str] = Field(default_factory=dict)
    runtime: Runtime = Runtime.PROGRAM
    listen_mode: ListenMode = ListenMode.PORT
    declared_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    ready: ReadyPolicy = ReadyPolicy()
    stop: StopPolicy = StopPolicy()
    restart: RestartPolicy = RestartPolicy()
    rollout: RolloutPolicy = RolloutPolicy()
    route: RoutePolicy = RoutePolicy()
    identity: Identity = Identity()
    limits: LimitPolicy = LimitPolicy()
    log: LogPolicy = LogPolicy()
    cron_restart: str = ""
    env_files: tuple[str, ...] = ()
    worker_env: dict[Annotated[int, Field(ge=1)], dict[str, str]] = Field(default_factory=dict)
    placement: PlacementPolicy = PlacementPolicy()

    @field_validator("name")
    @classmethod
    def _valid_name(cls, value: str) -> str:
        return check_name("app", value)

    @field_validator("cwd")
    @classmethod
    def _absolute_cwd(cls, value: str) -> str:
        if not value.startswith("/") or "\0" in value:
            raise ValueError(f"working directory {value!r} must be absolute, without a NUL byte")
        return value

    @field_validator("env")
    @classmethod
    def _valid_env(cls, value: dict[str, str]) -> dict[str, str]:
        _check_variables(value)
        return value

    @field_validator("worker_env")
    @classmethod
    def _valid_worker_env(cls, value: dict[int, dict[str, str]]) -> dict[int, dict[str, str]]:
        for variables in value.values():
            _check_variables(variables)
        return value

    @field_validator("cron_restart")
    @classmethod
    def _valid_cron(cls, value: str) -> str:
        if not value:
            return value
        from croniter import croniter  # 2 MiB that an agent without cron times does not need

        if len(value.split()) != 5 or not croniter.is_valid(value):
            raise ValueError(
                f"cron time {value!r} is not valid: write five fields as in crontab(5), for example '0 3 * * *'"
            )
        return value

    @field_validator("argv")
    @classmethod
    def _no_nul(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value[0] or any("\0" in argument for argument in value):
            raise ValueError("the command is empty or holds a NUL byte")
        return value

    @model_validator(mode="after")
    def _ready_can_be_found_out(self) -> Self:
        method = self.ready.method
        if method is ReadyMethod.HTTP and not self.ready.http_path:
            raise ValueError("ready method http needs an http_path")
        if method is ReadyMethod.HTTP and self.listen_mode is ListenMode.NONE:
            raise ValueError("ready method http needs a worker that listens: listen_mode none has no port to ask")
        if (method is ReadyMethod.COMMAND) != bool(self.ready.command):
            raise ValueError("ready method command and a command belong together")
        if method is ReadyMethod.MESSAGE and self.runtime is not Runtime.NODE:
            raise ValueError("ready method message needs runtime node: it is sent by process.send('ready')")
        needs_port = method in (ReadyMethod.LISTEN, ReadyMethod.TCP)
        if needs_port and self.listen_mode is not ListenMode.PORT:
            raise ValueError(f"ready method {method} needs listen_mode port")
        return self

    @model_validator(mode="after")
    def _route_needs_port(self) -> Self:
        if self.route.http and self.listen_mode is ListenMode.NONE:
            raise ValueError("an app with a route must listen: listen_mode none has no endpoint to send requests to")
        return self

    def to_proto(self) -> types_pb2.AppSpec:
        fields = self.model_dump(mode="json", exclude_none=True)
        fields["worker_env"] = {slot: {"variables": variables} for slot, variables in self.worker_env.items()}
        for policy, name in _ENUMERATIONS:
            holder = fields[policy] if policy else fields
            if name in holder:
                holder[name] = f"{_PREFIXES[name]}{holder[name].upper()}"
        return json_format.ParseDict(fields, types_pb2.AppSpec())

    @classmethod
    def from_proto(cls, message: types_pb2.AppSpec) -> Self:
        """Raises pydantic.ValidationError, a ValueError, when a rule is broken. Absent policies take their defaults.

        proto3 does not tell an absent number from 0: inside a policy that is present, absent means 0.
        """
        fields = _plain(message)
        fields["worker_env"] = {slot: dict(worker.variables) for slot, worker in message.worker_env.items()}
        return cls.model_validate(fields)


_ENUMERATIONS = (
    ("", "runtime"),
    ("", "listen_mode"),
    ("ready", "method"),
    ("restart", "mode"),
    ("rollout", "on_failure"),
)
_PREFIXES = {
    "runtime": "RUNTIME_",
    "listen_mode": "LISTEN_MODE_",
    "method": "READY_METHOD_",
    "mode": "RESTART_MODE_",
    "on_failure": "ON_FAILURE_",
}


def _plain(message: Message) -> dict[str, Any]:
    """The message's fields as plain values: absent sub-messages and unspecified enums left out, enums by their short name."""
    plain: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            values = field.message_type.fields_by_name["value"]
            plain[field.name] = {key: _plain(value[key]) if values.message_type else value[key] for key in value}
        elif field.is_repeated:
            plain[field.name] = list(value)
        elif field.message_type is not None:
            if message.HasField(field.name):
                plain[field.name] = _plain(value)
        elif field.enum_type is not None:
            if value:
                # A value of a newer protocol has no name here, only a number; validation refuses it.
                known = field.enum_type.values_by_number.get(value)
                plain[field.name] = known.name.removeprefix(_PREFIXES[field.name]).lower() if known else str(value)
        else:
            plain[field.name] = value
    return plain


def spec_digest(message: types_pb2.AppSpec) -> str:
    """SHA-256 of the deterministic serialisation, lower-case hex: how agents name a spec."""
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()


def parse_address(text: str) -> tuple[str, int]:
    """Split "ADDRESS:PORT" ("[::1]:80", ":80", "80" for every address); ValueError says what is wrong."""
    address, _, port_text = text.rpartition(":")
    if (
        not port_text.isdecimal()
        or not port_text.isascii()
        or not 0 < int(port_text) < 65_536
        or set(address) & set(" /@\t\n")
    ):
        raise ValueError(f"address {text!r} is not valid: write ADDRESS:PORT, for example 127.0.0.1:8080 or :8080")
    return address.strip("[]") or EVERYWHERE, int(port_text)
