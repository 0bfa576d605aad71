"""`fleet-controller restore FILE`: what `fleetctl restore` does, for when no controller leads."""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from fleet_controller.leader import LEADER_KEY, Election
from fleet_controller.restoring import RestoreRefused, restore
from fleet_controller.store.etcd import EtcdStore
from fleet_controller.store.interface import Store, StoreError
from fleet_core.backup_file import Backup, BackupFileError, read_backup
from fleet_core.config import ControllerConfig

COMMAND = "restore"
_FAILED, _REFUSED = 1, 5
_ELECTION_SECONDS = 15.0


def add_command(commands: Any) -> None:
    """`commands`: the subparsers of fleet-controller."""
    command = commands.add_parser(
        COMMAND, help="put a backup in the place of what etcd holds, while no controller leads; else `fleetctl restore`"
    )
    command.add_argument("file", type=Path, help="what `fleetctl backup` wrote")
    command.add_argument("--config", type=Path, required=True, help="the controller's configuration file (TOML)")
    command.add_argument(
        "--above-era",
        type=int,
        default=0,
        metavar="ERA",
        help="the highest era that hosts say they obeyed; needed after an earlier restore that etcd lost again",
    )
    command.add_argument(
        "--another-fleet", action="store_true", help="also where etcd holds the records of another fleet"
    )


async def run(config: ControllerConfig, arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    try:
        backup = await asyncio.to_thread(read_backup, arguments.file)
    except BackupFileError as error:
        return _say(str(error), _FAILED)
    store = EtcdStore(config.etcd, (config.etcd_tls or config.tls).files())
    try:
        return await _restore(store, config, backup, arguments)
    except RestoreRefused as refusal:
        return _say(str(refusal), _REFUSED)
    except (StoreError, TimeoutError) as error:
        return _say(f"{error or 'no lead could be taken in time'}; say it again once etcd answers", _FAILED)
    finally:
        await store.close()


async def _restore(store: Store, config: ControllerConfig, backup: Backup, arguments: argparse.Namespace) -> int:
    leader = (await store.read(LEADER_KEY)).items.get(LEADER_KEY)
    if leader is not None:
        name = json.loads(leader.value)["name"]
        return _say(f"controller {name} leads: use `fleetctl restore {arguments.file}`, or stop it first", _REFUSED)
    # Not this controller's own value: its service must not take this for a term of its own and end it.
    value = json.dumps({"name": f"{config.name} (restore)", "address": ""}).encode()
    async with asyncio.timeout(_ELECTION_SECONDS):
        term = await Election(store, value).campaign()
    try:
        restored = await restore(
            store, term, backup, arguments.above_era, lambda: None, allow_another_fleet=arguments.another_fleet
        )
    finally:
        await term.resign()
    print(f"restored {restored.records} records: era {restored.era}; start the controllers")
    if restored.paused_apps:
        print(f"paused: {', '.join(restored.paused_apps)}; `fleetctl rollout resume APP` or `rollout abort APP`")
    return 0


def _say(problem: str, status: int) -> int:
    print(f"fleet-controller: {problem}", file=sys.stderr)
    return status
