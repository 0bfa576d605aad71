"""The protocol between fleet-agent and fleet-supervisor: what crosses the unix socket, and nothing else.

Standard library only. Each message is a 4-byte big-endian length and that many bytes of UTF-8 JSON, one object. The agent
sends requests `{"id": n, "request": NAME, ...}`; the supervisor answers each with `{"id": n, "ok": true, ...}` or `{"id": n,
"ok": false, "error": TEXT}`, and, from `hello` on, sends `{"event": "worker", "worker": {...}}` whenever a worker changed and
`{"event": "removed", "key": {...}}` once one was forgotten. Requests are states, not verbs: each may be repeated.

request   fields                                 meaning
hello     protocol                               answers `protocol`, `pid`, `workers` (all, whole); subscribes to events
run       key, launch                            this worker shall run; a process that runs is left alone, and another
                                                 launch counts from its next start; failed stays failed under an equal one
stop      key, signal, grace_seconds             this worker shall stop, by the ladder, and stay down
forget    key                                    drop an exited or failed worker's record; otherwise refused
note      key, pid, ready                        the agent's finding on the process `pid`; ignored when it is gone
fail      key, pid, reason                       the process `pid` has failed: stop it by the ladder and treat its end as a crash
stop_all  grace_seconds                          stop every worker; answered when all are down
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_LENGTH = struct.Struct(">I")
_encode = json.JSONEncoder(separators=(",", ":")).encode


class ProtocolError(Exception):
    """The peer sent what this protocol has no meaning for; the connection must be closed."""


class Key(NamedTuple):
    """Names one worker on this host."""

    app: str
    slot: int
    generation: int


@dataclass(frozen=True)
class Launch:
    """All that is needed to start and keep one worker, with the agent away."""

    argv: list[str]
    cwd: str
    env: dict[str, str]
    """The whole environment, not additions to one."""
    port: int = 0
    """For the record and its report only; the program learns it from `env`."""
    stop_signal: int = 15
    grace_seconds: float = 10.0
    backoff_initial_seconds: float = 0.5
    backoff_max_seconds: float = 30.0
    max_restarts: int = 16
    window_seconds: float = 60.0
    stable_seconds: float = 10.0
    log_max_bytes: int = 10 * 1024 * 1024
    log_files: int = 5
    """Rotated files kept beside the one written to."""
    restart_mode: str = "always"
    """"always" | "on_failure" | "never": whether an end that nobody asked for is followed by a start."""
    stop_exit_codes: list[int] = field(default_factory=list)
    """Exit codes that end it for good, whatever the mode."""
    user: str = ""
    """Name or number; empty: the supervisor's own."""
    group: str = ""
    """Name or number; empty: the user's primary one."""
    umask: int = 0o022
    nice: int = 0
    resource_limits: dict[str, list[int]] = field(default_factory=dict)
    """Names of setrlimit(2) without RLIMIT_ → [soft, hard]; -1: unlimited."""
    memory_max_bytes: int = 0
    """This and the next two need cgroup v2: without it no process is started, and the reason says so. 0: no limit."""
    cpu_max_cores: float = 0.0
    pids_max: int = 0
    log_timestamps: bool = False
    """Each line begins with the time it was read: RFC 3339, UTC, milliseconds, one space."""
    log_json: bool = False
    """Each line is a JSON object of `time`, `app`, `slot`, `stream` and `message`."""
    log_max_age_seconds: float = 0.0
    """A log written to for so long is rotated, and a rotated file that old is deleted; 0: never."""
    log_compress: bool = False
    """The agent turns rotated files `X.log.N` into `X.log.N.gz`; the supervisor renumbers and deletes those as well."""
    ready_by: str = ""
    """Who says that a start is complete: "" the agent (`note`), "notify" the worker's READY=1, "message" its message "ready",
    "listening" the Node preload, once the program listens: where all workers share a socket no probe can tell."""
    notify: bool = False
    """NOTIFY_SOCKET is set for the program (sd_notify(3))."""
    watchdog_seconds: float = 0.0
    """With `notify`: once ready, WATCHDOG=1 must come this often, or the process has failed; 0: no watchdog."""
    channel: bool = False
    """The program gets a message channel as Node's child_process.fork() makes it."""
    shutdown_message: bool = False
    """With `channel`: a stop begins with the message "shutdown", and half of the grace has passed before the signal."""
    listen_address: str = ""
    listen_port: int = 0
    """A listening socket bound by the supervisor, shared by all workers of the app that name it; 0: none."""
    extra: dict[str, Any] = field(default_factory=dict)
    """The agent's own notes (revision, spec digest, …), kept and returned untouched."""

    @cached_property
    def text(self) -> str:
        """Its JSON, made once: it is checked, journaled at every change, and long. Nobody changes what a launch holds."""
        return _encode(launch_to_json(self))


