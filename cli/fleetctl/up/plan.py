"""From a data folder and what was asked for, to the settings of this run: recorded ones, grown where asked."""

import os
import secrets
from pathlib import Path

from fleetctl.up.claims import PortClaims
from fleetctl.up.errors import UpError
from fleetctl.up.folder import LockedFolder, memory_of
from fleetctl.up.layout import default_data_dir, preferred_block
from fleetctl.up.ports import BLOCKS, choose_blocks
from fleetctl.up.settings import Settings, Wanted, cgroup_of, etcd_members_of, resolve


def usual_data_dir() -> Path:
    """Raises UpError where the user has no home."""
    try:
        return default_data_dir(os.environ.get("XDG_DATA_HOME", ""), Path.home())
    except RuntimeError as error:
        raise UpError("there is no home folder to keep the fleet in: name one with --data-dir") from error


def settle(folder: LockedFolder, wanted: Wanted, claims: PortClaims) -> Settings:
    """Settings to run with, recorded, their blocks of ports claimed. Raises UpError."""
    recorded = folder.read_settings()
    hosts, balancers, controllers = resolve(wanted, recorded)
    etcd_members = etcd_members_of(wanted, recorded)
    try:
        held = [recorded.system_block, *recorded.host_blocks] if recorded else []
        for block in held:
            if not claims.claim(block):
                raise UpError(
                    f"the ports from {block} that {folder.data_dir / 'up.json'} records belong to another running "
                    "`fleetctl up`: stop that one, or use another --data-dir"
                )
        first = preferred_block(folder.data_dir, is_default=_is_usual(folder.data_dir), blocks=BLOCKS)
        more = choose_blocks(1 + hosts - len(held), first, claims.claim_unused)
    except OSError as error:
        raise UpError(f"ports cannot be looked for: {error.strerror}") from error
    blocks = [*held, *more]
    settings = Settings(
        fleet_id=recorded.fleet_id if recorded else secrets.token_hex(6),
        hosts=hosts,
        balancers=balancers,
        controllers=controllers,
        etcd_members=etcd_members,
        system_block=blocks[0],
        host_blocks=tuple(blocks[1:]),
        cgroup=cgroup_of(wanted, recorded),
        memory=recorded.memory if recorded and folder.was_interrupted() else memory_of(os.getuid()),
    )
    if settings != recorded:
        folder.write_settings(settings)
    return settings


def _is_usual(data_dir: Path) -> bool:
    try:
        return data_dir == usual_data_dir().resolve()
    except UpError:
        return False
