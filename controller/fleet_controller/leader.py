"""Election of the leading controller: one key, held on a lease.

Who creates the key leads, and the key's create revision is the term's number, greater than that of any term before. The lease
only decides when another may try; it protects nothing. What protects is `Term.fence`: every commit of a leader carries it, so
that a leader who does not know yet that it was replaced writes nothing.

A lease of three seconds: etcd grants no less than two, expires a lease up to half a second late, and another controller must
lead within five; renewed every second, it survives two lost renewals.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import aclosing

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
    Unchanged,
)

LEADER_KEY = "/fleet/v1/leader"
LEASE_SECONDS = 3
_RENEWALS_PER_LEASE = 3
_PROOF_MARGIN_SECONDS = 0.5
_JITTER_SECONDS = 0.1
_PAUSE_SECONDS = 1.0

_log = logging.getLogger(__name__)


def boot_clock() -> float:
    """Seconds since boot, suspension included: a machine that slept through its lease must not believe that it still holds it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Term:
    """One time of leading. Whoever got it from `campaign` ends it with `resign`, also once it is lost."""

    def __init__(
        self, store: Store, key: str, create_revision: int, lease: Lease, granted_at: float, clock: Callable[[], float]
    ) -> None:
        self.create_revision = create_revision
        self.newest = create_revision
        """etcd's revision after our last change: no term before this one made a change as late, none after it one as early."""
        self.lost = asyncio.Event()
        """Set for good once the lease is gone, or the key is, or is another's. An etcd out of reach alone does not set it."""
        self._store = store
        self._key = key
        self._lease = lease
        self._renewed_at = granted_at
        self._tried_at = granted_at
        """When the last renewal ended, well or not."""
        self._clock = clock
        self._tasks = [
            asyncio.create_task(self._renew(), name="leader-lease"),
            asyncio.create_task(self._guard(), name="leader-key"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._on_end)

    def fence(self) -> Created:
        """To be among the expectations of every commit of this term."""
        return Created(self._key, self.create_revision)

    def committed(self, revision: int) -> None:
        """A commit with our fence was made at `revision`."""
        self.newest = max(self.newest, revision)

    def provable(self) -> bool:
        """Whether the lease is held now for certain: counted by our clock from when the last successful renewal was *sent*."""
        return not self.lost.is_set() and self._clock() - self._renewed_at < self._lease.seconds - _PROOF_MARGIN_SECONDS

    def awake(self) -> bool:
        """Whether we are provably the leader, or try to be and etcd does not let us.

        False for a leader that was stopped, swapped out or starved, until one renewal was tried: what it saw last is old, and
        another may lead. It must say nothing.
        """
        return self.provable() or (
            not self.lost.is_set() and self._clock() - self._tried_at < self._lease.seconds - _PROOF_MARGIN_SECONDS
        )

    def give_up(self, why: str) -> None:
        """Lead no more: a commit's fence did not hold, or all is to be read anew though the lease is held."""
        self._lose(why)

    async def resign(self) -> None:
        """Stop renewing and give up the key now, if the store answers; else the lease expires by itself. Raises nothing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.lost.set()
        try:
            await self._store.revoke_lease(self._lease, timeout=1.0)
        except StoreError as error:
            _log.warning("the leader's lease is left to expire: %s", error)

    async def _renew(self) -> None:
        interval = self._lease.seconds / _RENEWALS_PER_LEASE
        now = asyncio.get_running_loop().time
        due = now() + interval
        while not self.lost.is_set():
            await asyncio.sleep(due - now())
            due = max(due + interval, now() + _PAUSE_SECONDS / 10)
            sent_at = self._clock()
            try:
                held = await self._store.keep_lease(self._lease, timeout=interval)
            except StoreError as error:
                _log.warning("the leader's lease could not be renewed: %s", error)
                self._tried_at = self._clock()
                continue
            self._tried_at = self._clock()
            if held:
                self._renewed_at = sent_at
            else:
                self._lose("its lease is gone")

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """Leadership that nobody watches over any more is none."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._lose(f"{task.get_name()} failed: {error!r}")

    async def _guard(self) -> None:
        """Learn of a deleted or replaced key at once, not at the next renewal."""
        async with aclosing(self._store.follow(self._key)) as updates:
            holder: Item | None = None
            async for update in updates:
                holder = _holder(self._key, update, holder)
                if holder is None or holder.create_revision != self.create_revision:
                    self._lose("its key was deleted" if holder is None else "another controller leads")
                    return

    def _lose(self, why: str) -> None:
        if not self.lost.is_set():
            _log.warning("leadership of term %d is lost: %s", self.create_revision, why)
            self.lost.set()


class _Watch:
    """Who holds the key, as the store said last."""

    def __init__(self) -> None:
        self.known = False
        self.holder: Item | None = None
        self._news = asyncio.Event()

    @property
    def vacant(self) -> bool:
        return self.known and self.holder is None

    def take(self, holder: Item | None) -> None:
        self.known, self.holder = True, holder
        self._news.set()

    async def news(self, watching: asyncio.Task[None], seconds: float | None = None) -> None:
        """Return at the next update, or after so many seconds. Raises what ended the watch."""
        self._news.clear()
        told = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait((told, watching), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
        if watching.done():
            watching.result()


class Election:
    """`value` is who we are, and is stored as the key's value: unique to one controller, and the same after its restart.

    A controller that restarts finds its own former term's key and deletes it rather than wait for its lease: safe because the
    former term's process, should it live after all, is fenced. It does so only when it first looks, so that two processes wrongly
    given one identity do not overthrow each other for ever.
    """

    def __init__(
        self,
        store: Store,
        value: bytes,
        *,
        key: str = LEADER_KEY,
        lease_seconds: int = LEASE_SECONDS,
        clock: Callable[[], float] = boot_clock,
        holder_changed: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        """`holder_changed` is called while campaigning with the value of whoever leads; empty: nobody."""
        self._store = store
        self._holder_changed = holder_changed
        self._value = value
        self._key = key
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._may_take_over = True

    async def campaign(self) -> Term:
        """Wait, for as long as it takes and without writing, until nobody leads; then lead. To be cancelled at will."""
        watch = _Watch()
        watching = asyncio.create_task(self._watch(watch), name="leader-watch")
        try:
            while True:
                await self._vacancy(watch, watching)
                try:
                    return await self._seize()
                except Conflict:
                    # Another was quicker, and the watch is about to say so.
                    await watch.news(watching, _PAUSE_SECONDS)
                except StoreError as error:
                    _log.warning("cannot become the leader now: %s", error)
                    await asyncio.sleep(_PAUSE_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _vacancy(self, watch: "_Watch", watching: asyncio.Task[None]) -> None:
        waited = False
        while True:
            while not watch.vacant:
                waited = waited or watch.known
                await watch.news(watching)
            if not waited:
                return
            # Everyone who waited saw the key go at the same moment.
            waited = False
            await watch.news(watching, random.uniform(0.0, _JITTER_SECONDS))  # noqa: S311

    async def _watch(self, watch: "_Watch") -> None:
        """Goes on while this controller tries to lead, so that it knows at once who was quicker."""
        async with aclosing(self._store.follow(self._key)) as updates:
            async for update in updates:
                watch.take(_holder(self._key, update, watch.holder))
                self._holder_changed(b"" if watch.holder is None else watch.holder.value)
                if self._may_take_over and watch.holder is not None and watch.holder.value == self._value:
                    await self._take_over(watch.holder)
                self._may_take_over = False

    async def _take_over(self, holder: Item) -> None:
        _log.info("ending our own former term %d", holder.create_revision)
        try:
            await self._store.commit([Created(self._key, holder.create_revision)], [Delete(self._key)])
        except StoreError as error:
            # Its lease ends it in any case.
            _log.warning("our own former term %d could not be ended: %s", holder.create_revision, error)

    async def _seize(self) -> Term:
        granted_at = self._clock()
        lease = await self._store.grant_lease(self._lease_seconds)
        try:
            revision = await self._store.commit(
                [Unchanged(self._key, 0)], [Put(self._key, self._value, lease.identifier)]
            )
        except BaseException as error:
            # Whether or not the key was written, it must not outlive this attempt.
            if not isinstance(error, LeaseGone):
                await self._abandon(lease)
            raise
        return Term(self._store, self._key, revision, lease, granted_at, self._clock)

    async def _abandon(self, lease: Lease) -> None:
        try:
            await self._store.revoke_lease(lease, timeout=1.0)
        except StoreError as error:
            _log.warning("a lease is left to expire: %s", error)


def _holder(key: str, update: Snapshot | Changes, known: Item | None) -> Item | None:
    """Who holds `key` after `update`; other keys that begin alike do not count."""
    if isinstance(update, Snapshot):
        return update.items.get(key)
    for changed, item in update.changes:
        if changed == key:
            known = item
    return known
