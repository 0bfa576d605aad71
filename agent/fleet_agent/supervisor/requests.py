"""Requests as values: what came over the socket, checked before it can change anything."""

from collections.abc import Mapping
from typing import Any

from fleet_agent.supervisor.protocol import Key, Launch, ProtocolError, key_from_json, launch_from_json

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_LAST_SIGNAL = 64
_RESTART_MODES = ("always", "on_failure", "never")
_SOFT_AND_HARD = 2
MAX_LAUNCH_BYTES = 1024 * 1024
"""So that a report of a worker always fits into a message."""


def key_of(message: Mapping[str, Any]) -> Key:
    """Raises ProtocolError. The app's name becomes part of paths, hence the check."""
    key = key_from_json(_field(message, "key", dict))
    if not key.app or not _NAME_CHARACTERS.issuperset(key.app):
        raise ProtocolError(f"app name {key.app!r} may only hold a-z, 0-9 and -")
    if key.slot < 1 or key.generation < 0:
        raise ProtocolError(f"slot {key.slot} or generation {key.generation} is out of range")
    return key


def launch_of(message: Mapping[str, Any]) -> Launch:
    """Raises ProtocolError."""
    launch = launch_from_json(_field(message, "launch", dict))
    if not _is_command(launch) or "\0" in _texts_of(launch):
        raise ProtocolError("argv, cwd and env must be texts without NUL")
    if not launch.argv or not launch.argv[0] or any("=" in name or not name for name in launch.env):
        raise ProtocolError("argv is empty, or a name in env is not valid")
    _check_policy(launch)
    _check_contact(launch)
    if len(launch.text) > MAX_LAUNCH_BYTES:
        raise ProtocolError(f"launch is longer than {MAX_LAUNCH_BYTES} bytes")
    return launch


def signal_of(message: Mapping[str, Any]) -> int:
    return _signal(_field(message, "signal", int))


def seconds_of(message: Mapping[str, Any], name: str) -> float:
    return _seconds(name, _field(message, name, (int, float)))


def text_of(message: Mapping[str, Any], name: str) -> str:
    return str(_field(message, name, str))


def pid_of(message: Mapping[str, Any]) -> int:
    return int(_field(message, "pid", int))


def ready_of(message: Mapping[str, Any]) -> bool:
    return bool(_field(message, "ready", bool))


def protocol_of(message: Mapping[str, Any]) -> int:
    return int(_field(message, "protocol", int))


def _is_command(launch: Launch) -> bool:
    return isinstance(launch.argv, list) and isinstance(launch.env, dict)


def _texts_of(launch: Launch) -> str:
    """All in one. Raises ProtocolError where one is no text."""
    try:
        return "".join([launch.cwd, *launch.argv, *launch.env, *launch.env.values()])
    except TypeError as error:
        raise ProtocolError("argv, cwd and env must be texts without NUL") from error


def _check_policy(launch: Launch) -> None:
    _signal(launch.stop_signal)
    for name in ("grace_seconds", "backoff_initial_seconds", "backoff_max_seconds", "window_seconds", "stable_seconds"):
        _seconds(name, getattr(launch, name))
    _seconds("log_max_age_seconds", launch.log_max_age_seconds)
    for name in ("max_restarts", "log_max_bytes", "log_files", "umask", "memory_max_bytes", "pids_max"):
        value = getattr(launch, name)
        if not isinstance(value, int) or value < 0:
            raise ProtocolError(f"{name} must be a whole number, not negative")
    if launch.restart_mode not in _RESTART_MODES:
        raise ProtocolError(f"restart_mode must be one of {', '.join(_RESTART_MODES)}")
    if not _whole_numbers(launch.stop_exit_codes):
        raise ProtocolError("stop_exit_codes must be whole numbers")
    _check_identity(launch)


def _check_identity(launch: Launch) -> None:
    if not all(isinstance(name, str) and "\0" not in name for name in (launch.user, launch.group)):
        raise ProtocolError("user and group must be texts without NUL")
    if not isinstance(launch.nice, int) or not isinstance(launch.resource_limits, dict):
        raise ProtocolError("nice must be a whole number, and resource_limits an object")
    for name, limits in launch.resource_limits.items():
        if not _whole_numbers(limits) or len(limits) != _SOFT_AND_HARD or min(limits) < -1:
            raise ProtocolError(f"resource limit {name} must be two whole numbers, -1 for unlimited")
    if not isinstance(launch.cpu_max_cores, (int, float)) or not 0 <= launch.cpu_max_cores < float("inf"):
        raise ProtocolError("cpu_max_cores must be a number, not negative")


def _whole_numbers(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, int) for value in values)


def _check_contact(launch: Launch) -> None:
    """Readiness, channel and listening socket."""
    for name in ("notify", "channel", "shutdown_message"):
        if not isinstance(getattr(launch, name), bool):
            raise ProtocolError(f"{name} must be true or false")
    _seconds("watchdog_seconds", launch.watchdog_seconds)
    if launch.ready_by not in ("", "notify", "message", "listening"):
        raise ProtocolError(f"ready_by {launch.ready_by!r} is not known")
    if (launch.ready_by == "notify" or launch.watchdog_seconds) and not launch.notify:
        raise ProtocolError("READY=1 and a watchdog need notify")
    if (launch.ready_by in ("message", "listening") or launch.shutdown_message) and not launch.channel:
        raise ProtocolError("messages need channel")
    if not isinstance(launch.listen_address, str) or "\0" in launch.listen_address:
        raise ProtocolError("listen_address must be a text")
    if not isinstance(launch.listen_port, int) or not 0 <= launch.listen_port < 65_536:
        raise ProtocolError("listen_port must be a port number, 0 for none")
    if launch.listen_port and not launch.listen_address:
        raise ProtocolError("listen_port needs listen_address")


def _signal(value: object) -> int:
    if not isinstance(value, int) or not 1 <= value <= _LAST_SIGNAL:
        raise ProtocolError(f"signal {value!r} is not a signal number")
    return value


def _seconds(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ProtocolError(f"{name} must be a number of seconds, not negative")
    return float(value)


def _field(message: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    value = message.get(name)
    if not isinstance(value, kind):
        raise ProtocolError(f"{name} is missing or has the wrong type")
    return value
