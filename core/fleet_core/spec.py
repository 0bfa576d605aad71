"""An app's spec: what a user may write, checked, and its form on the wire.

`AppSpec` mirrors the protobuf message `fleet.v1.AppSpec` field for field (a test holds them together); this class owns the
defaults and the rules, the message owns the wire format.
"""

import hashlib
import signal
from enum import StrEnum
from typing import Annotated, Self

from google.protobuf import json_format
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fleet.v1 import types_pb2
from fleet_core.ids import check_name

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


class ReadyPolicy(_Policy):
    """When a worker counts as ready; a timeout is a failure, never readiness."""

    http_path: str = ""
    start_timeout_seconds: PositiveSeconds = 30
    min_uptime_seconds: Seconds = 1
    interval_seconds: PositiveSeconds = 5
    timeout_seconds: PositiveSeconds = 5
    unready_threshold: Annotated[int, Field(ge=1, le=1000)] = 3

    @field_validator("http_path")
    @classmethod
    def _absolute_path(cls, value: str) -> str:
        if value and not value.startswith("/"):
            raise ValueError(f"health path {value!r} must start with /")
        return value


class StopPolicy(_Policy):
    signal: str = "SIGTERM"
    grace_seconds: Seconds = 10

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


class RolloutPolicy(_Policy):
    max_surge: Annotated[int, Field(ge=0, le=1000)] = 1
    max_unavailable: Annotated[int, Field(ge=0, le=10_000)] = 0
    min_ready_seconds: Seconds = 0.5
    drain_timeout_seconds: Seconds = 30
    parallel_hosts: Annotated[int, Field(ge=1, le=10_000)] = 1

    @model_validator(mode="after")
    def _can_move(self) -> Self:
        if self.max_surge == 0 and self.max_unavailable == 0:
            raise ValueError("max_surge and max_unavailable are both 0, so no worker could ever be replaced: raise one")
        return self


class RoutePolicy(_Policy):
    http: str = ""

    @field_validator("http")
    @classmethod
    def _address(cls, value: str) -> str:
        if value:
            parse_address(value)
        return value


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
        for key, content in value.items():
            if not key or "=" in key or "\0" in key + content:
                raise ValueError(f"environment variable {key!r} cannot be set: names hold no = and no NUL byte")
        return value

    @field_validator("argv")
    @classmethod
    def _no_nul(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value[0] or any("\0" in argument for argument in value):
            raise ValueError("the command is empty or holds a NUL byte")
        return value

    @model_validator(mode="after")
    def _route_needs_port(self) -> Self:
        if self.route.http and self.listen_mode is ListenMode.NONE:
            raise ValueError("an app with a route must listen: listen_mode none has no endpoint to send requests to")
        return self

    def to_proto(self) -> types_pb2.AppSpec:
        fields = self.model_dump(mode="json")
        fields["runtime"] = f"RUNTIME_{self.runtime.name}"
        fields["listen_mode"] = f"LISTEN_MODE_{self.listen_mode.name}"
        return json_format.ParseDict(fields, types_pb2.AppSpec())

    @classmethod
    def from_proto(cls, message: types_pb2.AppSpec) -> Self:
        """Raises pydantic.ValidationError, a ValueError, when a rule is broken. Absent policies take their defaults."""
        fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
        for enumeration, prefix in (("runtime", "RUNTIME_"), ("listen_mode", "LISTEN_MODE_")):
            if enumeration in fields:
                # A value of a newer protocol has no name here, only a number; validation refuses it.
                fields[enumeration] = str(fields[enumeration]).removeprefix(prefix).lower()
        for policy in ("ready", "stop", "restart", "rollout", "route"):
            # proto3 does not tell an absent number from 0: inside a policy that is present, absent means 0.
            if message.HasField(policy):
                sub_message = getattr(message, policy)
                fields[policy] = {
                    field.name: getattr(sub_message, field.name) for field in sub_message.DESCRIPTOR.fields
                }
        return cls.model_validate(fields)


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
    return address.strip("[]") or "0.0.0.0", int(port_text)  # noqa: S104 (what a bare port means)
