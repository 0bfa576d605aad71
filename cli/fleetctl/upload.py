"""Sends an archive to the leading controller, from the byte on at which it, or another controller, got stuck before."""

import asyncio
from collections.abc import AsyncIterator, Callable

from fleet.v1 import control_pb2
from fleetctl.client.connection import Connection
from fleetctl.client.errors import UnavailableError, Unreachable
from fleetctl.packing import Archive

_CHUNK_BYTES = 256 * 1024
_PATIENCE_SECONDS = 30.0
"""So long without a byte of progress, and it is given up; what arrived stays there for a day."""
_PAUSE_SECONDS = 0.5
Sent = Callable[[int], None]


async def upload(connection: Connection, archive: Archive, sent: Sent) -> bool:
    """Returns when the controller has all of it, verified; False: it had before. `sent` is told how many bytes are there.

    Raises FleetError.
    """
    clock = asyncio.get_running_loop().time
    request = control_pb2.GetArtifactRequest(digest=archive.digest)
    known, stuck_at, needed = -1, clock(), False
    while True:
        answer = await connection.call(lambda stub: stub.GetArtifact, request, mutation=True)
        if answer.complete:
            return needed
        needed = True
        if answer.received_bytes > known:
            known, stuck_at = answer.received_bytes, clock()
        try:
            messages = _messages(archive, answer.received_bytes, sent)
            await connection.send(lambda stub: stub.UploadArtifact, messages)
        except UnavailableError as error:
            if clock() - stuck_at > _PATIENCE_SECONDS:
                raise Unreachable(f"the upload got stuck: {error.message}", error.hint) from error
            await asyncio.sleep(_PAUSE_SECONDS)


async def _messages(archive: Archive, offset: int, sent: Sent) -> AsyncIterator[control_pb2.UploadArtifactRequest]:
    archive.stream.seek(offset)
    yield control_pb2.UploadArtifactRequest(digest=archive.digest, size_bytes=archive.size, offset=offset)
    while data := archive.stream.read(_CHUNK_BYTES):
        yield control_pb2.UploadArtifactRequest(data=data)
        offset += len(data)
        sent(offset)
