"""`backup` and `restore`: what etcd holds of the fleet, in a file, and back again."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import click

from fleet.v1 import control_pb2
from fleet_core.backup_file import Backup, BackupFileError, read_backup, write_backup
from fleet_core.version import program_version
from fleetctl.command import fleet_command
from fleetctl.connection import Connection
from fleetctl.errors import CliError, ExitCode
from fleetctl.output import Output
from fleetctl.settings import Settings
from fleetctl.wording import count, size

_PREFIX = "/fleet/v1/"
_MESSAGE_BYTES = 512 * 1024
_LEADING_SECONDS = 30.0
_PAUSE_SECONDS = 0.3
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
        output.document(_view(file, taken))
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
        output.document({"era": done.era, "records": done.records, "paused_apps": list(done.paused_apps)})
        return
    output.line((f"restored: era {done.era}, {count(done.records, 'record')}", "bold"))
    for app in done.paused_apps:
        output.line(
            f"  {app}: its rollout is paused: go on with `fleetctl rollout resume {app}`, or back with "
            f"`fleetctl rollout abort {app}`"
        )
    output.note("`fleetctl status` shows what else there is to do")


async def _take(settings: Settings) -> Backup:
    header: control_pb2.BackupHeader | None = None
    records: dict[str, bytes] = {}
    async with Connection.open(settings) as connection:
        parts = connection.stream(lambda stub: stub.Backup, control_pb2.BackupRequest())
        async with aclosing(parts):
            async for part in parts:
                if part.WhichOneof("part") == "header":
                    header = part.header
                records.update((record.key, record.value) for record in part.records.records)
    if header is None or len(records) != header.records:
        raise CliError(ExitCode.FAILED, "the backup did not arrive whole, and nothing was written: say it again")
    taken_at = datetime.now(UTC).isoformat(timespec="seconds")
    return Backup(header.fleet_id, header.era, header.etcd_revision, records, taken_at, program_version())


async def _restore(settings: Settings, wanted: Backup, *, another_fleet: bool) -> control_pb2.RestoreResponse:
    async with Connection.open(settings) as connection:
        # Also finds the leader.
        await connection.call(lambda stub: stub.GetInfo, control_pb2.GetInfoRequest(), mutation=True)
        messages = _messages(wanted, another_fleet=another_fleet)
        done = await connection.send(lambda stub: stub.Restore, messages)
        await _led_anew(connection, done.era)
        return done


async def _led_anew(connection: Connection, era: int) -> None:
    """Wait until a controller leads in the new era. Raises CliError."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + _LEADING_SECONDS
    while clock() < deadline:
        info = await connection.call(lambda stub: stub.GetInfo, control_pb2.GetInfoRequest(), mutation=True)
        if info.epoch.era >= era:
            return
        await asyncio.sleep(_PAUSE_SECONDS)
    raise CliError(
        ExitCode.STILL_RUNNING, f"etcd was restored, and no controller leads in era {era} yet", "see `fleetctl status`"
    )


async def _messages(wanted: Backup, *, another_fleet: bool) -> AsyncIterator[control_pb2.RestoreRequest]:
    header = control_pb2.BackupHeader(
        fleet_id=wanted.fleet_id, era=wanted.era, etcd_revision=wanted.etcd_revision, records=len(wanted.records)
    )
    yield control_pb2.RestoreRequest(header=header, allow_another_fleet=another_fleet)
    message, weight = control_pb2.RestoreRequest(), 0
    for key, value in sorted(wanted.records.items()):
        if weight + len(value) > _MESSAGE_BYTES and weight:
            yield message
            message, weight = control_pb2.RestoreRequest(), 0
        message.records.records.add(key=key, value=value)
        weight += len(key) + len(value)
    if weight:
        yield message


def _content(wanted: Backup) -> str:
    kinds = _kinds(wanted)
    named = (("apps", "app"), ("revisions", "revision"), ("hosts", "host"), ("balancers", "balancer"))
    return ", ".join(count(kinds[kind], noun) for kind, noun in named)


def _kinds(wanted: Backup) -> Counter[str]:
    return Counter(key.removeprefix(_PREFIX).partition("/")[0] for key in wanted.records)


def _view(file: Path, taken: Backup) -> dict[str, object]:
    return {
        "file": str(file),
        "fleet_id": taken.fleet_id,
        "era": taken.era,
        "etcd_revision": taken.etcd_revision,
        "records": len(taken.records),
        "taken_at": taken.taken_at,
        **_kinds(taken),
    }
