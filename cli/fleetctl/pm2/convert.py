"""From PM2's apps to ours, with PM2's meaning of each attribute, and a warning for each that cannot be kept."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from fleet_core.checked import CheckError
from fleet_core.spec import AppSpec, ListenMode, ReadyMethod, RestartMode
from fleetctl.fleet_file.command import usual_runtime
from fleetctl.fleet_file.document import WantedApp
from fleetctl.fleet_file.size import PerCore, Wanted
from fleetctl.fleet_file.tree import Complaint, FleetFileError, one_line, refuse
from fleetctl.pm2 import values
from fleetctl.pm2.attributes import ATTRIBUTES, spellings
from fleetctl.pm2.command import Command, command, working_directory
from fleetctl.pm2.ecosystem import Ecosystem
from fleetctl.target import sanitised

STOP_SIGNAL = "SIGINT"
"""PM2's (constants.js)."""
INSTANCE_VARIABLE = "NODE_APP_INSTANCE"
_BACKOFF_MAX_SECONDS = 15.0
_BACKOFF_RESET_SECONDS = 30.0
"""Both of `exp_backoff_restart_delay` (PM2's God.js and constants.js)."""
_WINDOW_SECONDS = 300.0
_DEFAULT_UPTIME_SECONDS, _DEFAULT_RESTARTS = 1.0, 16
_MOST_SECONDS = 86_400.0
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
"""Of croner, which reads PM2's patterns."""
_ENV_SECTION = re.compile(r"env_\S+")


@dataclass(frozen=True, slots=True)
class Converted:
    apps: tuple[WantedApp, ...]
    warnings: tuple[str, ...]
    """One line for each attribute that is not kept."""


def convert(ecosystem: Ecosystem, env_name: str = "", only: Sequence[str] = ()) -> Converted:
    """`env_name`: PM2's --env. `only`: the apps to take, by PM2's name or ours. Raises FleetFileError."""
    apps: list[WantedApp] = []
    warnings = list(ecosystem.warnings)
    complaints: list[Complaint] = []
    seen: set[str] = set()
    for index, given in enumerate(ecosystem.apps):
        one = _One(ecosystem, f"apps[{index}]", given, env_name)
        try:
            wanted = one.wanted(only)
        except CheckError as error:
            one.complain(".".join(error.place), error.message)
            wanted = None
        complaints += one.complaints
        if only and not one.chosen:
            continue
        warnings += one.warnings
        if wanted is None:
            continue
        if wanted.name in seen:
            one.complain("name", f"there are two apps {wanted.name}: an app has a name of its own here")
            complaints.append(one.complaints[-1])
        seen.add(wanted.name)
        apps.append(wanted)
    if complaints:
        raise FleetFileError(complaints)
    if only and not apps and not warnings:
        raise refuse(ecosystem.file, None, f"no app in it is named {', '.join(only)}")
    return Converted(tuple(apps), tuple(warnings))


