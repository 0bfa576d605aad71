"""How many requests a client may send, seen from its side through a real HAProxy."""

import asyncio
from collections import Counter

from fleet_balancer.haproxy.driver import HaproxyDriver
from tests.integration.balancer.harness import ask, backends, eventually, pool
from tests.ports import free_port


async def test_more_requests_than_said_are_refused_until_the_time_is_over(driver: HaproxyDriver) -> None:
    """Of all methods together, whatever backend they go through; what is refused reaches no worker."""
    port = free_port()
    async with backends(1) as servers:
        limit = {"requests": 4, "per_seconds": 2}
        assert await driver.start({"web": pool(port, servers, rate_limit=limit)}) == {}
        statuses = [(await ask(port, method=method)).status for method in ("GET", "POST") * 4]
        assert statuses == [200] * 4 + [429] * 4
        answer = await ask(port)
        assert (answer.status, answer.headers["retry-after"]) == (429, "2")
        assert (answer.headers["content-type"], answer.body) == ("text/plain", "Too many requests.\n")
        assert servers[0].requests == 4

        async def admitted() -> bool:
            await asyncio.sleep(0.5)
            return (await ask(port)).status == 200

        await eventually(admitted, "the client asked little for long enough")


async def test_apps_on_one_address_are_counted_apart(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(3) as servers:
        limit = {"requests": 2, "per_seconds": 60}
        pools = {
            "web": pool(port, servers[:1], rate_limit=limit),
            "api": pool(port, servers[1:2], "api", paths=("/api",), rate_limit=limit),
            "free": pool(port, servers[2:], "free", paths=("/free",)),
        }
        await driver.start(pools)
        seen: Counter[tuple[str, int]] = Counter()
        for _ in range(4):
            for path in ("/", "/api", "/free"):
                seen[path, (await ask(port, path)).status] += 1
        assert seen == {("/", 200): 2, ("/", 429): 2, ("/api", 200): 2, ("/api", 429): 2, ("/free", 200): 4}


async def test_a_page_for_who_asks_too_often(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(1) as servers:
        limit = {"requests": 1, "per_seconds": 60}
        await driver.start({"web": pool(port, servers, rate_limit=limit, error_pages={429: "<h1>slowly</h1>"})})
        await ask(port)
        answer = await ask(port)
        assert (answer.status, answer.body, answer.headers["retry-after"]) == (429, "<h1>slowly</h1>", "60")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"


async def test_counts_stand_while_workers_change_and_begin_anew_in_another_process(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(2) as servers:
        limit = {"requests": 1, "per_seconds": 60}
        await driver.start({"web": pool(port, servers[:1], rate_limit=limit)})
        assert [(await ask(port)).status for _ in range(2)] == [200, 429]
        await driver.apply({"web": pool(port, servers[1:], rate_limit=limit)})
        assert (await ask(port)).status == 429
        pid = driver.pid
        await driver.apply({"web": pool(port, servers, rate_limit=limit, hosts=("test",))})
        assert driver.pid != pid
        assert (await ask(port)).status == 200
