"""An app described in a program: as an `AppSpec`, or by keywords that are its fields."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from fleet.v1 import types_pb2
from fleet_core.checked import Checked, CheckError, RuleError
from fleet_core.ids import SlotId
from fleet_core.route import RoutePolicy
from fleet_core.spec import (
    AppSpec,
    BuildPolicy,
    Identity,
    LimitPolicy,
    ListenMode,
    LogPolicy,
    PlacementPolicy,
    ReadyPolicy,
    RestartPolicy,
    RolloutPolicy,
    Runtime,
    StopPolicy,
)
from fleetctl.client.errors import FleetError, InvalidSpec, UsageError
from fleetctl.target import resolve

Names = str | Iterable[str]
"""One, or several."""


class DeployFields(TypedDict, total=False):
    """The fields of `AppSpec` but for its name, its argv and how its code is built."""

    cwd: str | Path
    env: Mapping[str, str]
    runtime: Runtime | str
    listen_mode: ListenMode | str
    declared_port: int
    ready: ReadyPolicy
    stop: StopPolicy
    restart: RestartPolicy
    rollout: RolloutPolicy
    route: RoutePolicy
    identity: Identity
    limits: LimitPolicy
    log: LogPolicy
    cron_restart: str
    env_files: Sequence[str]
    worker_env: Mapping[int, Mapping[str, str]]
    placement: PlacementPolicy
    counters: Mapping[str, int]


class SpecFields(DeployFields, total=False):
    """The fields of `AppSpec` but for its name and argv; what is left out has AppSpec's default."""

    build: BuildPolicy


def names_of(given: Names) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def texts_of(what: str, given: Mapping[str, str]) -> dict[str, str]:
    """Names and their values. Raises UsageError where one is no text."""
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise UsageError(f"{what} {name!r}: {value!r} is not valid: both are text")
    return dict(given)


def words_of(what: str, command: Names) -> tuple[str, ...]:
    """A command line: its words, or a text that is split as a shell would split it. Raises UsageError."""
    try:
        words = tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)
    except ValueError as error:
        raise UsageError(f"{what} {command!r} cannot be split into words: {str(error).lower()}") from error
    if not words:
        raise UsageError(f"{what} is empty: name a program and its arguments")
    return words


def slot_of(worker: str, app: str = "") -> SlotId:
    """The slot of "my-app/prod1/3"; `app`, where given too, must agree. Raises UsageError."""
    try:
        slot = SlotId.parse(worker)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if app and slot.app != app:
        raise UsageError(f"worker {worker} is not one of {app}")
    return slot


def spec_of(name: str, argv: Names, http: str, fields: Mapping[str, Any]) -> AppSpec:
    """As `fleetctl start` makes it: a script gets its interpreter, a program is looked for on PATH, Node is noticed.

    Raises InvalidSpec, NotFound where there is no such program here.
    """
    values = {key: plain(value) for key, value in fields.items()}
    folder = Path(values.get("cwd", ".")).expanduser().absolute()
    first, *others = words_of("argv", argv)
    command = resolve(first, tuple(others), folder)
    values |= {"name": name, "argv": command.argv, "cwd": str(folder)}
    values.setdefault("runtime", Runtime.NODE if command.node else Runtime.PROGRAM)
    if http:
        if "route" in fields:
            raise UsageError("http and route say the same: give one of them")
        values["route"] = {"http": http}
    return checked(values)


def checked(values: Mapping[str, Any]) -> AppSpec:
    """Raises InvalidSpec."""
    try:
        return AppSpec.model_validate(values)
    except (CheckError, RuleError) as error:
        raise InvalidSpec(str(error)) from error


def checked_spec(spec: AppSpec) -> AppSpec:
    """An AppSpec that was made directly knows its rules, not its types and bounds. Raises InvalidSpec."""
    return checked(spec.plain())


def known_spec(message: types_pb2.AppSpec) -> AppSpec:
    """Raises FleetError."""
    try:
        return AppSpec.from_proto(message)
    except ValueError as error:
        raise FleetError(
            f"this fleetctl cannot read what the controller has of {message.name}: upgrade fleetctl"
        ) from error


def plain(value: object) -> Any:
    """As msgspec takes it: policies by their fields, a path as text, mappings as dictionaries."""
    if isinstance(value, Checked):
        return value.plain()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value
