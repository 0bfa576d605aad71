"""Calls about the controllers, and about what etcd holds as a whole."""

import asyncio
from pathlib import Path

from fleet.v1 import control_pb2
from fleet_core.backup_file import BackupFileError, read_backup, write_backup
from fleetctl.client.backups import backup_view, put_back, restored_view, take_backup
from fleetctl.client.base import Part
from fleetctl.client.controller_values import Backup, Controller, Restored
from fleetctl.client.controllers import look
from fleetctl.client.errors import FleetError
from fleetctl.client.rollouts import new_request_id
from fleetctl.client.values import from_view


class Keeping(Part):
    async def controllers(self) -> tuple[Controller, ...]:
        """All controllers that are named to this client or registered, by name, each asked itself, also while none leads.

        Raises Unreachable where none of them answers.
        """
        return tuple(from_view(seen.view(), Controller) for seen in await look(self._connection))

    async def remove_controller(self, controller: str) -> None:
        """Forget a controller that is gone for good; one that runs comes back with its next start."""
        request = control_pb2.RemoveControllerRequest(request_id=new_request_id(), controller=controller)
        await self._connection.call(lambda stub: stub.RemoveController, request, mutation=True)

    async def backup(self, path: str | Path) -> Backup:
        """Write what etcd holds of the fleet into a file, in whose place it comes; its owner alone may read it.

        Certificates, keys and deployed code are not inside.
        """
        file = _file(path)
        taken = await take_backup(self._connection)
        try:
            await asyncio.to_thread(write_backup, file, taken)
        except OSError as error:
            raise FleetError(f"{file} cannot be written: {error.strerror}") from error
        return from_view(backup_view(file, taken), Backup)

    async def restore(self, path: str | Path, *, another_fleet: bool = False) -> Restored:
        """Put a backup in the place of everything that etcd holds, and wait until a controller leads in the new era.

        No worker is stopped or restarted; rollouts that were under way when it was taken are paused. `another_fleet`: also where
        etcd holds the records of another fleet, which is Refused otherwise.
        """
        try:
            wanted = await asyncio.to_thread(read_backup, _file(path))
        except BackupFileError as error:
            raise FleetError(str(error)) from error
        done = await put_back(self._connection, wanted, another_fleet=another_fleet)
        return from_view(restored_view(done), Restored)


def _file(path: str | Path) -> Path:
    return Path(path).expanduser()
