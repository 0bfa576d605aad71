"""`backup` and `restore`: what etcd holds of the fleet, in a file, and back again."""

import asyncio
from pathlib import Path

import click

from fleet.v1 import control_pb2
from fleet_core.backup_file import Backup, BackupFileError, read_backup, write_backup
from fleetctl.client.backups import backup_view, kinds_of, put_back, restored_view, take_backup
from fleetctl.command import fleet_command
from fleetctl.connection import Connection
from fleetctl.errors import CliError, ExitCode
from fleetctl.output import Output
from fleetctl.settings import Settings
from fleetctl.wording import count, size

NOT_INSIDE = "not inside: certificates and their keys, and deployed code (the controllers' artifact store)"


@fleet_command("backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def backup(settings: Settings, file: Path) -> None:
    """Write what etcd holds of the fleet into a file.

    Apps with their revisions and rollouts, hosts, balancers: everything as it was at one moment. It takes the place of FILE, and
    is readable by its owner alone, because it holds the apps' environments. Certificates, keys and deployed code are not inside.
    """
    output = Output(settings)
    taken = asyncio.run(_take(settings))
    try:
        write_backup(file, taken)
    except OSError as error:
        raise CliError(ExitCode.FAILED, f"{file} cannot be written: {error.strerror}") from error
    if settings.structured:
        output.document(backup_view(file, taken))
    elif settings.quiet:
        output.names([str(file)])
    else:
        written = file.stat().st_size
        output.line((str(file), "bold"), f": {_content(taken)}; era {taken.era}, {size(written)}")
        output.note(NOT_INSIDE)


@fleet_command("restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--another-fleet", is_flag=True, help="Also where etcd holds the records of another fleet.")
def restore(settings: Settings, file: Path, another_fleet: bool) -> None:  # noqa: FBT001
    """Put a backup in the place of what etcd holds.

    Everything in etcd is replaced, and the era is raised, so that no controller of before is obeyed again. No worker is stopped
    or restarted. Rollouts that were under way when the backup was taken are paused.
    """
    output = Output(settings)
    try:
        wanted = read_backup(file)
    except BackupFileError as error:
        raise CliError(ExitCode.FAILED, str(error)) from error
    output.note(f"{file}: {_content(wanted)}; taken {wanted.taken_at}, era {wanted.era}")
    output.confirm("Replace everything that etcd holds of the fleet by this backup?")
    done = asyncio.run(_restore(settings, wanted, another_fleet=another_fleet))
    if settings.structured:
        output.document(restored_view(done))
        return
    output.line((f"restored: era {done.era}, {count(done.records, 'record')}", "bold"))
    for app in done.paused_apps:
        output.line(
            f"  {app}: its rollout is paused: go on with `fleetctl rollout resume {app}`, or back with "
            f"`fleetctl rollout abort {app}`"
        )
    output.note("`fleetctl status` shows what else there is to do")


async def _take(settings: Settings) -> Backup:
    async with Connection.open(settings) as connection:
        return await take_backup(connection)


async def _restore(settings: Settings, wanted: Backup, *, another_fleet: bool) -> control_pb2.RestoreResponse:
    async with Connection.open(settings) as connection:
        return await put_back(connection, wanted, another_fleet=another_fleet)


def _content(wanted: Backup) -> str:
    kinds = kinds_of(wanted)
    named = (("apps", "app"), ("revisions", "revision"), ("hosts", "host"), ("balancers", "balancer"))
    return ", ".join(count(kinds[kind], noun) for kind, noun in named)
