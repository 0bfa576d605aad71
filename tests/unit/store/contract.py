"""What every Store does. Run against the one in memory and the one on etcd, so that tests with the fake prove something."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from fleet_controller.store.interface import (
    Changes,
    Conflict,
    Created,
    Delete,
    Item,
    LeaseGone,
    Put,
    Snapshot,
    Store,
    StoreError,
    Unchanged,
)

DEADLINE = 10.0


async def next_of(updates: AsyncGenerator[Snapshot | Changes, None]) -> Snapshot | Changes:
    async with asyncio.timeout(DEADLINE):
        return await anext(updates)


class StoreContract:
    """Subclasses give the fixtures `store`, and `prefix`, below which nothing was ever written."""

    async def test_a_commit_is_read_back_with_its_revisions(self, store: Store, prefix: str) -> None:
        first = await store.commit([], [Put(f"{prefix}a", b"1"), Put(f"{prefix}b", b"2")])
        second = await store.commit([], [Put(f"{prefix}a", b"3")])

        snapshot = await store.read(prefix)

        assert second == first + 1
        assert snapshot.revision >= second
        assert snapshot.items == {
            f"{prefix}a": Item(f"{prefix}a", b"3", first, second),
            f"{prefix}b": Item(f"{prefix}b", b"2", first, first),
        }

    async def test_a_read_holds_what_starts_with_its_prefix_and_nothing_else(self, store: Store, prefix: str) -> None:
        await store.commit([], [Put(f"{prefix}a/x", b""), Put(f"{prefix}a", b""), Put(f"{prefix}b", b"")])

        assert set((await store.read(f"{prefix}a")).items) == {f"{prefix}a/x", f"{prefix}a"}

    async def test_a_read_of_many_keys_is_complete(self, store: Store, prefix: str) -> None:
        keys = [f"{prefix}{number:04}" for number in range(1_100)]
        for start in range(0, len(keys), 100):
            await store.commit([], [Put(key, key.encode()) for key in keys[start : start + 100]])

        snapshot = await store.read(prefix)

        assert {key: item.value for key, item in snapshot.items.items()} == {key: key.encode() for key in keys}

    async def test_a_failed_expectation_writes_nothing_and_names_its_key(self, store: Store, prefix: str) -> None:
        revision = await store.commit([], [Put(f"{prefix}a", b"1"), Put(f"{prefix}b", b"1")])
        await store.commit([], [Put(f"{prefix}b", b"2")])
        before = await store.read(prefix)

        with pytest.raises(Conflict) as conflict:
            await store.commit(
                [Unchanged(f"{prefix}a", revision), Unchanged(f"{prefix}b", revision)], [Put(f"{prefix}a", b"9")]
            )

        assert conflict.value.key == f"{prefix}b"
        assert await store.read(prefix) == before

    async def test_a_key_expected_to_be_absent_is_created_once(self, store: Store, prefix: str) -> None:
        await store.commit([Unchanged(f"{prefix}a", 0)], [Put(f"{prefix}a", b"1")])

        with pytest.raises(Conflict):
            await store.commit([Unchanged(f"{prefix}a", 0)], [Put(f"{prefix}a", b"2")])

    async def test_created_holds_through_later_writes_but_not_through_a_new_creation(
        self, store: Store, prefix: str
    ) -> None:
        revision = await store.commit([], [Put(f"{prefix}a", b"1")])
        await store.commit([], [Put(f"{prefix}a", b"2")])
        await store.commit([Created(f"{prefix}a", revision)], [Put(f"{prefix}b", b"1")])

        await store.commit([], [Delete(f"{prefix}a")])
        with pytest.raises(Conflict):
            await store.commit([Created(f"{prefix}a", revision)], [Put(f"{prefix}b", b"2")])
        await store.commit([], [Put(f"{prefix}a", b"3")])
        with pytest.raises(Conflict):
            await store.commit([Created(f"{prefix}a", revision)], [Put(f"{prefix}b", b"2")])

    async def test_deleting_what_is_not_there_raises_no_revision(self, store: Store, prefix: str) -> None:
        before = (await store.read(prefix)).revision

        assert await store.commit([], [Delete(f"{prefix}a")]) == before

    async def test_what_the_store_refuses_writes_nothing(self, store: Store, prefix: str) -> None:
        before = await store.read(prefix)

        with pytest.raises(StoreError):
            await store.commit([], [Put(f"{prefix}a", b"1"), Put(f"{prefix}a", b"2")])
        with pytest.raises(StoreError):
            await store.commit([], [Put(f"{prefix}{number}", b"") for number in range(129)])

        assert await store.read(prefix) == before

    async def test_a_follower_gets_a_snapshot_and_then_whole_transactions(self, store: Store, prefix: str) -> None:
        first = await store.commit([], [Put(f"{prefix}a", b"1")])
        async with aclosing(store.follow(prefix)) as updates:
            snapshot = await next_of(updates)
            assert isinstance(snapshot, Snapshot)
            assert snapshot.items == {f"{prefix}a": Item(f"{prefix}a", b"1", first, first)}

            second = await store.commit([], [Put(f"{prefix}b", b"2"), Delete(f"{prefix}a"), Put("/elsewhere", b"")])

            expected = [(f"{prefix}b", Item(f"{prefix}b", b"2", second, second)), (f"{prefix}a", None)]
            assert await next_of(updates) == Changes(second, expected)

    async def test_a_follower_misses_and_repeats_nothing_of_a_busy_writer(self, store: Store, prefix: str) -> None:
        async def write() -> None:
            for number in range(200):
                await store.commit([], [Put(f"{prefix}{number % 7}", str(number).encode())])

        seen: list[bytes] = []
        async with aclosing(store.follow(prefix)) as updates:
            assert isinstance(await next_of(updates), Snapshot)
            writer = asyncio.create_task(write())
            while len(seen) < 200:
                update = await next_of(updates)
                assert isinstance(update, Changes)
                seen += [item.value for _, item in update.changes if item is not None]
            await writer

        assert seen == [str(number).encode() for number in range(200)]

    async def test_followers_do_not_disturb_each_other(self, store: Store, prefix: str) -> None:
        async with aclosing(store.follow(prefix)) as one:
            await next_of(one)
            async with aclosing(store.follow(prefix)) as other:
                await next_of(other)
            revision = await store.commit([], [Put(f"{prefix}a", b"1")])
            assert (await next_of(one)).revision == revision

    async def test_keys_go_with_their_revoked_lease(self, store: Store, prefix: str) -> None:
        lease = await store.grant_lease(30)
        await store.commit([], [Put(f"{prefix}a", b"1", lease.identifier), Put(f"{prefix}b", b"1")])
        assert await store.keep_lease(lease)

        await store.revoke_lease(lease)

        assert set((await store.read(prefix)).items) == {f"{prefix}b"}
        assert not await store.keep_lease(lease)
        await store.revoke_lease(lease)
        with pytest.raises(LeaseGone):
            await store.commit([], [Put(f"{prefix}a", b"1", lease.identifier)])

    async def test_a_lease_lives_while_it_is_renewed_and_its_key_no_longer(self, store: Store, prefix: str) -> None:
        lease = await store.grant_lease(2)
        await store.commit([], [Put(f"{prefix}a", b"1", lease.identifier)])
        clock = asyncio.get_running_loop().time
        async with aclosing(store.follow(prefix)) as updates:
            await next_of(updates)
            gone = asyncio.create_task(next_of(updates))
            for _ in range(5):
                assert await store.keep_lease(lease)
                renewed_at = clock()
                await asyncio.wait([gone], timeout=0.5)
            assert not gone.done()
            assert (await gone).changes == [(f"{prefix}a", None)]  # type: ignore[union-attr]
        assert clock() - renewed_at >= 1.9

    async def test_a_closed_store_refuses_and_ends_its_followers(self, store: Store, prefix: str) -> None:
        updates = store.follow(prefix)
        await next_of(updates)
        waiting = asyncio.create_task(next_of(updates))
        await asyncio.sleep(0)

        await store.close()

        with pytest.raises(StoreError):
            await waiting
        with pytest.raises(StoreError):
            await store.read(prefix)
        with pytest.raises(StoreError):
            await store.commit([], [Put(f"{prefix}a", b"1")])