@dataclass(slots=True)
class _One:
    """One app on its way."""

    ecosystem: Ecosystem
    where: str
    given: Mapping[str, Any]
    env_name: str
    warnings: list[str] = field(default_factory=list)
    complaints: list[Complaint] = field(default_factory=list)
    chosen: bool = True
    _name: str = ""
    _found: dict[str, Any] = field(default_factory=dict)
    _written: dict[str, str] = field(default_factory=dict)

    def wanted(self, only: Sequence[str]) -> WantedApp | None:
        """None: it is left out, or complained about. Raises CheckError."""
        unknown = self._sort()
        line = self._command()
        if line is None:
            return None
        self._take_name(line)
        if only and self._name not in only and str(self._found.get("name")) not in only:
            self.chosen = False
            self.complaints.clear()
            return None
        for key in unknown:
            close = get_close_matches(key, spellings(), n=1, cutoff=0.6)
            self.warn(key, f"PM2 has no such attribute{f': did you mean {close[0]}?' if close else ''}")
        self._warn_of_lost()
        fields, size = self._fields(line), self._size()
        if self.complaints or self._found.get("autostart") is False:
            return None
        return WantedApp(AppSpec.model_validate(fields), size)

    def warn(self, attribute: str, message: str) -> None:
        spelling = self._written.get(attribute, attribute)
        self.warnings.append(one_line(f"{self._name or self.where}: {spelling}: {message}".replace("`", "")))

    def complain(self, attribute: str, message: str) -> None:
        spelling = self._written.get(attribute, attribute)
        place = f"{self.where}.{spelling}" if spelling else self.where
        self.complaints.append(Complaint(self.ecosystem.file, None, place, message))

    def _sort(self) -> list[str]:
        """Attributes by their name, the first of several spellings; returns what PM2 does not know either."""
        known = spellings()
        unknown: list[str] = []
        for key, value in self.given.items():
            name = known.get(key)
            if name is None and not _ENV_SECTION.fullmatch(key):
                unknown.append(key)
            elif name is not None and value is not None and (name not in self._found or key == name):
                self._found[name] = value
                self._written[name] = key
        return unknown

    def _read(self, name: str, parse: Any) -> Any:
        """None: not given, or complained about."""
        if name not in self._found:
            return None
        try:
            return parse(self._found[name])
        except ValueError as error:
            self.complain(name, str(error))
            return None

    def _command(self) -> Command | None:
        script = self._found.get("script")
        if not isinstance(script, str) or not script:
            self.complain("script", "what shall run? PM2 wants the path of a script")
            return None
        cwd = working_directory(self._read("cwd", values.word), self.ecosystem.folder)
        interpreter = self._read("exec_interpreter", values.word) or ""
        node_args = list(self._read("node_args", values.words) or ())
        if self._read("source_map_support", values.flag):
            node_args.append("--enable-source-maps")
        return command(script, interpreter, tuple(node_args), self._read("args", values.words) or (), cwd)

    def _take_name(self, line: Command) -> None:
        name = values.text(self._found.get("name", line.default_name))
        if self._read("append_env_to_name", values.flag) and self.env_name:
            name += f"-{self.env_name}"
        self._name = sanitised(name)
        if not self._name:
            self.complain("name", f"no name can be made from {name!r}: use letters and digits")
        elif self._name != name and "name" in self._found:
            self.warn("name", f"{name!r} becomes {self._name}")

    def _warn_of_lost(self) -> None:
        for name, value in self._found.items():
            attribute = ATTRIBUTES[name]
            if not attribute.kept and not any(value is quiet or value == quiet for quiet in attribute.quiet):
                self.warn(name, attribute.does)
        interpreter = self._found.get("exec_interpreter")
        if isinstance(interpreter, str) and interpreter.startswith("node@"):
            self.warn("exec_interpreter", f"{interpreter} is not chosen by nvm: the hosts' own node runs it")

    def _fields(self, line: Command) -> dict[str, Any]:
        env = self._environment(line)
        port = self._port(env)
        runtime = usual_runtime(line.argv)
        fields: dict[str, Any] = {
            "name": self._name or "app",
            "argv": line.argv,
            "cwd": line.cwd,
            "env": env,
            "runtime": runtime,
            "counters": self._counters(env),
            "stop": self._stop(),
            "restart": self._restart(),
            "identity": {
                spec: self._read(name, values.word) or ""
                for spec, name in (("user", "uid"), ("group", "gid"))
                if name in self._found
            },
            "log": {"timestamps": self._timestamps(), "json_lines": self._found.get("log_type") == "json"},
            "cron_restart": self._cron(),
        }
        if (limit := self._read("max_memory_restart", values.size)) is not None:
            fields["limits"] = {"memory_restart_bytes": limit}
        self._serving(fields, port, node=runtime.value == "node")
        return fields

    def _environment(self, line: Command) -> dict[str, str]:
        """A null in `env` is the text "null", in any other section the variable is left out: so PM2 has it."""
        sections = [
            self.ecosystem.deploy_env.get(self.env_name, {}) if self.env_name else {},
            self._found.get("env", {}),
        ]
        if self.env_name:
            name = f"env_{self.env_name}"
            if name in self.given:
                sections.append(self.given[name])
            else:
                self.warn("--env", f"it has no {name}: env alone counts")
        env: dict[str, str] = {"PYTHONUNBUFFERED": "1"} if line.python else {}
        for section in sections:
            if not isinstance(section, Mapping):
                self.complain("env", "write an object: NAME: value")
                continue
            env.update({str(key): values.text(value) for key, value in section.items()})
            if section is not sections[1]:
                for key in [key for key, value in section.items() if value is None]:
                    del env[str(key)]
        return env

    def _port(self, env: dict[str, str]) -> str:
        """Where the app is reached; taken out of the environment, for each worker gets a port of its own."""
        given = self._found.get("port")
        port = values.text(given) if given is not None else env.get("PORT", "")
        if not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
            if given is not None:
                self.complain("port", f"{port!r} is not a port")
            return ""
        env.pop("PORT", None)
        return port

    def _counters(self, env: dict[str, str]) -> dict[str, int]:
        counters = {self._read("instance_var", values.word) or INSTANCE_VARIABLE: 0}
        if name := self._read("increment_var", values.word):
            start = env.pop(name, "")
            counters[name] = int(start) if start.isascii() and start.isdecimal() and len(start) < 10 else 0
        return counters

    def _stop(self) -> dict[str, Any]:
        stop: dict[str, Any] = {"signal": STOP_SIGNAL}
        # 0 is PM2's default too, not a SIGKILL at once (God.processIsDead).
        if grace := self._read("kill_timeout", values.milliseconds):
            stop["grace_seconds"] = grace
        if self._read("shutdown_with_message", values.flag):
            stop["shutdown_message"] = True
        return stop

    def _restart(self) -> dict[str, Any]:
        restart: dict[str, Any] = {}
        if self._read("autorestart", values.flag) is False:
            restart["mode"] = RestartMode.NEVER
        if codes := self._read("stop_exit_codes", lambda value: [values.whole(code) for code in values.words(value)]):
            restart["stop_exit_codes"] = tuple(codes)
        if delay := self._read("restart_delay", values.milliseconds):
            restart["backoff_initial_seconds"] = restart["backoff_max_seconds"] = delay
        if delay := self._read("exp_backoff_restart_delay", values.milliseconds):
            restart["backoff_initial_seconds"] = delay
            restart["backoff_max_seconds"] = max(delay, _BACKOFF_MAX_SECONDS)
            restart["stable_seconds"] = _BACKOFF_RESET_SECONDS
        uptime = self._read("min_uptime", values.uptime)
        ends = self._read("max_restarts", values.whole)
        if uptime:
            restart["stable_seconds"] = uptime
        if ends is not None:
            restart["max_restarts"] = max(0, ends - 1)
        if uptime or ends is not None:
            # PM2 counts for min_uptime times max_restarts; here the back-off takes time too.
            counted = (uptime or _DEFAULT_UPTIME_SECONDS) * (_DEFAULT_RESTARTS if ends is None else ends)
            restart["window_seconds"] = min(max(_WINDOW_SECONDS, counted), _MOST_SECONDS)
        return restart

    def _timestamps(self) -> bool:
        return bool(self._read("time", values.flag) or self._found.get("log_date_format"))

    def _cron(self) -> str:
        cron = (self._read("cron_restart", values.word) or "").strip()
        if cron in ("0", ""):
            return ""
        fields = _NICKNAMES.get(cron.lower(), cron).split()
        if len(fields) == 6 and fields[0].strip("0") == "":
            del fields[0]  # at second 0 of the minute, which is when the five others mean
        cron = " ".join(fields)
        if len(fields) == 6:
            self.warn("cron_restart", "a field for seconds is not kept: write the five of crontab(5)")
            return ""
        return cron

    def _serving(self, fields: dict[str, Any], port: str, *, node: bool) -> None:
        ready: dict[str, Any] = {}
        cluster = self._clustered(node=node)
        if port:
            fields["route"] = {"http": f":{port}"}
        elif cluster:
            self.warn(
                "exec_mode" if "exec_mode" in self._found else "instances",
                "a cluster, but no port says where clients reach it: add port, so that the balancers listen there",
            )
        else:
            # As under PM2 in fork mode: the program opens its own port, if any, so that two of them never overlap.
            fields["listen_mode"] = ListenMode.NONE
            fields["rollout"] = {"max_surge": 0, "max_unavailable": 1}
        if self._read("wait_ready", values.flag):
            if node:
                ready["method"] = ReadyMethod.MESSAGE
            else:
                self.warn("wait_ready", "process.send('ready') is Node's: use ready.method notify in a fleet file")
        if timeout := self._read("listen_timeout", values.milliseconds):
            ready["start_timeout_seconds"] = timeout
        fields["ready"] = ready

    def _clustered(self, *, node: bool) -> bool:
        """Instances of a Node program are a cluster unless the file says otherwise (PM2's determineExecMode)."""
        if self._read("execute_command", values.flag):
            return False
        mode = self._found.get("exec_mode")
        if mode is None:
            return node and "instances" in self._found
        word = values.text(mode).removesuffix("_mode")
        if word not in ("cluster", "fork"):
            self.complain("exec_mode", f"{word!r} is not cluster or fork")
        return word == "cluster"

    def _size(self) -> Wanted:
        number = self._read("instances", lambda value: 0 if value == "max" else values.whole(value))
        if number is None:
            return Wanted(1)
        return Wanted(number if number > 0 else PerCore(-number))
