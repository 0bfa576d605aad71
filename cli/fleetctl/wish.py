"""What the command line says of a new app, as a spec. Every complaint names the option that has to change."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fleet_core.checked import CheckError
from fleet_core.route import Protocol
from fleet_core.spec import AppSpec, ListenMode, ReadyMethod, Runtime
from fleetctl.app_options import SpecOption
from fleetctl.errors import CliError, ExitCode
from fleetctl.target import Command

Field = tuple[str, ...]
"""Where a value lies in the spec: ("identity", "user")."""

_FOR_PORTS = (ReadyMethod.LISTEN, ReadyMethod.TCP)


class Wish:
    """The fields of a spec that were given, by their place, and the option that gave each."""

    def __init__(self, values: Mapping[Field, Any], options: Mapping[Field, str]) -> None:
        self._values = dict(values)
        self._options = dict(options)

    @classmethod
    def of(cls, options: Iterable[SpecOption], given: Mapping[str, Any]) -> "Wish":
        """`given`: the option's name in click → its value; None, or nothing of several: not given."""
        values: dict[Field, Any] = {}
        names: dict[Field, str] = {}
        for option in options:
            value = given[str(option.name)]
            names[option.field] = max(option.opts, key=len)
            if value is not None and value != ():
                values[option.field] = option.collect(value) if option.collect else value
        return cls(values, names)

    def __bool__(self) -> bool:
        """It says anything, so it cannot be meant for an app that exists."""
        return bool(self._values)

    def spec(self, name: str, command: Command) -> AppSpec:
        """Raises CliError."""
        self._check(command)
        fields: dict[str, Any] = {
            "name": name,
            "argv": command.argv,
            "cwd": str(Path.cwd()),
            "runtime": Runtime.NODE if command.node else Runtime.PROGRAM,
        }
        for place, value in self._implied().items():
            holder = fields
            for part in place[:-1]:
                holder = holder.setdefault(part, {})
            holder[place[-1]] = value
        try:
            return AppSpec.model_validate(fields)
        except CheckError as error:
            raise CliError(ExitCode.USAGE, self._complaint(error)) from error

    def onto(self, spec: AppSpec) -> AppSpec:
        """`spec` with what was given in its place; variables and labels are added. Raises CliError."""
        self._check(Command(spec.argv, spec.runtime is Runtime.NODE, spec.name))
        fields = spec.plain()
        for place, value in self._implied().items():
            holder = fields
            for part in place[:-1]:
                holder = holder.setdefault(part, {})
            present = holder.get(place[-1])
            if isinstance(value, dict) and isinstance(present, dict):
                holder[place[-1]] = {**present, **value}
            else:
                holder[place[-1]] = value
        try:
            return AppSpec.model_validate(fields)
        except CheckError as error:
            raise CliError(ExitCode.USAGE, self._complaint(error)) from error

    def _implied(self) -> dict[Field, Any]:
        """What was given, and what follows from it."""
        values = dict(self._values)
        if not values.get(("ready", "method")):
            values.pop(("ready", "method"), None)
            if ("ready", "command") in values:
                values["ready", "method"] = ReadyMethod.COMMAND
        if values.get(("rollout", "max_surge")) == 0:
            # Stop first, then start: one worker at a time is missing.
            values.setdefault(("rollout", "max_unavailable"), 1)
        return values

    def _check(self, command: Command) -> None:
        """The spec's rules over several fields, in the words of the options. Raises CliError."""
        values = self._values
        listen = values.get(("listen_mode",), ListenMode.PORT)
        method = values.get(("ready", "method"), "")
        path, probe = values.get(("ready", "http_path")), values.get(("ready", "command"))
        reached = next((name for name in Protocol if values.get(("route", name))), "")
        complaints = (
            (method == "http" and not path, "--ready http needs --ready-path, for example --ready-path /health"),
            (method == "command" and not probe, "--ready command needs --ready-command, for example './check --fast'"),
            (path and probe, "--ready-path and --ready-command exclude each other"),
            (path and method not in ("", "http"), f"--ready-path is for --ready http, not {method}"),
            (probe and method not in ("", "command"), f"--ready-command is for --ready command, not {method}"),
            (
                method == "message" and not command.node,
                "--ready message is for Node programs (process.send('ready')): use --ready notify, listen or http",
            ),
            (
                method in _FOR_PORTS and listen != ListenMode.PORT,
                f"--ready {method} needs a port of the worker's own: it does not go with --listen {listen}",
            ),
            (path and listen == ListenMode.NONE, "--ready-path needs a port: it does not go with --listen none"),
            (
                reached and listen == ListenMode.NONE,
                f"--{reached} needs something that listens: it does not go with --listen none",
            ),
            (
                reached != Protocol.TCP and bool(reached) and ("route", "tcp") in values,
                "--tcp does not go with --http and --https: the workers have one port each",
            ),
            (
                (("route", "hosts") in values or ("route", "paths") in values) and not reached,
                "--hostname and --path say which requests of an address are its: they need --http or --https",
            ),
            (
                ("route", "redirect_https") in values
                and not (values.get(("route", "http")) and values.get(("route", "https"))),
                "--redirect-https needs --http, where it redirects, and --https, where to",
            ),
            (
                ("route", "strip_path") in values and ("route", "paths") not in values,
                "--strip-path takes away what --path says: give it one",
            ),
            (
                ("declared_port",) in values and listen == ListenMode.NONE,
                "--port says what to listen on: it does not go with --listen none",
            ),
            (
                ("stop", "shutdown_message") in values and not command.node,
                "--shutdown-message is for Node programs: others are stopped by --stop-signal",
            ),
            (
                values.get(("rollout", "max_surge")) == 0 == values.get(("rollout", "max_unavailable"), 1),
                "--max-surge 0 and --max-unavailable 0: so no worker could ever be replaced",
            ),
            (
                values.get(("rollout", "canary_seconds")) and not values.get(("rollout", "canary")),
                "--canary-time says how long canaries are watched: say how many with --canary N",
            ),
        )
        for broken, complaint in complaints:
            if broken:
                raise CliError(ExitCode.USAGE, complaint)

    def _complaint(self, error: CheckError) -> str:
        """The first broken rule, after the option whose field it is about."""
        place = error.place
        option = next(
            (self._options[place[:end]] for end in range(len(place), 0, -1) if place[:end] in self._options), ""
        )
        return f"{option or '.'.join(place)}: {error.message}" if place else error.message
