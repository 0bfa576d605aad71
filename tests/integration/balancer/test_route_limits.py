"""A newcomer's share of the requests, seen by a client of a real HAProxy."""

from collections import Counter

import pytest

from fleet_balancer.haproxy.driver import HaproxyDriver
from tests.integration.balancer.harness import Backend, Load, backends, eventually, pool
from tests.ports import free_port

CLIENTS = 16


async def share(load: Load, backend: Backend, count: int) -> float:
    """Of the next `count` requests."""
    before = Counter(load.answered)
    await load.more(count)
    since = load.answered - before
    return since[backend.name] / since.total()


@pytest.mark.parametrize("post_share", [0, 1], ids=["GET", "POST"])
async def test_a_newcomer_gets_its_share_little_by_little(driver: HaproxyDriver, post_share: int) -> None:
    port = free_port()
    async with backends(2) as (old, new):
        old.delay = new.delay = 0.02
        settings = {"slow_start_seconds": 4}
        await driver.start({"web": pool(port, [old], **settings)})
        async with Load(port, CLIENTS, post_share=post_share) as load:
            await load.more(2 * CLIENTS)
            await driver.apply({"web": pool(port, [old, new], **settings)})
            early = await share(load, new, 5 * CLIENTS)

            async def even() -> bool:
                return await share(load, new, 5 * CLIENTS) > 0.4

            await eventually(even, "the newcomer gets as much as the other one", 30)
        assert load.failures == []
        assert early < 0.3


async def test_without_a_slow_start_a_newcomer_has_its_share_at_once(driver: HaproxyDriver) -> None:
    """So the other test measures the setting."""
    port = free_port()
    async with backends(2) as (old, new):
        old.delay = new.delay = 0.02
        await driver.start({"web": pool(port, [old])})
        async with Load(port, CLIENTS) as load:
            await load.more(2 * CLIENTS)
            await driver.apply({"web": pool(port, [old, new])})
            assert await share(load, new, 5 * CLIENTS) > 0.35
        assert load.failures == []
