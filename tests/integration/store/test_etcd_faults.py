"""Three real etcd members, and what happens to them: the test that chose the client (docs/adr/0001-etcd-client.md)."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import pytest

from fleet_controller.store.etcd import EtcdStore
from fleet_controller.store.interface import Changes, Conflict, Put, Snapshot, Store, StoreUnavailable, Unchanged
from tests.integration.etcd_cluster import running_etcd
from tests.unit.store.contract import next_of

PREFIX = "/writes/"
DEADLINE = 15.0


class Writer:
    """Creates numbered keys one after another for as long as it runs, and remembers which were acknowledged."""

    def __init__(self, store: Store) -> None:
        self.acknowledged: dict[str, int] = {}
        self.longest_wait = 0.0
        self._store = store
        self._progress = asyncio.Event()
        self._finishing = False
        self._finished = asyncio.Event()

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        for number in itertools.count():
            if self._finishing:
                break
            key = f"{PREFIX}{number}"
            started = clock()
            with suppress(StoreUnavailable):
                self.acknowledged[key] = await self._store.commit([Unchanged(key, 0)], [Put(key, b"x")], timeout=2.0)
            self.longest_wait = max(self.longest_wait, clock() - started)
            self._progress.set()
            await asyncio.sleep(0.01)
        self._finished.set()

    async def finish(self) -> None:
        """End after the commit under way, so that none is in doubt."""
        self._finishing = True
        async with asyncio.timeout(DEADLINE):
            await self._finished.wait()

    async def acknowledge_more(self, count: int) -> None:
        """Wait until `count` more commits were acknowledged."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(DEADLINE):
            while len(self.acknowledged) < wanted:
                self._progress.clear()
                await self._progress.wait()


class Follower:
    def __init__(self, store: Store) -> None:
        self.snapshots = 0
        self.created: dict[str, int] = {}
        self.revision = 0
        self._store = store
        self._progress = asyncio.Event()

    async def run(self) -> None:
        async with aclosing(self._store.follow(PREFIX)) as updates:
            async for update in updates:
                if isinstance(update, Snapshot):
                    self.snapshots += 1
                    found = {key: item.mod_revision for key, item in update.items.items()}
                    assert found.items() >= self.created.items(), "a snapshot lacks what was seen before"
                    self.created = found
                else:
                    self._apply(update)
                self.revision = update.revision
                self._progress.set()

    async def reach(self, revision: int) -> None:
        async with asyncio.timeout(DEADLINE):
            while self.revision < revision:
                self._progress.clear()
                await self._progress.wait()

    def _apply(self, update: Changes) -> None:
        revision = self.revision
        for key, item in update.changes:
            assert item is not None
            assert key not in self.created, f"{key} came twice"
            assert item.mod_revision > revision, f"{key} came out of order"
            revision = item.mod_revision
            self.created[key] = revision
        assert update.revision == revision


@asynccontextmanager
async def in_background(*jobs: Writer | Follower) -> AsyncIterator[None]:
    """Run the jobs meanwhile; a job that fails ends the test there and then, with its own failure."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(job.run()) for job in jobs]
        yield
        for task in tasks:
            task.cancel()


async def created(store: Store, key: str) -> int:
    """Create the key, once, however many answers are lost; returns the revision it was created at."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                return await store.commit([Unchanged(key, 0)], [Put(key, b"x")], timeout=1.0)
            except StoreUnavailable:
                continue
            except Conflict:
                return (await store.read(key)).items[key].create_revision


async def check(store: EtcdStore, writer: Writer, follower: Follower) -> None:
    """No acknowledged write is lost, no change was missed, repeated or invented."""
    stored = {key: item.mod_revision for key, item in (await store.read(PREFIX)).items.items()}
    assert stored.items() >= writer.acknowledged.items()
    assert follower.created == stored


async def test_no_write_is_lost_and_no_change_missed_while_members_die_and_freeze(tmp_path: Path) -> None:
    """Guards invariant 5."""
    async with running_etcd(tmp_path, size=3) as cluster:
        writing, following = cluster.store(), cluster.store()
        writer, follower = Writer(writing), Follower(following)
        async with in_background(writer, follower):
            await writer.acknowledge_more(20)

            killed = await cluster.leader()
            killed.kill()
            await writer.acknowledge_more(20)
            await follower.reach(max(writer.acknowledged.values()))
            killed.start()
            await writer.acknowledge_more(20)

            for _ in range(2):
                frozen = await cluster.leader()
                frozen.stop()
                await writer.acknowledge_more(20)
                await follower.reach(max(writer.acknowledged.values()))
                frozen.resume()
                await writer.acknowledge_more(20)

            # What the follower has seen already may go.
            await cluster.compact(follower.revision)
            await writer.acknowledge_more(20)
            await writer.finish()
            await follower.reach(max(writer.acknowledged.values()))
            await check(writing, writer, follower)
        assert follower.snapshots == 1
        assert writer.longest_wait < 4.0, "a commit must end within its timeout of 2 s, whatever the load"
        await writing.close()
        await following.close()


