"""Clients that stick to a worker by a cookie, seen from their side."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from fleet_balancer.haproxy.binary import Binary
from fleet_balancer.haproxy.driver import HaproxyDriver
from tests.integration.balancer.harness import HEALTH_PATH, Answer, ask, backends, eventually, pool
from tests.integration.balancer.tls import TlsClient
from tests.ports import free_port

sticky = partial(pool, sticky=True)


class Browser:
    """One client: keeps the cookie it was given, and nothing else."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self._port = port
        self.cookie = cookie

    async def ask(self, path: str = "/", method: str = "GET", **headers: str) -> Answer:
        if self.cookie:
            headers["Cookie"] = f"mine=1; {self.cookie}; yours=2"
        answer = await ask(self._port, path, method=method, body=b"x" * (method == "POST"), headers=headers)
        if given := answer.headers.get("set-cookie"):
            self.cookie = given.partition(";")[0]
        return answer

    async def worker(self, method: str = "GET") -> str:
        answer = await self.ask(method=method)
        assert answer.status == 200
        return answer.body


async def test_a_client_stays_with_its_worker_whatever_the_method(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(4) as servers:
        await driver.start({"web": sticky(port, servers)})
        first = Browser(port)
        given = (await first.ask()).headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Lax", "path=/"} <= set(given.split("; "))
        mine = await first.worker()
        methods = ("GET", "POST", "PUT", "GET", "DELETE") * 4
        assert {await first.worker(method) for method in methods} == {mine}
        assert {await Browser(port).worker() for _ in range(12)} == {server.name for server in servers}
        # The cookie is between client and balancer: the app sees its own alone, and it is not set again.
        answer = await first.ask(**{"X-Echo": "request"})
        assert "Cookie: mine=1; yours=2" in answer.body or "cookie: mine=1; yours=2" in answer.body
        assert "set-cookie" not in answer.headers


async def test_a_worker_that_drains_keeps_its_clients_for_a_while_and_gets_no_others(driver: HaproxyDriver) -> None:
    """Guards invariant 7: it is not reported as drained while anybody may be sent there."""
    port = free_port()
    async with backends(2) as servers:
        leaving, staying = servers
        worker = ("web", leaving.endpoint().worker)
        await driver.start({"web": sticky(port, servers, sticky_drain_seconds=600)})
        holder = Browser(port)
        while await holder.worker() != leaving.name:
            holder = Browser(port)
        pid = driver.pid
        lists = partial(sticky, port, [staying], draining=[leaving])
        assert await driver.apply({"web": lists(sticky_drain_seconds=600)}) == {}
        assert await holder.worker() == leaving.name
        assert await holder.worker("POST") == leaving.name
        assert (await driver.in_flight())[worker] == 1, "a client may come at any moment"
        assert {await Browser(port).worker() for _ in range(6)} == {staying.name}
        assert await driver.apply({"web": lists(sticky_drain_seconds=0.1)}) == {}
        await eventually(partial(_in_flight_is, driver, worker, 0), "its time is over")
        before = leaving.requests
        assert await holder.worker() == staying.name
        assert await holder.worker("POST") == staying.name
        assert (leaving.requests, driver.pid) == (before, pid)


async def _in_flight_is(driver: HaproxyDriver, worker: object, count: int) -> bool:
    return (await driver.in_flight()).get(worker) == count  # type: ignore[call-overload,no-any-return]


async def test_a_request_that_lasts_longer_than_a_drain_keeps_its_clients_is_finished(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(2) as servers:
        leaving, staying = servers
        worker = ("web", leaving.endpoint().worker)
        await driver.start({"web": sticky(port, servers, sticky_drain_seconds=0.2)})
        holder = Browser(port)
        while await holder.worker() != leaving.name:
            holder = Browser(port)
        long = asyncio.create_task(holder.ask("/hold"))
        before = leaving.requests
        await eventually(lambda: leaving.requests > before, "the long request is there")
        await driver.apply({"web": sticky(port, [staying], draining=[leaving], sticky_drain_seconds=0.2)})
        other = Browser(port, holder.cookie)
        await eventually(partial(_answers, other, staying.name), "the clients are sent elsewhere")
        assert (await driver.in_flight())[worker] == 1
        leaving.release.set()
        assert (await long).body == leaving.name
        await eventually(partial(_in_flight_is, driver, worker, 0), "drained")


async def _answers(browser: Browser, name: str) -> bool:
    return await Browser(browser._port, browser.cookie).worker() == name


async def test_another_process_knows_who_sticks_where_also_in_the_middle_of_a_drain(driver: HaproxyDriver) -> None:
    port, other = free_port(), free_port()
    async with backends(4) as servers:
        leaving = servers[0]
        await driver.start({"web": sticky(port, servers[:3])})
        holders = [Browser(port) for _ in range(6)]
        mine = [await holder.worker() for holder in holders]
        drain = sticky(port, servers[1:3], draining=[leaving])
        assert await driver.apply({"web": drain}) == {}
        pid = driver.pid
        assert await driver.apply({"web": drain, "api": pool(other, servers[3:], "api")}) == {}
        assert driver.pid != pid
        assert [await holder.worker() for holder in holders] == mine
        assert leaving.name in mine
        assert leaving.name not in {await Browser(port).worker() for _ in range(6)}


async def test_a_cookie_is_of_a_worker_not_of_its_slot(driver: HaproxyDriver) -> None:
    """A worker takes the slot of another: whoever stuck to that one is no more bound to it than anybody."""
    port = free_port()
    async with backends(3) as servers:
        # Slots are filled in the order of addresses, and the first free one is taken.
        old, other = sorted(servers[:2], key=lambda server: server.target)
        new = servers[2]
        await driver.start({"web": sticky(port, [old, other])})
        holder = Browser(port)
        while await holder.worker() != old.name:
            holder = Browser(port)
        cookie = holder.cookie
        await driver.apply({"web": sticky(port, [other])})
        pid = driver.pid
        await driver.apply({"web": sticky(port, [other, new])})
        seen = set()
        for _ in range(6):
            again = Browser(port, cookie)
            seen.add(await again.worker())
            assert again.cookie != cookie, "a cookie of nobody is replaced"
        assert seen == {other.name, new.name}
        await driver.apply({"web": sticky(port, [old, other, new])})
        assert {await Browser(port, cookie).worker() for _ in range(6)} == {old.name}
        assert driver.pid == pid


async def test_apps_do_not_know_each_others_cookies(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(4) as servers:
        pools = {
            "a": sticky(port, servers, "a", paths=("/a",)),
            "b": sticky(port, servers, "b", paths=("/b",)),
        }
        await driver.start(pools)
        one = (await ask(port, "/a")).headers["set-cookie"].partition(";")[0]
        two = (await ask(port, "/b")).headers["set-cookie"].partition(";")[0]
        assert one.startswith("fleet-a=")
        assert two.startswith("fleet-b=")
        # The same workers, and yet nobody can tell one app's cookies from another's.
        digest = one.partition("=")[2]
        answer = await ask(port, "/b", headers={"Cookie": f"fleet-b={digest}"})
        assert "set-cookie" in answer.headers
        both = {"Cookie": f"{one}; {two}"}
        for path in ("/a", "/b"):
            assert len({(await ask(port, path, headers=both)).body for _ in range(6)}) == 1


async def test_either_balancer_sends_a_client_to_the_same_worker(
    driver: HaproxyDriver, tmp_path: Path, haproxy: Binary
) -> None:
    port, second = free_port(), free_port()
    (tmp_path / "other").mkdir()
    other = HaproxyDriver(tmp_path / "other", haproxy)
    stranger = HaproxyDriver(tmp_path / "stranger", haproxy, secret=b"of another fleet")
    (tmp_path / "stranger").mkdir()
    third = free_port()
    try:
        async with backends(4) as servers:
            await driver.start({"web": sticky(port, servers)})
            await other.start({"web": sticky(second, servers[::-1])})
            await stranger.start({"web": sticky(third, servers)})
            for _ in range(6):
                client = Browser(port)
                name = await client.worker()
                assert await Browser(second, client.cookie).worker() == name
                foreign = Browser(third, client.cookie)
                await foreign.worker()
                assert foreign.cookie != client.cookie
    finally:
        await other.stop(0)
        await stranger.stop(0)


async def test_who_sticks_to_a_hidden_worker_is_sent_elsewhere_and_nobody_sticks_to_a_reserve(
    driver: HaproxyDriver,
) -> None:
    port = free_port()
    async with backends(2) as servers:
        ill, well = servers
        await driver.start({"web": sticky(port, servers, health_path=HEALTH_PATH)})
        holder = Browser(port)
        while await holder.worker() != ill.name:
            holder = Browser(port)
        first = holder.cookie
        ill.ill = True
        await eventually(partial(_answers, holder, well.name), "the ill one is hidden from its own clients too")
        well.ill = True
        # Now reserves serve, all of them alike, and their clients stick to none.
        client = Browser(port)
        await eventually(partial(_both_answer, client, {ill.name, well.name}), "the reserves serve")
        ill.ill = well.ill = False
        await eventually(partial(_nobody_is_hidden, driver), "both are shown again")
        assert {await Browser(port, first).worker() for _ in range(6)} == {ill.name}, "the cookie is good again"
        name = await client.worker()
        assert {await client.worker() for _ in range(6)} == {name}


async def _nobody_is_hidden(driver: HaproxyDriver) -> bool:
    return not any(one.hidden for one in await driver.observed())


async def _both_answer(browser: Browser, names: set[str]) -> bool:
    return {await browser.worker() for _ in range(8)} == names


@pytest.mark.parametrize("also_http", [False, True])
async def test_a_cookie_of_an_app_reached_by_https_alone_is_never_sent_in_clear(
    driver: HaproxyDriver, also_http: bool
) -> None:
    port, plain = free_port(), free_port()
    async with backends(1) as servers:
        route = {"https": f"127.0.0.1:{port}"} | ({"http": f"127.0.0.1:{plain}"} if also_http else {})
        await driver.start({"web": sticky(None, servers, **route)})
        async with TlsClient(port, "a.test") as client:
            given = (await client.ask()).headers["set-cookie"]
        assert ("secure" in given.lower().split("; ")) is not also_http
