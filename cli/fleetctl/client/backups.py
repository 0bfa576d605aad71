"""Takes what etcd holds of the fleet, and puts it back."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

from fleet.v1 import control_pb2
from fleet_core.backup_file import Backup
from fleet_core.version import program_version
from fleetctl.client.connection import Connection
from fleetctl.client.errors import FleetError, StillRunning

_PREFIX = "/fleet/v1/"
_MESSAGE_BYTES = 512 * 1024
_LEADING_SECONDS = 30.0
_PAUSE_SECONDS = 0.3


async def take_backup(connection: Connection) -> Backup:
    """Everything as it was at one moment. Raises FleetError, also where not all of it arrived."""
    header: control_pb2.BackupHeader | None = None
    records: dict[str, bytes] = {}
    parts = connection.stream(lambda stub: stub.Backup, control_pb2.BackupRequest())
    async with aclosing(parts):
        async for part in parts:
            if part.WhichOneof("part") == "header":
                header = part.header
            records.update((record.key, record.value) for record in part.records.records)
    if header is None or len(records) != header.records:
        raise FleetError("the backup did not arrive whole, and nothing was written: say it again")
    taken_at = datetime.now(UTC).isoformat(timespec="seconds")
    return Backup(header.fleet_id, header.era, header.etcd_revision, records, taken_at, program_version())


async def put_back(connection: Connection, wanted: Backup, *, another_fleet: bool) -> control_pb2.RestoreResponse:
    """Returns once a controller leads in the new era. Raises FleetError."""
    # Also finds the leader.
    await connection.call(lambda stub: stub.GetInfo, control_pb2.GetInfoRequest(), mutation=True)
    messages = _messages(wanted, another_fleet=another_fleet)
    done = await connection.send(lambda stub: stub.Restore, messages)
    await _led_anew(connection, done.era)
    return done


async def _led_anew(connection: Connection, era: int) -> None:
    """Wait until a controller leads in the new era. Raises StillRunning."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + _LEADING_SECONDS
    while clock() < deadline:
        info = await connection.call(lambda stub: stub.GetInfo, control_pb2.GetInfoRequest(), mutation=True)
        if info.epoch.era >= era:
            return
        await asyncio.sleep(_PAUSE_SECONDS)
    raise StillRunning(f"etcd was restored, and no controller leads in era {era} yet", "see `fleetctl status`")


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


def kinds_of(wanted: Backup) -> Counter[str]:
    return Counter(key.removeprefix(_PREFIX).partition("/")[0] for key in wanted.records)


def backup_view(file: Path, taken: Backup) -> dict[str, object]:
    return {
        "file": str(file),
        "fleet_id": taken.fleet_id,
        "era": taken.era,
        "etcd_revision": taken.etcd_revision,
        "records": len(taken.records),
        "taken_at": taken.taken_at,
        **kinds_of(taken),
    }


def restored_view(done: control_pb2.RestoreResponse) -> dict[str, object]:
    return {"era": done.era, "records": done.records, "paused_apps": list(done.paused_apps)}
