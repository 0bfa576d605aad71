"""A store in memory, for tests. The contract in tests/unit/store/contract.py keeps it equal to etcd's."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence

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
    StoreUnavailable,
    Unchanged,
)

# etcd's default --max-txn-ops.
_MOST_OPERATIONS = 128


class MemoryStore(Store):
    """Leases run out by the event loop's clock, or at once by `expire`.

    Faults: `set_available`, `lose_next_answer`, `compact`.
    """

    def __init__(self) -> None:
        self.revision = 1
        self._items: dict[str, Item] = {}
        self._history: list[tuple[int, str, Item | None]] = []
        self._compacted = 0
        self._lease_numbers = itertools.count(1)
        self._leases: dict[int, asyncio.TimerHandle] = {}
        self._lease_of: dict[str, int] = {}
        self._available = True
        self._closed = False
        self._answer_lost = False
        self._stirred = asyncio.Event()

    def set_available(self, *, available: bool) -> None:
        """While not available every call raises StoreUnavailable, and followers wait."""
        self._available = available
        self._stir()

    def lose_next_answer(self) -> None:
        """The next commit that holds takes effect and raises StoreUnavailable all the same."""
        self._answer_lost = True

    def compact(self) -> None:
        """Forget all history: followers that have not seen all of it get a Snapshot."""
        self._compacted = self.revision
        self._history.clear()
        self._stir()

    def take_over(self, key: str, value: bytes) -> int:
        """The key is deleted and created anew by somebody else, before anybody here can notice; returns its create revision."""
        self._write([Delete(key)])
        self._write([Put(key, value)])
        return self.revision

    def expire(self, lease: int) -> None:
        """End a lease as if its time had run out."""
        timer = self._leases.pop(lease, None)
        if timer is not None:
            timer.cancel()
            self._write([Delete(key) for key, holder in self._lease_of.items() if holder == lease])

    async def read(self, prefix: str, *, timeout: float = 5.0) -> Snapshot:
        self._check()
        return Snapshot(self.revision, {key: item for key, item in self._items.items() if key.startswith(prefix)})

    async def commit(
        self,
        expectations: Sequence[Unchanged | Created],
        operations: Sequence[Put | Delete],
        *,
        timeout: float = 5.0,
    ) -> int:
        self._check()
        if len(expectations) > _MOST_OPERATIONS or len(operations) > _MOST_OPERATIONS:
            raise StoreError("too many operations in one transaction")
        if len({operation.key for operation in operations}) < len(operations):
            raise StoreError("two operations on one key")
        for expectation in expectations:
            found = self._items.get(expectation.key)
            if isinstance(expectation, Created):
                holds = (found.create_revision if found else 0) == expectation.create_revision
            else:
                holds = (found.mod_revision if found else 0) == expectation.mod_revision
            if not holds:
                raise Conflict(expectation.key)
        for operation in operations:
            if isinstance(operation, Put) and operation.lease and operation.lease not in self._leases:
                raise LeaseGone("The lease has expired; nothing was written.")
        self._write(operations)
        if self._answer_lost:
            self._answer_lost = False
            raise StoreUnavailable("the answer was lost")
        return self.revision

    async def follow(self, prefix: str) -> AsyncGenerator[Snapshot | Changes, None]:
        while True:
            await self._until_available()
            snapshot = await self.read(prefix)
            yield snapshot
            delivered = snapshot.revision
            while delivered >= self._compacted:
                await self._until_available()
                pending = [entry for entry in self._history if entry[0] > delivered]
                delivered = self.revision
                changes = [(key, item) for _, key, item in pending if key.startswith(prefix)]
                if changes:
                    yield Changes(max(revision for revision, key, _ in pending if key.startswith(prefix)), changes)
                elif not pending:
                    await self._stirred.wait()

    async def grant_lease(self, seconds: int, *, timeout: float = 5.0) -> Lease:
        self._check()
        lease = Lease(next(self._lease_numbers), seconds)
        self._schedule(lease)
        return lease

    async def keep_lease(self, lease: Lease, *, timeout: float = 5.0) -> bool:
        self._check()
        timer = self._leases.get(lease.identifier)
        if timer is None:
            return False
        timer.cancel()
        self._schedule(lease)
        return True

    async def revoke_lease(self, lease: Lease, *, timeout: float = 5.0) -> None:
        self._check()
        self.expire(lease.identifier)

    async def close(self) -> None:
        self._closed = True
        for timer in self._leases.values():
            timer.cancel()
        self._stir()

    def _schedule(self, lease: Lease) -> None:
        loop = asyncio.get_running_loop()
        self._leases[lease.identifier] = loop.call_later(lease.seconds, self.expire, lease.identifier)

    def _write(self, operations: Sequence[Put | Delete]) -> None:
        effective = [wanted for wanted in operations if isinstance(wanted, Put) or wanted.key in self._items]
        if not effective:
            return
        self.revision += 1
        for operation in effective:
            self._lease_of.pop(operation.key, None)
            item = None
            if isinstance(operation, Put):
                old = self._items.get(operation.key)
                created = old.create_revision if old else self.revision
                item = Item(operation.key, operation.value, created, self.revision)
                self._items[operation.key] = item
                if operation.lease:
                    self._lease_of[operation.key] = operation.lease
            else:
                del self._items[operation.key]
            self._history.append((self.revision, operation.key, item))
        self._stir()

    def _check(self) -> None:
        if self._closed:
            raise StoreError("The store is closed.")
        if not self._available:
            raise StoreUnavailable("The store was made unavailable.")

    async def _until_available(self) -> None:
        while not self._available and not self._closed:
            await self._stirred.wait()
        self._check()

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = asyncio.Event()