async def test_a_follower_overtaken_by_a_compaction_lists_again_and_misses_nothing(tmp_path: Path) -> None:
    async with running_etcd(tmp_path, size=3) as cluster:
        leader = await cluster.leader()
        lagging = next(member for member in cluster.members if member is not leader)
        writing = cluster.store()
        # It knows one member only: while that is down, it cannot keep up.
        following = EtcdStore([lagging.endpoint], cluster.tls)
        writer, follower = Writer(writing), Follower(following)
        async with in_background(follower):
            async with in_background(writer):
                await writer.acknowledge_more(20)
                await follower.reach(max(writer.acknowledged.values()))
                lagging.kill()
                await writer.acknowledge_more(20)
                await writer.finish()
            last = (await writing.read(PREFIX)).revision
            await cluster.compact(last)
            lagging.start()
            await follower.reach(last)
            assert follower.snapshots == 2
            await check(writing, writer, follower)
            revision = await writing.commit([], [Put(f"{PREFIX}after", b"x")])
            await follower.reach(revision)
        await writing.close()
        await following.close()


async def test_without_a_quorum_every_call_ends_in_time_and_everything_goes_on_afterwards(tmp_path: Path) -> None:
    async with running_etcd(tmp_path, size=3) as cluster:
        store = cluster.store()
        follower = Follower(store)
        clock = asyncio.get_running_loop().time
        async with in_background(follower):
            lease = await store.grant_lease(30)
            await follower.reach(await store.commit([], [Put(f"{PREFIX}before", b"x")]))
            frozen = [member for member in cluster.members if member is not await cluster.leader()]
            for member in frozen:
                member.stop()
            try:
                started = clock()
                with pytest.raises(StoreUnavailable):
                    await store.commit(
                        [Unchanged(f"{PREFIX}doubtful", 0)], [Put(f"{PREFIX}doubtful", b"x")], timeout=1.0
                    )
                with pytest.raises(StoreUnavailable):
                    await store.read(PREFIX, timeout=1.0)
                with pytest.raises(StoreUnavailable):
                    await store.grant_lease(5, timeout=1.0)
                assert clock() - started < 4.0
            finally:
                for member in frozen:
                    member.resume()

            async with asyncio.timeout(DEADLINE):
                assert await store.keep_lease(lease, timeout=DEADLINE)
                # What became of the doubtful write is known by reading; here, by writing it again with its expectation.
                with suppress(Conflict):
                    await store.commit(
                        [Unchanged(f"{PREFIX}doubtful", 0)], [Put(f"{PREFIX}doubtful", b"x")], timeout=10.0
                    )
            snapshot = await store.read(PREFIX)
            assert set(snapshot.items) == {f"{PREFIX}before", f"{PREFIX}doubtful"}
            await follower.reach(snapshot.items[f"{PREFIX}doubtful"].mod_revision)
        await store.close()


async def test_a_follower_leaves_a_member_that_freezes_in_silence(tmp_path: Path) -> None:
    async with running_etcd(tmp_path, size=3) as cluster:
        writing, following = cluster.store(), cluster.store()
        follower = Follower(following)
        async with in_background(follower):
            await follower.reach(await writing.commit([], [Put(f"{PREFIX}a", b"x")]))
            # A store reads and watches at the first of its endpoints until that fails.
            cluster.members[0].stop()
            try:
                for name in ("b", "c"):
                    await follower.reach(await created(writing, f"{PREFIX}{name}"))
            finally:
                cluster.members[0].resume()
        assert set(follower.created) == {f"{PREFIX}{name}" for name in "abc"}
        await writing.close()
        await following.close()


async def test_a_follower_lists_again_when_etcd_was_put_back_to_an_older_state(tmp_path: Path) -> None:
    async with running_etcd(tmp_path) as cluster:
        member, store = cluster.members[0], cluster.store()
        async with aclosing(store.follow(PREFIX)) as updates:
            await next_of(updates)
            await store.commit([], [Put(f"{PREFIX}kept", b"x")])
            await next_of(updates)
            member.kill()
            shutil.copytree(member.data_dir, tmp_path / "backup")
            member.start()
            await store.commit([], [Put(f"{PREFIX}forgotten", b"x")], timeout=DEADLINE)
            await next_of(updates)
            member.kill()
            shutil.rmtree(member.data_dir)
            shutil.copytree(tmp_path / "backup", member.data_dir)
            member.start()

            update = await next_of(updates)

            assert isinstance(update, Snapshot)
            assert set(update.items) == {f"{PREFIX}kept"}
        await store.close()
