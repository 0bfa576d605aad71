"""An app's spec: what a user may write, checked, and its form on the wire.

`AppSpec` mirrors the protobuf message `fleet.v1.AppSpec` field for field (a test holds them together); this class owns the
defaults and the rules, the message owns the wire format.
"""

import hashlib
import re
import resource
import signal
from enum import StrEnum
from typing import Annotated, Self

from msgspec import Meta, field

from fleet.v1 import types_pb2
from fleet_core import wire
from fleet_core.checked import Checked, RuleError
from fleet_core.ids import check_label, check_name
from fleet_core.route import PositiveSeconds, RoutePolicy, Seconds

MOST_WORD_BYTES = 128 * 1024 - 1
"""Of an argument or of NAME=VALUE (execve(2), MAX_ARG_STRLEN without the NUL, where pages have 4 KiB)."""
MOST_ENVIRONMENT_BYTES = 512 * 1024
"""A revision lies in etcd, which takes 1.5 MiB at once, as JSON, where a character may take several bytes."""


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


class ReadyPolicy(Checked, frozen=True):
    """When a worker counts as ready; a timeout is a failure, never readiness."""

    http_path: str = ""
    start_timeout_seconds: PositiveSeconds = 30
    min_uptime_seconds: Seconds = 1
    interval_seconds: PositiveSeconds = 5
    timeout_seconds: PositiveSeconds = 5
    unready_threshold: Annotated[int, Meta(ge=1, le=1000)] = 3
    method: ReadyMethod | None = None
    """None: HTTP where `http_path` is set, else what the listen mode suggests."""
    command: tuple[str, ...] = ()
    watchdog_seconds: Seconds = 0

    def __post_init__(self) -> None:
        if self.http_path and not self.http_path.startswith("/"):
            raise RuleError(f"health path {self.http_path!r} must start with /", "http_path")
        if " " in self.http_path or not self.http_path.isprintable():
            # It is asked for as it is written, on the first line of a request.
            raise RuleError(
                f"health path {self.http_path!r} holds what no URL does: write %20 for a space", "http_path"
            )

    @property
    def health_path(self) -> str:
        """What an HTTP check asks; empty: this worker is not asked by HTTP."""
        return self.http_path if self.method in (None, ReadyMethod.HTTP) else ""


class StopPolicy(Checked, frozen=True):
    signal: str = "SIGTERM"
    grace_seconds: Seconds = 10
    shutdown_message: bool = False

    def __post_init__(self) -> None:
        if self.signal not in signal.Signals.__members__:
            raise RuleError(f"signal {self.signal!r} is not known: write SIGTERM, SIGINT, …", "signal")


class RestartPolicy(Checked, frozen=True):
    backoff_initial_seconds: PositiveSeconds = 0.5
    backoff_max_seconds: PositiveSeconds = 30
    max_restarts: Annotated[int, Meta(ge=0, le=100_000)] = 10
    window_seconds: PositiveSeconds = 300
    stable_seconds: PositiveSeconds = 10
    mode: RestartMode = RestartMode.ALWAYS
    stop_exit_codes: tuple[Annotated[int, Meta(ge=0, le=255)], ...] = ()


class ResourceLimit(Checked, frozen=True):
    """A limit of setrlimit(2); -1: unlimited."""

    soft: Annotated[int, Meta(ge=-1, le=2**63 - 1)]
    hard: Annotated[int, Meta(ge=-1, le=2**63 - 1)]


