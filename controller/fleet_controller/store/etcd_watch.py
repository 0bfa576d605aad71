"""One watch stream on one etcd member, which ends loudly.

etcd3aio's own watch resumes from the wrong revision when it reconnects right after its creation, goes on reading a stream that
the server cancelled because of a compaction, and hangs in silence on a member cut off from its quorum. So only its stub is used.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc

from fleet_controller.store.etcd_wire import WatchStub, change, progress_request, watch_request
from fleet_controller.store.interface import Changes, Item

_PROGRESS_INTERVAL_SECONDS = 1.0
_SILENCE_LIMIT_SECONDS = 3.0
# An answer under way may be overtaken by an event, and a member that was frozen needs a moment to catch up.
_ANSWERS_FROM_BEHIND = 2
# With it a member that has no leader ends the stream instead of leaving it open and silent (etcd, clientv3.WithRequireLeader).
_REQUIRE_LEADER = (("hasleader", "true"),)


class StreamBroken(Exception):  # noqa: N818 (reads as a sentence where it is caught)
    """The stream ended, whoever ended it, or fell silent. Watching may go on from the last revision delivered, elsewhere."""


class HistoryLost(Exception):  # noqa: N818
    """The changes after the last revision delivered can no longer be had from anywhere: list again."""


async def watch(channel: grpc.aio.Channel, prefix: str, after: int) -> AsyncGenerator[Changes, None]:
    """Changes below `prefix` after revision `after`, in whole revisions. Raises StreamBroken or HistoryLost, and never ends else.

    Once a second the member is asked for its progress, a message that writes nothing. One that says nothing for three seconds
    counts as gone; one that keeps answering from behind what was delivered is cut off, or was put back to an older state. The
    revision it answers is not taken as delivered: before 3.5.8 it may run ahead of events still to come.
    """
    stream = WatchStub(channel).Watch(_requests(prefix, after + 1), metadata=_REQUIRE_LEADER)
    delivered = after
    behind = 0
    fragments: list[tuple[str, Item | None]] = []
    try:
        while True:
            response = await _read(stream)
            if response.compact_revision:
                raise HistoryLost(f"compacted up to revision {response.compact_revision}")
            if response.canceled:
                raise StreamBroken(f"cancelled by the member: {response.cancel_reason or 'no reason given'}")
            if not response.events:
                behind = behind + 1 if response.header.revision < delivered else 0
                if behind > _ANSWERS_FROM_BEHIND:
                    raise HistoryLost(f"the member stays at revision {response.header.revision}, behind {delivered}")
                continue
            behind = 0
            fragments += [change(event) for event in response.events]
            if response.fragment:
                continue
            delivered = response.events[-1].kv.mod_revision
            changes, fragments = fragments, []
            yield Changes(delivered, changes)
    finally:
        stream.cancel()


async def _requests(prefix: str, start_revision: int) -> AsyncIterator[Any]:
    yield watch_request(prefix, start_revision)
    while True:
        await asyncio.sleep(_PROGRESS_INTERVAL_SECONDS)
        yield progress_request()


async def _read(stream: Any) -> Any:
    try:
        async with asyncio.timeout(_SILENCE_LIMIT_SECONDS):
            response = await stream.read()
    except TimeoutError:
        raise StreamBroken(f"silent for {_SILENCE_LIMIT_SECONDS:g} s") from None
    except grpc.aio.AioRpcError as error:
        raise StreamBroken(f"{error.code().name}: {error.details()}") from error
    except asyncio.CancelledError:
        # grpc.aio also raises this when the *member* ended the stream with status CANCELLED, or the channel was closed.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise StreamBroken("cancelled by the other end") from None
    if response is grpc.aio.EOF:
        raise StreamBroken("ended by the member")
    return response
