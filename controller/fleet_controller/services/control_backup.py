"""The calls of ControlService about backup and restore."""

import asyncio
from collections.abc import AsyncIterator

import grpc

from fleet.v1 import control_pb2
from fleet_controller.restoring import RestoreRefused, restore, take
from fleet_controller.services.control_desk import Desk
from fleet_controller.services.streams import ACCEPTED_METADATA, Context, abort
from fleet_controller.store.interface import StoreError
from fleet_core.backup_file import Backup

_MESSAGE_BYTES = 512 * 1024
_SILENCE_SECONDS = 60.0


class BackupCalls:
    """The contract's names, as methods."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def backup(self, context: Context) -> AsyncIterator[control_pb2.BackupResponse]:
        office = await self._desk.office(context)
        try:
            taken = await take(office.store)
        except StoreError as error:
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, f"no backup can be taken: {error}")
        yield control_pb2.BackupResponse(
            header=control_pb2.BackupHeader(
                fleet_id=taken.fleet_id, era=taken.era, etcd_revision=taken.etcd_revision, records=len(taken.records)
            )
        )
        response, size = control_pb2.BackupResponse(), 0
        for key, value in sorted(taken.records.items()):
            if size + len(value) > _MESSAGE_BYTES and size:
                yield response
                response, size = control_pb2.BackupResponse(), 0
            response.records.records.add(key=key, value=value)
            size += len(key) + len(value)
        if size:
            yield response

    async def restore(
        self, requests: AsyncIterator[control_pb2.RestoreRequest], context: Context
    ) -> control_pb2.RestoreResponse:
        office = await self._desk.office(context)
        lineage, term = office.lineage, office.term
        if not term.provable():
            text = "etcd does not answer, so nothing can be restored now: look at the etcd servers"
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, text)
        backup, allow_another_fleet = await self._received(requests, context)
        began = False

        def begins() -> None:
            nonlocal began
            began = True
            lineage.halt("etcd is being restored from a backup: ask again in a moment")

        try:
            restored = await restore(
                office.store, term, backup, lineage.highest_era, begins, allow_another_fleet=allow_another_fleet
            )
        except RestoreRefused as refusal:
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(refusal))
        except StoreError as error:
            text = f"nothing was restored: {error}"
            if began:
                text = (
                    f"the restore broke off ({error}); nothing is acted on until it was done again: "
                    "say it again with the same backup"
                )
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, text)
        finally:
            if began:
                term.give_up("etcd was restored, and is led anew")
        return control_pb2.RestoreResponse(era=restored.era, records=restored.records, paused_apps=restored.paused_apps)

    async def _received(
        self, requests: AsyncIterator[control_pb2.RestoreRequest], context: Context
    ) -> tuple[Backup, bool]:
        header: control_pb2.BackupHeader | None = None
        allow = False
        records: dict[str, bytes] = {}
        while True:
            try:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    request = await anext(requests, None)
            except TimeoutError:
                await abort(context, grpc.StatusCode.CANCELLED, f"nothing arrived for {_SILENCE_SECONDS:g} s")
            if request is None:
                break
            if request.WhichOneof("part") == "header":
                header, allow = request.header, request.allow_another_fleet
                await context.send_initial_metadata(((ACCEPTED_METADATA, "1"),))
            records.update((record.key, record.value) for record in request.records.records)
        if header is None or not header.fleet_id or len(records) != header.records:
            await abort(
                context, grpc.StatusCode.INVALID_ARGUMENT, "the backup did not arrive whole: nothing was changed"
            )
        return Backup(header.fleet_id, header.era, header.etcd_revision, records), allow
