"""The store on etcd 3.4 or newer, through mutual TLS.

What may be repeated (reads, lease renewals) is tried on one member after another until its timeout; a commit is sent once, to a
member known to be connected. See docs/adr/0001-etcd-client.md.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

import grpc
from etcd3aio.errors import (
    EtcdConnectionError,
    EtcdPermissionDeniedError,
    EtcdTransientError,
    EtcdUnauthenticatedError,
)
from etcd3aio.kv import KVService, prefix_range_end

from fleet_controller.store.etcd_members import Member, Members
from fleet_controller.store.etcd_watch import HistoryLost, StreamBroken, watch
from fleet_controller.store.etcd_wire import compare, item, operation
from fleet_controller.store.interface import (
    Changes,
    Conflict,
    Created,
    Delete,
    Item,
    Lease,
    LeaseGone,
    Put,
    Snapshot,
    Store,
    StoreError,
    StoreFull,
    StoreUnavailable,
    Unchanged,
)
from fleet_core.tls import TlsFiles

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_PAGE_KEYS = 500
_FULL = "database space exceeded"
_FULL_WORDS = (
    "etcd's database has reached its quota and takes no change: compact and defragment it, then `etcdctl alarm disarm` "
    "(docs/recovery.md)"
)
_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
# With these etcd says that it did not do it. After any other status a write may have happened.
_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


class EtcdStore(Store):
    """`endpoints` are "host:port" of each member; certificates must name those hosts, or all carry `server_name`.

    Create it inside the running event loop and close it there. Raises OSError when a certificate cannot be read.
    """

    def __init__(self, endpoints: Sequence[str], tls: TlsFiles, *, server_name: str | None = None) -> None:
        self._members = Members(endpoints, tls, server_name)
        self._closed = False

    async def read(self, prefix: str, *, timeout: float = 5.0) -> Snapshot:
        return await self._anywhere(lambda member, seconds: _list(member, prefix, seconds), timeout)

    async def commit(
        self,
        expectations: Sequence[Unchanged | Created],
        operations: Sequence[Put | Delete],
        *,
        timeout: float = 5.0,
    ) -> int:
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout
        member = await self._connected_member(deadline)
        try:
            with self._translated():
                response = await member.kv.txn(
                    compare=[compare(expectation) for expectation in expectations],
                    success=[operation(wanted) for wanted in operations],
                    failure=[KVService.txn_op_get(expectation.key) for expectation in expectations],
                    timeout=max(deadline - clock(), 0.001),
                )
        except StoreUnavailable:
            self._members.distrust(member)
            raise
        if not response.succeeded:
            raise Conflict(_violated(expectations, response.responses))
        return int(response.header.revision)

    async def follow(self, prefix: str) -> AsyncGenerator[Snapshot | Changes, None]:
        while True:
            snapshot = await self._read_patiently(prefix)
            yield snapshot
            try:
                async with aclosing(self._follow_from(prefix, snapshot.revision)) as batches:
                    async for changes in batches:
                        yield changes
            except HistoryLost as error:
                _log.warning("listing %s again: %s", prefix, error)

    async def grant_lease(self, seconds: int, *, timeout: float = 5.0) -> Lease:
        # A repeated grant leaves at worst a lease without keys, which expires.
        response = await self._anywhere(lambda member, limit: member.lease.grant(seconds, timeout=limit), timeout)
        return Lease(response.ID, response.TTL)

    async def keep_lease(self, lease: Lease, *, timeout: float = 5.0) -> bool:
        return await self._anywhere(lambda member, seconds: _renew(member, lease, seconds), timeout)

    async def revoke_lease(self, lease: Lease, *, timeout: float = 5.0) -> None:
        try:
            await self._anywhere(lambda member, limit: member.lease.revoke(lease.identifier, timeout=limit), timeout)
        except LeaseGone:
            return

    async def close(self) -> None:
        self._closed = True
        await self._members.close()

    async def _anywhere(self, attempt: Callable[[Member, float], Awaitable[_T]], timeout: float) -> _T:
        """The result of the first attempt that succeeds; for what may be repeated. Raises StoreError."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout
        share = timeout / len(self._members.in_order())
        reason = "There was no time to ask etcd."
        while True:
            for member in self._members.in_order():
                seconds = min(share, deadline - clock())
                if seconds <= 0:
                    break
                try:
                    with self._translated():
                        return await attempt(member, seconds)
                except StoreUnavailable as error:
                    self._members.distrust(member)
                    reason = str(error)
            if clock() + _PAUSE_SECONDS >= deadline:
                raise StoreUnavailable(reason)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _connected_member(self, deadline: float) -> Member:
        """Nothing was sent yet, so trying one member after the other is safe for writes too. Raises StoreUnavailable."""
        clock = asyncio.get_running_loop().time
        share = (deadline - clock()) / (len(self._members.in_order()) + 1)
        while True:
            self._refuse_if_closed()
            for member in self._members.in_order():
                if await member.connected(min(share, deadline - clock())):
                    return member
                self._members.distrust(member)
            if clock() + _PAUSE_SECONDS >= deadline:
                raise StoreUnavailable(f"No etcd member can be reached at {self._members.endpoints}.")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _read_patiently(self, prefix: str) -> Snapshot:
        pause = _PAUSE_SECONDS
        while True:
            try:
                return await self.read(prefix)
            except StoreError as error:
                self._refuse_if_closed()
                _log.warning("waiting to list %s: %s", prefix, error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _follow_from(self, prefix: str, delivered: int) -> AsyncGenerator[Changes, None]:
        """Raises HistoryLost, and StoreError once the store is closed."""
        clock = asyncio.get_running_loop().time
        pause = _PAUSE_SECONDS
        while True:
            self._refuse_if_closed()
            member = self._members.in_order()[0]
            started = clock()
            try:
                async with aclosing(watch(member.channel, prefix, delivered)) as batches:
                    async for changes in batches:
                        delivered = changes.revision
                        yield changes
            except HistoryLost:
                # It may be this member alone that lags behind: list and watch elsewhere.
                self._members.distrust(member)
                raise
            except StreamBroken as error:
                if clock() - started > _LONGEST_PAUSE_SECONDS:
                    pause = _PAUSE_SECONDS
                self._members.distrust(member)
                _log.warning("watching %s at %s again from revision %d: %s", prefix, member.endpoint, delivered, error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreError("The store is closed.")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turns the errors of gRPC and etcd3aio into StoreError."""
        self._refuse_if_closed()
        unavailable = f"etcd at {self._members.endpoints} does not answer or has no quorum"
        try:
            yield
        except TimeoutError as error:
            raise StoreUnavailable(f"{unavailable}: no answer in time.") from error
        except (EtcdConnectionError, EtcdTransientError) as error:
            raise StoreUnavailable(f"{unavailable}: {error}") from error
        except (EtcdUnauthenticatedError, EtcdPermissionDeniedError) as error:
            raise StoreError(f"etcd refuses this controller: {error}") from error
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise LeaseGone("The lease has expired; nothing was written.") from error
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and _FULL in (error.details() or ""):
                raise StoreFull(_FULL_WORDS) from error
            if error.code() in _REFUSALS:
                raise StoreError(f"etcd refuses the request: {error.details()}.") from error
            raise StoreUnavailable(f"{unavailable}: {error.code().name}: {error.details()}") from error
        except asyncio.CancelledError:
            # grpc.aio cancels the caller of a call whose channel is closed.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise StoreUnavailable("The store was closed during the call.") from None


async def _list(member: Member, prefix: str, seconds: float) -> Snapshot:
    """Page by page, all at the revision of the first page, so that no message grows with the store."""
    first, end = prefix.encode(), prefix_range_end(prefix)
    start, revision = first, 0
    items: dict[str, Item] = {}
    async with asyncio.timeout(seconds):
        while True:
            try:
                page = await member.kv.get(start, end, revision=revision, limit=_PAGE_KEYS, timeout=seconds)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
                    raise
                # Compacted between two pages.
                start, revision, items = first, 0, {}
                continue
            revision = revision or page.header.revision
            items.update((found.key, found) for found in map(item, page.kvs))
            if not page.more:
                return Snapshot(revision, items)
            start = page.kvs[-1].key + b"\0"


async def _renew(member: Member, lease: Lease, seconds: float) -> bool:
    stream: Any = member.lease.keep_alive(lease.identifier)
    try:
        async with asyncio.timeout(seconds):
            response = await stream.read()
    finally:
        stream.cancel()
    if response is grpc.aio.EOF:
        raise TimeoutError
    return bool(response.TTL > 0)


def _violated(expectations: Sequence[Unchanged | Created], responses: Sequence[Any]) -> str:
    """The key of the first expectation that does not hold; `responses` are the ranges read in their order."""
    for expectation, response in zip(expectations, responses, strict=True):
        found = response.response_range.kvs
        if isinstance(expectation, Created):
            holds = (found[0].create_revision if found else 0) == expectation.create_revision
        else:
            holds = (found[0].mod_revision if found else 0) == expectation.mod_revision
        if not holds:
            return expectation.key
    raise AssertionError("etcd failed a transaction whose expectations all hold")
