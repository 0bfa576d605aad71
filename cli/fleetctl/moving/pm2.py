"""PM2's list of processes: `pm2 jlist`, or the dump that `pm2 save` writes. Pure."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fleetctl.fleet_file.tree import refuse
from fleetctl.moving.imported import Imported
from fleetctl.pm2.attributes import ATTRIBUTES
from fleetctl.pm2.convert import convert
from fleetctl.pm2.ecosystem import Ecosystem

_DEFAULTS: Mapping[str, Any] = {
    "automation": True,
    "autostart": True,
    "autorestart": True,
    "filter_env": [],
    "instance_var": "NODE_APP_INSTANCE",
    "kill_retry_time": 100,
    "merge_logs": True,
    "namespace": "default",
    "pmx": True,
    "treekill": True,
    "vizion": True,
    "watch": False,
    "windowsHide": True,
}
"""What PM2 writes into every process (lib/API/schema.json, Common.js): of no interest where nobody chose it."""
_OF_PM2 = frozenset(
    {"script", "env", "env_*", "name", "cwd", "instances", "username", "out_file", "error_file", "pid_file"}
)
_OF_SHELLS = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|SHLVL|PWD|OLDPWD|TERM|COLORTERM|LANG|LANGUAGE|LC_\w+|MAIL|HOSTNAME|EDITOR|DISPLAY|LS_COLORS|TZ|"
    r"(?:SSH|XDG|NVM|DBUS|TMUX|SUDO|PM2|npm)_\w+|INVOCATION_ID|JOURNAL_STREAM"
)
_OWN_VARIABLES = frozenset({"unique_id", "NODE_APP_INSTANCE", "_"})


def apps_of_pm2(text: str, source: str, shell: Mapping[str, str]) -> Imported:
    """`shell`: variables that are not the app's, because a shell has them anyway. Raises FleetFileError."""
    processes = _processes(text, source)
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    left_out: dict[str, None] = {}
    for process in processes:
        name = str(process.get("name", ""))
        if process.get("status") == "online":
            by_name.setdefault(name, []).append(process)
        else:
            left_out[name] = None
    warnings = [f"{name}: it does not run: left out" for name in left_out if name not in by_name]
    apps = [_app(instances, shell) for instances in by_name.values()]
    if not apps:
        return Imported((), tuple(warnings))
    converted = convert(Ecosystem(source, Path("/"), tuple(apps)))
    told = [
        f"{app['name']}: env: look whether each of these is the app's own: {', '.join(app['env'])}"
        for app in apps
        if app["env"]
    ]
    return Imported(converted.apps, (*warnings, *converted.warnings, *told))


def _processes(text: str, source: str) -> Iterable[Mapping[str, Any]]:
    """What is known of each process, in either form."""
    start = text.find("[{") if "[{" in text else text.find("[")
    try:
        listed = json.loads(text[start:] if start >= 0 else text)
    except ValueError:
        raise refuse(source, None, "this is not PM2's list of processes: `pm2 jlist` prints it") from None
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise refuse(source, None, "this is not PM2's list of processes: `pm2 jlist` prints it")
    return [each.get("pm2_env", each) for each in listed]


def _app(instances: list[Mapping[str, Any]], shell: Mapping[str, str]) -> dict[str, Any]:
    """The entry of an ecosystem file that would start these."""
    first = instances[0]
    app = {
        name: first[name]
        for name in ATTRIBUTES
        if name in first
        and name not in _OF_PM2
        and first[name] != _DEFAULTS.get(name)
        and first[name] not in (None, [])
    }
    environment = first.get("env", {})
    return {
        **app,
        **_log_files(first),
        "name": str(first.get("name", "")),
        "script": str(first.get("pm_exec_path", "")),
        "cwd": str(first.get("pm_cwd", "/")),
        "instances": len(instances),
        "env": _variables(environment if isinstance(environment, dict) else {}, str(first.get("name")), shell),
    }


def _log_files(process: Mapping[str, Any]) -> dict[str, str]:
    """Those that somebody chose: PM2 names its own after the app (Common.js, prepareAppConf)."""
    name = re.sub(r"[^a-zA-Z0-9.-]", "-", str(process.get("name", "")))
    chosen = {}
    for attribute, key, word in (("out_file", "pm_out_log_path", "out"), ("error_file", "pm_err_log_path", "error")):
        path = str(process.get(key, ""))
        if path and not re.fullmatch(rf"{re.escape(name)}-{word}(-\d+)?\.log", path.rpartition("/")[2]):
            chosen[attribute] = path
    return chosen


def _variables(environment: Mapping[str, Any], name: str, shell: Mapping[str, str]) -> dict[str, Any]:
    """Without those of PM2 and of every shell, and those that this shell has with the same value."""
    return {
        key: value
        for key, value in environment.items()
        if key not in _OWN_VARIABLES and key != name and not _OF_SHELLS.fullmatch(key) and shell.get(key) != str(value)
    }
