"""StrongLoop Process Manager: the services that strong-pm keeps in its folder. Pure, but for reading its SQLite file.

Older ones keep `strong-pm.json`, newer ones `strong-mesh.db` (strong-pm's lib/server.js): the same models, with the same names.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from fleet_core.checked import CheckError
from fleet_core.spec import AppSpec, Runtime
from fleetctl.fleet_file.document import WantedApp
from fleetctl.fleet_file.size import PerCore, Wanted
from fleetctl.fleet_file.tree import refuse
from fleetctl.moving.imported import Imported
from fleetctl.pm2 import values
from fleetctl.target import sanitised

MEMORY_FILE, DATABASE_FILE = "strong-pm.json", "strong-mesh.db"
_BASE_PORT = 3000
"""A service listens on this and its number, unless its environment says PORT (strong-pm's README)."""
_SERVICES, _INSTANCES = "ServerService", "ServiceInstance"

Record = Mapping[str, Any]


def models_of_json(text: str, source: str) -> dict[str, list[Record]]:
    """Raises FleetFileError."""
    try:
        models = json.loads(text)["models"]
        return {
            name: [json.loads(record) for record in models.get(name, {}).values()] for name in (_SERVICES, _INSTANCES)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise refuse(source, None, f"this is not strong-pm's {MEMORY_FILE}") from None


def models_of_database(path: Path) -> dict[str, list[Record]]:
    """Raises FleetFileError."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            services = database.execute('SELECT * FROM "ServerService"').fetchall()
            instances = database.execute('SELECT * FROM "ServiceInstance"').fetchall()
    except sqlite3.Error as error:
        raise refuse(path, None, f"this is not strong-pm's {DATABASE_FILE}: {error}") from None
    return {_SERVICES: [_record(row) for row in services], _INSTANCES: [_record(row) for row in instances]}


def apps_of_slc(models: Mapping[str, Sequence[Record]], base: Path, source: str) -> Imported:
    """`base`: strong-pm's folder. Raises FleetFileError."""
    first: dict[Any, Record] = {}
    for each in models[_INSTANCES]:
        first.setdefault(each.get("serverServiceId"), each)
    apps: list[WantedApp] = []
    warnings: list[str] = []
    for service in models[_SERVICES]:
        name = sanitised(str(service.get("name", "")))
        instance = first.get(service.get("id"))
        if not service.get("started", True) or instance is None or not instance.get("started", True):
            warnings.append(f"{name}: it does not run: left out")
            continue
        try:
            apps.append(WantedApp(_spec(service, instance, name, base), _size(instance)))
        except CheckError as error:
            raise refuse(source, None, f"{name}: {error}") from error
        warnings.append(f"{name}: cwd: strong-pm's own copy of the code: move it to where your deploys go")
        if instance.get("tracingEnabled"):
            warnings.append(f"{name}: tracing: a fleet file has nothing like it: fleetctl top shows processes")
    return Imported(tuple(apps), tuple(warnings))


def _spec(service: Record, instance: Record, name: str, base: Path) -> AppSpec:
    environment = service.get("env") or {}
    env = {str(key): values.text(value) for key, value in environment.items()} if isinstance(environment, dict) else {}
    port = env.pop("PORT", str(_BASE_PORT + int(service.get("id", 0))))
    return AppSpec.model_validate(
        {
            "name": name,
            "argv": ("node", "."),
            "cwd": str(base / "svc" / str(instance.get("id")) / "work" / "current"),
            "env": env,
            "runtime": Runtime.NODE,
            "route": {"http": f":{port}"},
        }
    )


def _size(instance: Record) -> Wanted:
    """`cpus` is what `slc ctl set-size` was given; `setSize` what came of it."""
    for given in (instance.get("cpus"), instance.get("setSize")):
        text = str(given or "")
        if text.upper() == "CPU":
            return Wanted(PerCore())
        if text.isascii() and text.isdecimal() and int(text):
            return Wanted(int(text))
    return Wanted(1)


def _record(row: sqlite3.Row) -> Record:
    """Objects are kept as JSON."""
    record: dict[str, Any] = {}
    for key in row.keys():  # noqa: SIM118 (a Row is no mapping)
        value = row[key]
        if isinstance(value, str) and value[:1] in ("{", "["):
            try:
                value = json.loads(value)
            except ValueError:
                value = row[key]
        record[key] = value
    return record
