"""systemd's unit files of services (systemd.service(5), .exec(5), .kill(5), .resource-control(5)). Pure."""

import re
import shlex
import signal
from collections.abc import Callable, Mapping
from typing import Any

from fleet_core.checked import CheckError
from fleet_core.spec import AppSpec, ReadyMethod
from fleetctl.fleet_file.command import usual_runtime
from fleetctl.fleet_file.document import WantedApp
from fleetctl.fleet_file.size import Wanted
from fleetctl.fleet_file.tree import one_line, refuse
from fleetctl.moving.imported import Imported
from fleetctl.target import sanitised
from fleetctl.wording import parse_bytes

_PREFIXES = re.compile(r"^[-@:+!|]*")
_DOUBLED = re.compile(r"%%|\$\$")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|seconds?|sec|s|minutes?|min|m|hours?|hr|h|days?|d|weeks?|w)?\s*")
_SECONDS = {"u": 1e-6, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPECIFIERS = re.compile(r"(?<!%)(?:%%)*%[^%]")
_VARIABLE = re.compile(r"(?<!\$)(?:\$\$)*\$\{?[A-Za-z_]")
_STOP_SECONDS = 90.0
_START_SECONDS = 90.0
"""systemd's own, where a unit says nothing (systemd-system.conf(5))."""
_MOST_SECONDS = 86_400.0
_NO_LIMIT = 100_000
"""Restarts: the most there can be."""
_IGNORED = frozenset({"Install"})
_QUIET = frozenset(
    {"Description", "Documentation", "After", "Wants", "Requires", "Before", "WantedBy", "Alias", "SyslogIdentifier"}
)
"""Order and dependencies are those of a boot, and workers are started when their host is there."""

Fields = dict[str, Any]


def apps_of_systemd(text: str, unit: str, source: str) -> Imported:
    """`text`: a unit file, or what `systemctl cat` prints, with its drop-ins. Raises FleetFileError."""
    settings = _settings(text)
    reading = _Reading(unit.removesuffix(".service"))
    for (section, key), values in settings.items():
        reading.take(section, key, values)
    if "argv" not in reading.fields:
        raise refuse(source, None, "there is no ExecStart in it: only services can be apps")
    fields = reading.fields
    fields["runtime"] = usual_runtime(fields["argv"])
    fields.setdefault("restart", {}).setdefault("mode", "never")
    fields.setdefault("stop", {}).setdefault("grace_seconds", _STOP_SECONDS)
    fields.setdefault("ready", {}).setdefault("start_timeout_seconds", _START_SECONDS)
    spec = _checked(reading, {"name": reading.name, "cwd": "/", "listen_mode": "none", **fields}, source)
    reading.warn(
        "listen", "a unit does not say whether it serves requests: give it listen: port and a route if it does"
    )
    return Imported((WantedApp(spec, Wanted(1)),), tuple(reading.warnings))


def _checked(reading: "_Reading", fields: Fields, source: str) -> AppSpec:
    """Without what breaks a rule, which is told. Raises FleetFileError where it then is no app."""
    while True:
        try:
            return AppSpec.model_validate(fields)
        except CheckError as error:
            holder: Any = fields
            for part in error.place[:-1]:
                holder = holder.get(part) if isinstance(holder, dict) else None
            if not error.place or error.place[0] in ("name", "argv") or not isinstance(holder, dict):
                raise refuse(source, None, str(error)) from error
            if holder.pop(error.place[-1], None) is None:
                raise refuse(source, None, str(error)) from error
            reading.warn(".".join(error.place), f"{error.message}: left out")


def _settings(text: str) -> dict[tuple[str, str], list[str]]:
    """(section, key) → its values; an empty one forgets those before (systemd.syntax(7))."""
    settings: dict[tuple[str, str], list[str]] = {}
    section = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            continue
        key, equals, value = line.partition("=")
        if equals and value.strip():
            settings.setdefault((section, key.strip()), []).append(value.strip())
        elif equals:
            settings[section, key.strip()] = []
    return settings


class _Reading:
    """One unit on its way."""

    def __init__(self, unit: str) -> None:
        self.name = sanitised(unit)
        self.fields: Fields = {}
        self.warnings: list[str] = []

    def warn(self, key: str, message: str) -> None:
        self.warnings.append(one_line(f"{self.name}: {key}: {message}"))

    def take(self, section: str, key: str, values: list[str]) -> None:
        if not values or key in _QUIET or section in _IGNORED or section.startswith("X-"):
            return
        if key != "ExecStart":
            values = [_DOUBLED.sub(lambda match: match[0][0], value) if "%%" in value else value for value in values]
        if any(_SPECIFIERS.search(value) for value in values):
            self.warn(key, "systemd's % specifiers are not replaced: write what they stand for")
        if key.startswith("Limit"):
            self._limit(key, values[-1])
        elif key in _TAKERS:
            try:
                _TAKERS[key](self, values)
            except ValueError as error:
                self.warn(key, f"{error}: left out")
        else:
            self.warn(key, "a fleet file has nothing like it: left out")

    def set(self, path: str, value: Any) -> None:
        holder = self.fields
        *above, name = path.split(".")
        for part in above:
            holder = holder.setdefault(part, {})
        holder[name] = value

    def _limit(self, key: str, value: str) -> None:
        bounds = [-1 if part == "infinity" else int(part) if part.isdecimal() else None for part in value.split(":")]
        if None in bounds:
            self.warn(key, f"{value!r} is not a plain number: left out")
        else:
            name = key.removeprefix("Limit")
            self.fields.setdefault("identity", {}).setdefault("resource_limits", {})[name] = {
                "soft": bounds[0],
                "hard": bounds[-1],
            }


def _seconds(value: str) -> float:
    """systemd.time(7)'s spans: 5, 30s, 1min 30s. Raises ValueError."""
    at, total = 0, 0.0
    for match in _SPAN.finditer(value):
        if match.start() != at or not match[0]:
            break
        unit = match[2] or "s"
        total += float(match[1]) * _SECONDS["ms" if unit == "ms" else unit[0]]
        at = match.end()
    if at < len(value) or not value:
        raise ValueError(f"{value!r} is not a span of time")
    return total


def _bounded(value: str, most: float = _MOST_SECONDS) -> float:
    return most if value == "infinity" else min(_seconds(value), most)


def _command(reading: _Reading, values: list[str]) -> None:
    if len(values) > 1:
        reading.warn("ExecStart", "only the last of several commands is taken")
    command = _PREFIXES.sub("", values[-1])
    words = shlex.split(command)
    if "@" in values[-1][: len(values[-1]) - len(command)] and len(words) > 1:
        reading.warn("ExecStart", f"@: it is not called {words.pop(1)}, but by its own name")
    if any(_VARIABLE.search(word) for word in words):
        reading.warn("ExecStart", "$VARIABLES are not replaced in a command: use sh -c 'exec …'")
    reading.fields["argv"] = tuple(_DOUBLED.sub(lambda match: match[0][0], word) for word in words)


def _environment(reading: _Reading, values: list[str]) -> None:
    pairs = [word.partition("=") for value in values for word in shlex.split(value)]
    reading.fields["env"] = {key: content for key, _, content in pairs}


def _environment_files(reading: _Reading, values: list[str]) -> None:
    if any(value.startswith("-") for value in values):
        reading.warn("EnvironmentFile", "a file that may be missing (-) must be there")
    reading.fields["env_files"] = tuple(value.removeprefix("-") for value in values)


def _directory(reading: _Reading, values: list[str]) -> None:
    path = values[-1].removeprefix("-")
    if path == "~":
        raise ValueError("the user's home is not known here")
    reading.fields["cwd"] = path


def _restart(reading: _Reading, values: list[str]) -> None:
    modes = {
        "no": "never",
        "always": "always",
        "on-failure": "on_failure",
        "on-abnormal": "on_failure",
        "on-abort": "on_failure",
        "on-watchdog": "on_failure",
        "on-success": "always",
    }
    word = values[-1]
    if word not in modes:
        raise ValueError(f"{word!r} is not known")
    if word in ("on-abnormal", "on-abort", "on-watchdog", "on-success"):
        reading.warn("Restart", f"{word} becomes {modes[word].replace('_', '-')}")
    reading.set("restart.mode", modes[word])


def _delay(reading: _Reading, values: list[str]) -> None:
    if seconds := _bounded(values[-1]):
        reading.set("restart.backoff_initial_seconds", seconds)
        reading.set("restart.backoff_max_seconds", seconds)


def _type(reading: _Reading, values: list[str]) -> None:
    word = values[-1]
    if word in ("notify", "notify-reload"):
        reading.set("ready.method", ReadyMethod.NOTIFY)
    elif word not in ("simple", "exec"):
        reading.warn("Type", f"{word}: a worker must stay in the foreground")


def _exit_codes(reading: _Reading, values: list[str]) -> None:
    words = " ".join(values).split()
    reading.set("restart.stop_exit_codes", tuple(int(word) for word in words if word.isdecimal()))
    if any(not word.isdecimal() for word in words):
        reading.warn("RestartPreventExitStatus", "names of exit statuses and signals are not kept: write numbers")


def _quota(reading: _Reading, values: list[str]) -> None:
    if not values[-1].endswith("%"):
        raise ValueError(f"{values[-1]!r} is not a percentage")
    reading.set("limits.cpu_max_cores", float(values[-1][:-1]) / 100)


def _memory(reading: _Reading, values: list[str]) -> None:
    if values[-1] != "infinity":
        reading.set("limits.memory_max_bytes", parse_bytes(values[-1]))


def _text(path: str) -> Callable[[_Reading, list[str]], None]:
    return lambda reading, values: reading.set(path, values[-1])


def _number(path: str) -> Callable[[_Reading, list[str]], None]:
    def take(reading: _Reading, values: list[str]) -> None:
        if values[-1] != "infinity":
            reading.set(path, int(values[-1]))

    return take


def _span(*paths: str, nothing: float = 0) -> Callable[[_Reading, list[str]], None]:
    """`nothing`: what 0 stands for, which for most is infinity; 0: it is not set."""

    def take(reading: _Reading, values: list[str]) -> None:
        if seconds := _bounded(values[-1]) or nothing:
            for path in paths:
                reading.set(path, seconds)

    return take


def _burst(reading: _Reading, values: list[str]) -> None:
    reading.set("restart.max_restarts", int(values[-1]) or _NO_LIMIT)


def _interval(reading: _Reading, values: list[str]) -> None:
    """0: however often it restarts."""
    if seconds := _bounded(values[-1]):
        reading.set("restart.window_seconds", seconds)
    else:
        reading.set("restart.max_restarts", _NO_LIMIT)


def _signal(reading: _Reading, values: list[str]) -> None:
    word = values[-1]
    names = {str(int(each)): each.name for each in signal.Signals}
    reading.set("stop.signal", names.get(word, word if word.startswith("SIG") else f"SIG{word}"))


_TAKERS: Mapping[str, Callable[[_Reading, list[str]], None]] = {
    "ExecStart": _command,
    "Environment": _environment,
    "EnvironmentFile": _environment_files,
    "WorkingDirectory": _directory,
    "Restart": _restart,
    "RestartSec": _delay,
    "RestartPreventExitStatus": _exit_codes,
    "Type": _type,
    "User": _text("identity.user"),
    "Group": _text("identity.group"),
    "UMask": _text("identity.umask"),
    "Nice": _number("identity.nice"),
    "KillSignal": _signal,
    "TimeoutStopSec": _span("stop.grace_seconds", nothing=_MOST_SECONDS),
    "TimeoutStartSec": _span("ready.start_timeout_seconds", nothing=_MOST_SECONDS),
    "TimeoutSec": _span("stop.grace_seconds", "ready.start_timeout_seconds", nothing=_MOST_SECONDS),
    "WatchdogSec": _span("ready.watchdog_seconds"),
    "StartLimitBurst": _burst,
    "StartLimitIntervalSec": _interval,
    "StartLimitInterval": _interval,
    "CPUQuota": _quota,
    "MemoryMax": _memory,
    "TasksMax": _number("limits.pids_max"),
}
