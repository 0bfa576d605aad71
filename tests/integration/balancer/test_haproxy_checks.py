"""Health checks with a real HAProxy: they hide what does not answer, they add nobody, and they never leave a pool empty."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from fleet_balancer.haproxy.binary import Binary
from fleet_balancer.haproxy.driver import HaproxyDriver
from tests.integration.balancer.harness import HEALTH_PATH, Backend, Connection, Load, backends, eventually, get, pool
from tests.ports import free_port

_DETECTION = 3.5
"""Longer than it takes to hide a worker; how long that takes is not measured here."""

asked = partial(pool, health_path=HEALTH_PATH)


async def hidden(driver: HaproxyDriver, *servers: Backend) -> bool:
    """Whether the checks hide these and no others."""
    return {one.target for one in await driver.observed() if one.hidden} == {server.target for server in servers}


async def test_a_frozen_worker_is_hidden_and_shown_again_when_it_answers(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(3) as servers:
        frozen = servers[0]
        await driver.start({"web": asked(port, servers)})
        frozen.thawed.clear()
        await eventually(partial(hidden, driver, frozen), "the frozen one is hidden")
        before = frozen.requests
        async with Load(port) as load:
            await load.more(300)
        assert load.failures == []
        assert frozen.requests == before
        frozen.thawed.set()
        await eventually(partial(hidden, driver), "shown again")
        async with Load(port) as load:
            await eventually(lambda: frozen.requests > before, "used again")


async def test_a_busy_worker_without_a_health_path_is_not_hidden(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(2) as servers:
        await driver.start({"web": pool(port, servers)})
        servers[0].thawed.clear()
        with pytest.raises(AssertionError, match="not within"):
            await eventually(partial(hidden, driver, servers[0]), "hidden", _DETECTION)
        assert await hidden(driver)


async def test_workers_that_all_fail_their_check_are_served_all_the_same(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(3) as servers:
        for server in servers:
            server.ill = True
        await driver.start({"web": asked(port, servers)})
        await eventually(partial(hidden, driver, *servers), "all are hidden")
        async with Load(port) as load:
            await load.more(300)
            servers[0].ill = False
            await eventually(partial(hidden, driver, *servers[1:]), "one is well")
            load.answered.clear()
            await load.more(100)
            rest = sum(load.answered[server.name] for server in servers[1:])
            assert rest <= 8, "but for what was under way, only the one that is well is chosen"
        assert load.failures == []
        assert max(servers[0].posts.values()) == 1


async def test_requests_to_an_app_whose_workers_are_all_busy_wait(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(2) as servers:
        await driver.start({"web": asked(port, servers)})
        for server in servers:
            server.thawed.clear()
        await eventually(partial(hidden, driver, *servers), "all are hidden")
        waiting = Connection(port)
        await waiting.send()
        await eventually(lambda: sum(server.requests for server in servers) == 1, "the request is with a worker")
        for server in servers:
            server.thawed.set()
        assert (await waiting.receive())[0] == 200
        waiting.close()


@pytest.mark.parametrize("health_path", ["", HEALTH_PATH])
async def test_an_app_whose_workers_are_all_gone_answers_503_at_once(driver: HaproxyDriver, health_path: str) -> None:
    port = free_port()
    async with backends(2) as servers:
        await driver.start({"web": pool(port, servers, health_path=health_path)})
        for server in servers:
            await server.stop()

        async def unavailable() -> bool:
            return (await get(port))[0] == 503

        await eventually(unavailable, "503")


async def test_checks_add_nobody_who_is_not_listed(driver: HaproxyDriver) -> None:
    """Guards invariant 7: with every listed worker hidden, neither a draining nor a removed one is chosen."""
    port = free_port()
    async with backends(4) as servers:
        listed, draining, removed = servers[:2], servers[2], servers[3]
        await driver.start({"web": asked(port, servers)})
        await driver.apply({"web": asked(port, listed, draining=[draining])})
        for server in listed:
            server.ill = True
        await eventually(partial(hidden, driver, *listed), "every listed one is hidden")
        before = draining.requests, removed.requests
        async with Load(port) as load:
            await load.more(300)
        assert load.failures == []
        assert (draining.requests, removed.requests) == before


async def test_a_hundred_list_changes_with_reserves_lose_no_request(driver: HaproxyDriver) -> None:
    """Guards invariant 7."""
    port = free_port()
    async with backends(6) as servers:
        for server in servers[::2]:
            server.ill = True
        await driver.start({"web": asked(port, servers[:3])})
        pid = driver.pid
        async with Load(port) as load:
            for turn in range(100):
                first, second = turn % 6, (turn + 1) % 6
                listed = [server for index, server in enumerate(servers) if index not in (first, second)]
                assert await driver.apply({"web": asked(port, listed, draining=[servers[second]])}) == {}
                await asyncio.sleep(0.005)
            await load.more(200)
        assert load.failures == []
        assert driver.pid == pid, "no reload"
        assert max(servers[0].posts.values()) == 1


async def test_a_health_path_that_comes_and_goes_under_load_loses_no_request(
    tmp_path: Path, haproxy: Binary, driver: HaproxyDriver
) -> None:
    port = free_port()
    async with backends(3) as servers:
        servers[0].ill = True
        await driver.start({"web": pool(port, servers)})
        async with Load(port) as load:
            await load.more(50)
            assert await driver.apply({"web": asked(port, servers)}) == {}
            await eventually(partial(hidden, driver, servers[0]), "hidden")
            await driver.close()
            successor = HaproxyDriver(tmp_path, haproxy)
            await successor.start({"web": asked(port, servers)})
            await load.more(100)
            assert await successor.apply({"web": pool(port, servers)}) == {}
            assert await hidden(successor)
            await load.more(100)
        assert load.failures == []
        await successor.close()


async def test_a_worker_killed_again_and_again_loses_no_get(driver: HaproxyDriver) -> None:
    """Every 200 ms another one is gone, and back on its address: requests of other methods fail only where they were read."""
    port = free_port()
    async with backends(4) as servers:
        for server in servers:
            server.delay = 0.01
        await driver.start({"web": asked(port, servers)})
        in_flight = 0
        async with Load(port, clients=16) as load:
            for turn in range(25):
                victim = servers[turn % 4]
                old_port = victim.port
                in_flight += load.outstanding["POST"]
                await victim.stop()
                await victim.start(old_port)
                await asyncio.sleep(0.2)
            await load.more(100)
        assert [failure for failure in load.failures if failure.startswith("GET")] == []
        assert len(load.failures) <= in_flight
        assert max(servers[0].posts.values()) == 1


async def test_a_post_whose_connection_is_refused_goes_to_another_worker(driver: HaproxyDriver) -> None:
    """Nothing was sent, so nothing is repeated; the worker is gone and back so often that no check keeps it hidden."""
    port = free_port()
    async with backends(3) as servers:
        await driver.start({"web": pool(port, servers)})
        async with Load(port, clients=8, post_share=1) as load:
            for _ in range(8):
                # Out of the list while it ends, so that no request is with it; listed while nobody listens.
                await driver.apply({"web": pool(port, servers[:2])})
                gone, old_port = servers[2], servers[2].port
                await load.more(20)
                await gone.stop()
                await driver.apply({"web": pool(port, servers)})
                await load.more(50)
                await gone.start(old_port)
                await eventually(partial(hidden, driver), "shown again")
        assert load.failures == []
        assert load.answered.total() == load.total
        assert max(servers[0].posts.values()) == 1