@dataclass(frozen=True)
class Worker:
    """One worker as the supervisor reports it."""

    key: Key
    launch: Launch
    state: str
    """"starting" | "running" (noted ready) | "unready" (was noted ready, no longer) | "stopping" | "backoff" | "exited" |
    "failed"."""
    pid: int = 0
    start_ticks: int = 0
    """Field 22 of /proc/PID/stat (man 5 proc): with the pid and the boot id it names a process for ever."""
    started_monotonic: float = 0.0
    """CLOCK_BOOTTIME seconds at which the present process was released into exec."""
    restarts: int = 0
    reason: str = ""
    """Why the last process ended, in words: "exit code 1", "killed by SIGKILL", "exec: No such file or directory"."""
    ever_ready: bool = False
    """The present process was noted ready at some time."""
    status_text: str = ""
    """What the present process last said of itself (STATUS= of sd_notify(3))."""


def encode(message: Mapping[str, Any]) -> bytes:
    """One framed message. Raises ProtocolError when it is too long."""
    body = _encode(message).encode()
    if len(body) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"message of {len(body)} bytes is longer than {MAX_MESSAGE_BYTES}")
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Turns received bytes into messages; holds at most one unfinished message."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Add `data`, return the messages it completed. Raises ProtocolError; the decoder is then of no more use."""
        self._buffer += data
        messages: list[dict[str, Any]] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_MESSAGE_BYTES:
                raise ProtocolError(f"message of {length} bytes is longer than {MAX_MESSAGE_BYTES}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            try:
                message = json.loads(self._buffer[_LENGTH.size : end])
            except ValueError as error:
                raise ProtocolError(f"message is not JSON: {error}") from error
            if not isinstance(message, dict):
                raise ProtocolError("message is not a JSON object")
            messages.append(message)
            del self._buffer[:end]
        return messages


def worker_to_json(worker: Worker) -> dict[str, Any]:
    return {**vars(worker), "key": worker.key._asdict(), "launch": launch_to_json(worker.launch)}


def launch_to_json(launch: Launch) -> dict[str, Any]:
    """Shares its values with `launch`: `asdict` would copy the environment, item by item, for each event."""
    values = dict(vars(launch))
    values.pop("text", None)
    return values


def worker_from_json(value: Mapping[str, Any]) -> Worker:
    """Raises ProtocolError on missing fields; unknown ones, of a newer peer, are dropped."""
    try:
        known = {name: value[name] for name in Worker.__dataclass_fields__ if name in value}
        known["key"] = key_from_json(value["key"])
        known["launch"] = launch_from_json(value["launch"])
        return Worker(**known)
    except (KeyError, TypeError) as error:
        raise ProtocolError(f"worker record is not valid: {error}") from error


def key_from_json(value: Mapping[str, Any]) -> Key:
    try:
        return Key(str(value["app"]), int(value["slot"]), int(value["generation"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"worker key is not valid: {error}") from error


def launch_from_json(value: Mapping[str, Any]) -> Launch:
    try:
        return Launch(**{name: value[name] for name in Launch.__dataclass_fields__ if name in value})
    except TypeError as error:
        raise ProtocolError(f"launch is not valid: {error}") from error