class Identity(Checked, frozen=True):
    user: str = ""
    group: str = ""
    umask: str = "022"
    nice: Annotated[int, Meta(ge=-20, le=19)] = 0
    resource_limits: dict[str, ResourceLimit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.umask or set(self.umask) - set("01234567") or int(self.umask, 8) > 0o777:
            raise RuleError(f"umask {self.umask!r} is not valid: write it in octal, for example 027", "umask")
        for name in self.resource_limits:
            if not hasattr(resource, f"RLIMIT_{name}"):
                raise RuleError(
                    f"resource limit {name!r} is not known: write NOFILE, CORE, AS, … (setrlimit(2))", "resource_limits"
                )


class LimitPolicy(Checked, frozen=True):
    memory_restart_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    memory_max_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    cpu_max_cores: Annotated[float, Meta(ge=0, le=10_000)] = 0
    pids_max: Annotated[int, Meta(ge=0, le=4_194_304)] = 0


class LogPolicy(Checked, frozen=True):
    timestamps: bool = False
    json_lines: bool = False
    max_bytes: Annotated[int, Meta(ge=4096, le=2**40)] = 10 * 1024 * 1024
    max_files: Annotated[int, Meta(ge=0, le=1000)] = 5
    max_age_seconds: Annotated[float, Meta(ge=0, le=10 * 365 * 86_400)] = 0
    compress: bool = False


class OnFailure(StrEnum):
    ROLLBACK = "rollback"
    PAUSE = "pause"


class RolloutPolicy(Checked, frozen=True):
    max_surge: Annotated[int, Meta(ge=0, le=1000)] = 1
    max_unavailable: Annotated[int, Meta(ge=0, le=10_000)] = 0
    min_ready_seconds: Seconds = 0.5
    drain_timeout_seconds: Seconds = 30
    parallel_hosts: Annotated[int, Meta(ge=1, le=10_000)] = 1
    canary: Annotated[int, Meta(ge=0, le=10_000)] = 0
    canary_seconds: Seconds = 0
    on_failure: OnFailure = OnFailure.ROLLBACK
    progress_deadline_seconds: Seconds = 600
    bake_seconds: Seconds = 10

    def __post_init__(self) -> None:
        if self.max_surge == 0 and self.max_unavailable == 0:
            raise RuleError("max_surge and max_unavailable are both 0, so no worker could ever be replaced: raise one")


class PlacementPolicy(Checked, frozen=True):
    labels: dict[str, str] = field(default_factory=dict)
    lost_after_seconds: Annotated[float, Meta(ge=0, le=30 * 86_400)] = 150

    def __post_init__(self) -> None:
        for key, content in self.labels.items():
            try:
                check_label(key, content)
            except ValueError as error:
                raise RuleError(str(error), "labels") from error


def _check_variables(variables: dict[str, str], field: str) -> None:
    for key, content in variables.items():
        if not key or "=" in key or "\0" in key + content:
            raise RuleError(f"environment variable {key!r} cannot be set: names hold no = and no NUL byte", field)
        _check_word(f"environment variable {key!r}", f"{key}={content}", field)
    total = sum(len(key) + len(content) for key, content in variables.items())
    if total > MOST_ENVIRONMENT_BYTES:
        raise RuleError(f"the variables have {total} bytes: at most {MOST_ENVIRONMENT_BYTES} in all are kept", field)


def _check_word(what: str, word: str, field: str) -> None:
    try:
        size = len(word.encode())
    except UnicodeEncodeError as error:
        raise RuleError(f"{what} is not UTF-8", field) from error
    if size > MOST_WORD_BYTES:
        raise RuleError(f"{what} has {size} bytes, and a program takes {MOST_WORD_BYTES}: put it into a file", field)


class BuildPolicy(Checked, frozen=True):
    """What is done on each host between unpacking deployed code and running it."""

    command: tuple[str, ...] = ()
    """Empty: what the code asks for."""
    timeout_seconds: PositiveSeconds = 300
    skip: bool = False

    def __post_init__(self) -> None:
        if self.skip and self.command:
            raise RuleError("a build command and skip exclude each other", "command")
        if self.command and (not self.command[0] or any("\0" in word for word in self.command)):
            raise RuleError("the build command is empty or holds a NUL byte", "command")


class AppSpec(Checked, frozen=True):
    """Everything that makes a worker what it is."""

    name: str
    argv: Annotated[tuple[str, ...], Meta(min_length=1)]
    cwd: str
    env: dict[str, str] = field(default_factory=dict)
    runtime: Runtime = Runtime.PROGRAM
    listen_mode: ListenMode = ListenMode.PORT
    declared_port: Annotated[int, Meta(ge=0, le=65_535)] = 0
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
    worker_env: dict[Annotated[int, Meta(ge=1)], dict[str, str]] = field(default_factory=dict)
    placement: PlacementPolicy = PlacementPolicy()
    build: BuildPolicy = BuildPolicy()
    counters: dict[str, Annotated[int, Meta(ge=0, le=2**31 - 1)]] = field(default_factory=dict)
    """Variable → its number in slot 1; each further slot has one more. Every host counts from there."""

    def __post_init__(self) -> None:
        self._check_fields()
        self._check_readiness()
        if self.route.routed and self.listen_mode is ListenMode.NONE:
            raise RuleError("an app with a route must listen: listen_mode none has no endpoint to send requests to")

        if self.route.sticky and self.route.sticky_drain_seconds >= self.rollout.drain_timeout_seconds:
            raise RuleError(
                "route.sticky_drain must be shorter than rollout.drain_timeout, when a worker that drains is stopped in any case"
            )

    def _check_fields(self) -> None:
        try:
            check_name("app", self.name)
        except ValueError as error:
            raise RuleError(str(error), "name") from error
        if "\0" in self.cwd or not self.cwd or (not self.cwd.startswith("/") and ".." in self.cwd.split("/")):
            text = "must be absolute, or inside the deployed code, without a NUL byte"
            raise RuleError(f"working directory {self.cwd!r} {text}", "cwd")
        if not self.argv[0] or any("\0" in argument for argument in self.argv):
            raise RuleError("the command is empty or holds a NUL byte", "argv")
        for number, argument in enumerate(self.argv):
            _check_word(f"word {number + 1} of the command", argument, "argv")
        _check_word(f"working directory {self.cwd!r}", self.cwd, "cwd")
        _check_variables(self.env, "env")
        for variables in self.worker_env.values():
            _check_variables(variables, "worker_env")
        _check_variables(dict.fromkeys(self.counters, ""), "counters")
        if self.cron_restart:
            _check_cron(self.cron_restart)

    def _check_readiness(self) -> None:
        method = self.ready.method
        if method is ReadyMethod.HTTP and not self.ready.http_path:
            raise RuleError("ready method http needs an http_path")
        if method is ReadyMethod.HTTP and self.listen_mode is ListenMode.NONE:
            raise RuleError("ready method http needs a worker that listens: listen_mode none has no port to ask")
        if (method is ReadyMethod.COMMAND) != bool(self.ready.command):
            raise RuleError("ready method command and a command belong together")
        if method is ReadyMethod.MESSAGE and self.runtime is not Runtime.NODE:
            raise RuleError("ready method message needs runtime node: it is sent by process.send('ready')")
        needs_port = method in (ReadyMethod.LISTEN, ReadyMethod.TCP)
        if needs_port and self.listen_mode is not ListenMode.PORT:
            raise RuleError(f"ready method {method} needs listen_mode port")

    @property
    def needs_artifact(self) -> bool:
        """Its working directory lies inside deployed code."""
        return not self.cwd.startswith("/")

    def to_proto(self) -> types_pb2.AppSpec:
        fields = self.plain()
        fields["worker_env"] = {slot: {"variables": variables} for slot, variables in self.worker_env.items()}
        return wire.filled(types_pb2.AppSpec(), fields)

    @classmethod
    def from_proto(cls, message: types_pb2.AppSpec) -> Self:
        """Raises CheckError when a rule is broken. Absent policies take their defaults.

        proto3 does not tell an absent number from 0: inside a policy that is present, absent means 0.
        """
        fields = wire.plain(message)
        fields["worker_env"] = {slot: dict(worker.variables) for slot, worker in message.worker_env.items()}
        return cls.model_validate(fields)


_CRON_NAMES = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"})
_RANDOM = re.compile(r"\bR\b", re.IGNORECASE)
"""For croniter another time at each look."""


def _check_cron(expression: str) -> None:
    from croniter import croniter  # 2 MiB that an agent without cron times does not need

    known = len(expression.split()) == 5 and not _RANDOM.search(expression) and croniter.is_valid(expression)
    if not known and expression not in _CRON_NAMES:
        raise RuleError(
            f"cron time {expression!r} is not valid: write five fields as in crontab(5), '0 3 * * *', or @daily",
            "cron_restart",
        )


def spec_digest(message: types_pb2.AppSpec) -> str:
    """SHA-256 of the deterministic serialisation, lower-case hex: how agents name a spec."""
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()
