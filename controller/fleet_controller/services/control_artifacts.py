"""The calls about deployed code: ControlService's uploads, AgentService's downloads."""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack
from functools import partial
from typing import NoReturn

import grpc

from fleet.v1 import agent_pb2, control_pb2
from fleet_controller.artifacts import (
    BUSY,
    DAMAGED,
    FULL,
    INVALID,
    OFFSET,
    ArtifactError,
    ArtifactStore,
    check_digest,
)
from fleet_controller.leadership import Leadership, Office
from fleet_controller.records import RevisionRecord
from fleet_controller.services.streams import ACCEPTED_METADATA, Context, abort, require_office, require_role
from fleet_core.tls import Role

_log = logging.getLogger(__name__)
_CODES = {
    OFFSET: grpc.StatusCode.OUT_OF_RANGE,
    BUSY: grpc.StatusCode.ABORTED,
    DAMAGED: grpc.StatusCode.DATA_LOSS,
    FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    INVALID: grpc.StatusCode.INVALID_ARGUMENT,
}
_TIDY_SECONDS = 3600.0
_LOOK_SECONDS = 5.0
_SILENCE_SECONDS = 60.0
"""An upload that sends nothing for so long is given up; its part stays."""


class ArtifactCalls:
    """The contracts' names, as methods."""

    def __init__(self, store: ArtifactStore, leadership: Leadership) -> None:
        self._store = store
        self._leadership = leadership

    async def keep_tidy(self) -> None:
        """While this controller leads: look what is missing when its term begins, and every hour delete what nothing needs."""
        known: Office | None = None
        due = 0.0
        while True:
            office = self._leadership.office
            leads = office is not None and office.open.is_set() and office.term.provable()
            if office is not None and leads and (office is not known or office.clock() >= due):
                known, due = office, office.clock() + _TIDY_SECONDS
                await self._tidy(office)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _tidy(self, office: Office) -> None:
        try:
            office.missing_code = await asyncio.to_thread(self._store.missing, digests_in_use(office))
            await asyncio.to_thread(self._store.prune, digests_in_use(office))
        except OSError as error:
            _log.error("the artifact store cannot be looked through: %s", error)
        if office.missing_code:
            _log.warning(
                "%d artifacts that revisions name are not in %s: several controllers need one store that all of them see",
                len(office.missing_code),
                self._store.where,
            )

    async def has(self, digest: str) -> bool:
        """Whole, and fresh from now on. Raises ArtifactError, OSError."""
        return (await asyncio.to_thread(self._store.received, digest))[1]

    async def get(self, request: control_pb2.GetArtifactRequest, context: Context) -> control_pb2.GetArtifactResponse:
        try:
            received, complete = await asyncio.to_thread(self._store.received, request.digest)
        except (ArtifactError, OSError) as error:
            await _refuse(context, error)
        return control_pb2.GetArtifactResponse(received_bytes=received, complete=complete)

    async def upload(
        self, office: Office, requests: AsyncIterator[control_pb2.UploadArtifactRequest], context: Context
    ) -> control_pb2.GetArtifactResponse:
        run = asyncio.to_thread
        try:
            with ExitStack() as owned:
                first = await _next(requests)
                if first is None:
                    await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the first message must say what comes")
                check_digest(first.digest)
                if (await run(self._store.received, first.digest))[1]:
                    return control_pb2.GetArtifactResponse(received_bytes=first.size_bytes, complete=True)
                await run(self._store.prune, digests_in_use(office))
                opened = self._store.receiving(first.digest, first.size_bytes, first.offset, digests_in_use(office))
                receipt = await run(owned.enter_context, opened)
                await context.send_initial_metadata(((ACCEPTED_METADATA, "1"),))
                message: control_pb2.UploadArtifactRequest | None = first
                while message is not None:
                    await run(receipt.write, message.data)
                    message = await _next(requests)
                await run(receipt.finish)
                office.missing_code.discard(first.digest)
        except (ArtifactError, OSError, TimeoutError) as error:
            await _refuse(context, error)
        return control_pb2.GetArtifactResponse(received_bytes=first.size_bytes, complete=True)

    async def fetch(
        self, request: agent_pb2.FetchArtifactRequest, context: Context
    ) -> AsyncIterator[agent_pb2.ArtifactChunk]:
        await require_role(context, Role.AGENT)
        await require_office(context, self._leadership, grpc.StatusCode.FAILED_PRECONDITION)
        try:
            size = await asyncio.to_thread(self._store.size, request.digest)
            if size is None:
                text = f"controller {self._leadership.name} has no code {request.digest[:12]}: deploy it again"
                await abort(context, grpc.StatusCode.NOT_FOUND, text)
            if request.offset > size:
                await abort(context, grpc.StatusCode.OUT_OF_RANGE, f"{request.digest[:12]} has {size} bytes")
            yield agent_pb2.ArtifactChunk(size_bytes=size)
            chunks = self._store.chunks(request.digest, request.offset)
            try:
                while (data := await asyncio.to_thread(partial(next, chunks, None))) is not None:
                    yield agent_pb2.ArtifactChunk(data=data, size_bytes=size)
            finally:
                chunks.close()  # type: ignore[attr-defined]
        except (ArtifactError, OSError) as error:
            await _refuse(context, error)


def digests_in_use(office: Office) -> frozenset[str]:
    """Those that revisions name."""
    return frozenset(filter(None, (record.artifact_digest for record in office.desired.all(RevisionRecord))))


async def _next(requests: AsyncIterator[control_pb2.UploadArtifactRequest]) -> control_pb2.UploadArtifactRequest | None:
    """None at the end. Raises TimeoutError."""
    async with asyncio.timeout(_SILENCE_SECONDS):
        return await anext(requests, None)


async def _refuse(context: Context, error: Exception) -> NoReturn:
    if isinstance(error, ArtifactError):
        await abort(context, _CODES[error.kind], str(error))
    if isinstance(error, TimeoutError):
        await abort(context, grpc.StatusCode.CANCELLED, f"nothing arrived for {_SILENCE_SECONDS:g} s")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = "the artifact store's disk is full: make room there (artifact_dir of the controller), then say it again"
        await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, text)
    await abort(context, grpc.StatusCode.INTERNAL, f"the artifact store cannot be used: {error}")
