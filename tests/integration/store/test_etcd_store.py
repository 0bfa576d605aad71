"""EtcdStore on one real etcd member: the contract, and who may connect."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest
from etcd3aio.errors import EtcdError
from etcd3aio.kv import KVService

from fleet_controller.leader import Election
from fleet_controller.store.etcd import EtcdStore
from fleet_controller.store.interface import Changes, Put, Snapshot, Store, StoreUnavailable
from fleet_core.authority import create_authority, issue
from fleet_core.grpc_tls import server_credentials
from fleet_core.tls import Identity, Role
from tests.integration.etcd_cluster import EtcdCluster, running_etcd
from tests.unit.store.contract import StoreContract, next_of


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    cluster = EtcdCluster(tmp_path_factory.mktemp("etcd"))
    asyncio.run(cluster.start())
    yield cluster
    cluster.kill()


class TestEtcdStore(StoreContract):
    @pytest.fixture
    async def store(self, etcd: EtcdCluster) -> AsyncIterator[Store]:
        store = etcd.store()
        yield store
        await store.close()

    @pytest.fixture
    def prefix(self) -> str:
        return f"/{uuid.uuid4()}/"


async def test_an_agents_certificate_does_not_open_etcd(etcd: EtcdCluster) -> None:
    store = EtcdStore(etcd.endpoints, etcd.certificate_of(Role.AGENT))
    with pytest.raises(StoreUnavailable):
        await store.read("/", timeout=1.0)
    with pytest.raises(StoreUnavailable):
        await store.commit([], [Put("/a", b"")], timeout=1.0)
    await store.close()


async def test_etcd_speaks_to_nobody_in_plain_text(etcd: EtcdCluster) -> None:
    async with grpc.aio.insecure_channel(etcd.endpoints[0], options=[("grpc.enable_http_proxy", 0)]) as channel:
        with pytest.raises((EtcdError, TimeoutError)):
            await KVService(channel, max_attempts=1).get("/a", timeout=1.0)


async def test_members_with_another_name_in_their_certificates_are_reached_by_that_name(tmp_path: Path) -> None:
    cluster = EtcdCluster(tmp_path, hosts=["etcd.example"])
    for member in cluster.members:
        member.start()
    named = EtcdStore(cluster.endpoints, cluster.tls, server_name="etcd.example")
    unnamed = cluster.store()
    try:
        await named.read("/", timeout=20.0)
        with pytest.raises(StoreUnavailable):
            await unnamed.read("/", timeout=1.0)
    finally:
        await named.close()
        await unnamed.close()
        cluster.kill()


async def test_a_commit_whose_outcome_is_unknown_is_not_sent_again(tmp_path: Path) -> None:
    """Guards invariant 5: none takes effect twice."""
    create_authority(tmp_path)
    calls: list[bytes] = []

    async def refuse(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        calls.append(request)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: request timed out")

    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Txn": grpc.unary_unary_rpc_method_handler(refuse)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("etcdserverpb.KV", handlers),))
    identity = issue(tmp_path, Identity(Role.ETCD, "broken"), ["127.0.0.1"])
    port = server.add_secure_port("127.0.0.1:0", server_credentials(identity))
    await server.start()
    store = EtcdStore([f"127.0.0.1:{port}", f"127.0.0.1:{port}"], identity)
    try:
        with pytest.raises(StoreUnavailable):
            await store.commit([], [Put("/a", b"1")], timeout=2.0)
        assert len(calls) == 1
    finally:
        await store.close()
        await server.stop(0)


async def test_a_message_larger_than_grpcs_default_arrives(etcd: EtcdCluster) -> None:
    store = etcd.store()
    prefix = f"/{uuid.uuid4()}/"
    value = b"x" * 1_000_000
    async with aclosing(store.follow(prefix)) as updates:
        await next_of(updates)
        for number in range(8):
            await store.commit([], [Put(f"{prefix}{number}", value)])
        seen = 0
        while seen < 8:
            update = await next_of(updates)
            assert isinstance(update, Changes)
            seen += len(update.changes)
    assert len((await store.read(prefix)).items) == 8
    await store.close()


async def test_nothing_is_written_while_a_leader_leads_and_others_wait(tmp_path: Path) -> None:
    """Guards invariant 9."""
    async with running_etcd(tmp_path) as cluster:
        store = cluster.store()
        term = await Election(store, b"one").campaign()
        waiting = asyncio.create_task(Election(store, b"two").campaign())
        async with aclosing(store.follow("/")) as updates:
            await next_of(updates)
            before = (await store.read("/")).revision
            # Longer than the lease, so that renewals and progress requests were sent, and needed.
            done, _ = await asyncio.wait([waiting], timeout=5.0)
            assert not done
            assert (await store.read("/")).revision == before
        assert term.provable()
        waiting.cancel()
        await asyncio.wait([waiting])
        await term.resign()
        await store.close()


async def test_another_leads_within_five_seconds_of_a_leaders_silence(tmp_path: Path) -> None:
    async with running_etcd(tmp_path) as cluster:
        dying, living = cluster.store(), cluster.store()
        old = await Election(dying, b"one").campaign()
        waiting = asyncio.create_task(Election(living, b"two").campaign())
        await asyncio.wait([waiting], timeout=1.0)
        await dying.close()
        async with asyncio.timeout(5.0):
            new = await waiting
        assert new.create_revision > old.create_revision
        assert not old.provable()
        await old.resign()
        await new.resign()
        await living.close()


async def test_a_restarted_leader_need_not_wait_for_its_own_lease(tmp_path: Path) -> None:
    async with running_etcd(tmp_path) as cluster:
        killed, restarted = cluster.store(), cluster.store()
        old = await Election(killed, b"one").campaign()
        await killed.close()
        async with asyncio.timeout(1.5):
            new = await Election(restarted, b"one").campaign()
        assert new.create_revision > old.create_revision
        await old.resign()
        await new.resign()
        await restarted.close()


async def test_a_follower_goes_on_where_it_was_after_etcd_restarted(tmp_path: Path) -> None:
    async with running_etcd(tmp_path) as cluster:
        store = cluster.store()
        async with aclosing(store.follow("/a")) as updates:
            assert isinstance(await next_of(updates), Snapshot)
            cluster.members[0].kill()
            cluster.members[0].start()
            revision = await store.commit([], [Put("/a", b"1")], timeout=10.0)
            update = await next_of(updates)
            assert isinstance(update, Changes)
            assert update.revision == revision
        await store.close()
