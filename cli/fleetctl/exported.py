"""What runs, as the entries of a fleet file. Pure."""

from collections.abc import Sequence
from typing import Any

from fleet.v1 import control_pb2
from fleetctl.client.errors import NotFound
from fleetctl.client.spec import known_spec
from fleetctl.fleet_file.size import Wanted
from fleetctl.fleet_file.writer import app_entry


def exported(present: Sequence[control_pb2.App], names: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """App's name → entry, of those named, or all; and what has to be known of others. Raises FleetError."""
    by_name = {app.name: app for app in present}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise NotFound(f"no app is named {missing[0]}", "`fleetctl ls` shows the apps")
    entries, notes = {}, []
    for app in (by_name[name] for name in dict.fromkeys(names)) if names else sorted(present, key=lambda app: app.name):
        if app.state == control_pb2.APP_STATE_STOPPED and names:
            notes.append(f"{app.name} is stopped: to apply this file starts it")
        elif app.state != control_pb2.APP_STATE_RUNNING:
            word = "stopped" if app.state == control_pb2.APP_STATE_STOPPED else "being removed"
            notes.append(f"{app.name} is {word}: left out")
            continue
        entries[app.name] = app_entry(known_spec(app.spec), _size(app), app.artifact_digest)
    return entries, tuple(notes)


def _size(app: control_pb2.App) -> Wanted:
    if app.size_mode == control_pb2.SIZE_MODE_PINNED:
        return Wanted(hosts={host: count for host, count in app.placement.items() if count})
    return Wanted(count=app.size)
