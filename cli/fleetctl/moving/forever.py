"""forever: the files its `start` takes, and the processes its `list` shows. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from fleet_core.checked import CheckError
from fleet_core.spec import AppSpec
from fleetctl.fleet_file.command import usual_runtime
from fleetctl.fleet_file.document import WantedApp
from fleetctl.fleet_file.size import Wanted
from fleetctl.fleet_file.tree import refuse
from fleetctl.moving.imported import Imported
from fleetctl.pm2 import values
from fleetctl.pm2.ecosystem import read_json
from fleetctl.target import sanitised

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ROW = re.compile(r"^data:\s+\[\d+\]\s+(?P<uid>\S+)\s.*?\s(?P<forever>\d+)\s+(?P<pid>\d+)\s+\S+\s+\S+\s*$")
_KEPT = frozenset(
    {
        "uid",
        "append",
        "script",
        "sourceDir",
        "workingDir",
        "args",
        "command",
        "max",
        "minUptime",
        "spinSleepTime",
        "killSignal",
        "env",
        "killTree",
    }
)
_LOST = {
    "watch": "there is no watch mode",
    "watchDirectory": "there is no watch mode",
    "watchIgnore": "there is no watch mode",
    "logFile": "logs are kept by the agent: fleetctl logs",
    "outFile": "logs are kept by the agent: fleetctl logs",
    "errFile": "logs are kept by the agent: fleetctl logs",
    "pidFile": "fleetctl ps -o json has the pids",
}


@dataclass(frozen=True, slots=True)
class Process:
    """One of `forever list`."""

    uid: str
    pid: int


def processes_of(listing: str) -> list[Process]:
    """What `forever list --plain` shows."""
    rows = (_ROW.match(_COLOUR.sub("", line)) for line in listing.splitlines())
    return [Process(row["uid"], int(row["pid"])) for row in rows if row is not None]


def app_of_process(process: Process, argv: Sequence[str], cwd: str) -> Imported:
    """`argv`, `cwd`: of the process, from /proc. Raises FleetFileError."""
    name = sanitised(process.uid)
    app = _wanted("forever list", name, {"argv": tuple(argv), "cwd": cwd})
    return Imported(
        (app,), (f"{name}: env, max, minUptime: forever list does not show them: add what you gave it", _serving(name))
    )


def apps_of_forever(text: str, source: str) -> Imported:
    """A file for `forever start FILE`: one app, or a list. Raises FleetFileError."""
    found = read_json(text, source)
    entries = found if isinstance(found, list) else [found]
    if not entries or not all(isinstance(entry, dict) and isinstance(entry.get("script"), str) for entry in entries):
        raise refuse(source, None, "this is not forever's file: it wants {uid: …, script: …}, or a list of them")
    apps: list[WantedApp] = []
    warnings: list[str] = []
    for entry in entries:
        name = sanitised(str(entry.get("uid") or PurePath(entry["script"]).stem))
        apps.append(_wanted(source, name, _fields(entry, source)))
        warnings += [
            f"{name}: {key}: {_LOST.get(key, 'forever has no such option')}"
            for key, value in entry.items()
            if key not in _KEPT and value is not False
        ]
        warnings.append(_serving(name))
    return Imported(tuple(apps), tuple(warnings))


def _serving(name: str) -> str:
    return (
        f"{name}: listen: forever does not say whether it serves requests: give it listen: port and a route if it does"
    )


def _fields(entry: Mapping[str, Any], source: str) -> dict[str, Any]:
    folder = str(entry.get("sourceDir") or "/")
    script = str(PurePath(folder) / entry["script"])
    try:
        command = values.words(entry.get("command", "node"))
        args = values.words(entry.get("args", []))
        restart: dict[str, Any] = {"stable_seconds": values.milliseconds(entry.get("minUptime", 1000)) or 1}
        if pause := values.milliseconds(entry.get("spinSleepTime", 0)):
            restart["backoff_initial_seconds"] = restart["backoff_max_seconds"] = pause
        if "max" in entry:
            restart["max_restarts"] = max(0, values.whole(entry["max"]) - 1)
    except ValueError as error:
        raise refuse(source, None, str(error)) from error
    environment = entry.get("env", {})
    return {
        "argv": (*command, script, *args),
        "cwd": str(entry.get("workingDir") or folder),
        "restart": restart,
        # forever ends its processes with SIGKILL unless it is told otherwise (forever-monitor's killSignal).
        "stop": {"signal": str(entry.get("killSignal", "SIGTERM"))},
        "env": {str(key): values.text(value) for key, value in environment.items()}
        if isinstance(environment, dict)
        else {},
    }


def _wanted(source: str, name: str, fields: dict[str, Any]) -> WantedApp:
    runtime = usual_runtime(fields["argv"] or ("",))
    given = {"listen_mode": "none", "rollout": {"max_surge": 0, "max_unavailable": 1}, **fields}
    try:
        return WantedApp(AppSpec.model_validate({"name": name, "runtime": runtime, **given}), Wanted(1))
    except CheckError as error:
        raise refuse(source, None, f"{name}: {error}") from error
