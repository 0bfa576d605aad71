"""Several apps on one address, seen by a client of a real HAProxy."""

import asyncio
from typing import Any

import pytest

from fleet_balancer.driver import DriverError, Pool
from fleet_balancer.haproxy.driver import HaproxyDriver
from tests.integration.balancer.harness import Backend, Load, ask, backends, eventually, pool
from tests.ports import free_port


async def answered(port: int, host: str, path: str = "/", method: str = "GET") -> str:
    """The name of the backend that answered, or the status."""
    answer = await ask(port, path, method=method, host=host)
    return answer.body if answer.status == 200 else str(answer.status)


def sharing(port: int, servers: list[Backend], **settings: dict[str, Any]) -> dict[str, Pool]:
    """Pools of one backend each, by name, at one port."""
    return {
        name: pool(port, [server], name, **chosen)
        for server, (name, chosen) in zip(servers, settings.items(), strict=True)
    }


async def test_apps_on_one_address_are_told_apart_by_host_and_path(driver: HaproxyDriver) -> None:
    """The most precise host wins, then the longest path; what matches no app is 404."""
    port = free_port()
    async with backends(6) as servers:
        names = [server.name for server in servers]
        shop, api, wild, anyone, v1, other = names
        pools = sharing(
            port,
            servers,
            shop={"hosts": ("shop.test", "www.shop.test")},
            api={"hosts": ("shop.test",), "paths": ("/api", "/rpc/")},
            wild={"hosts": ("*.shop.test",)},
            anyone={"paths": ("/api",)},
            v1={"hosts": ("shop.test",), "paths": ("/api/v1",)},
            other={"hosts": ("other.test",), "paths": ("/only",)},
        )
        assert await driver.start(pools) == {}
        for host, path, expected in (
            ("shop.test", "/", shop),
            ("SHOP.test:8080", "/x?y=/api", shop),
            ("www.shop.test", "/api", shop),
            ("shop.test", "/api", api),
            ("shop.test", "/api?q", api),
            ("shop.test", "/api/", api),
            ("shop.test", "/rpc", api),
            ("shop.test", "/apis", shop),
            ("shop.test", "/API", shop),
            ("shop.test", "/api/v1", v1),
            ("shop.test", "/api/v1/x", v1),
            ("shop.test", "/api/v10", api),
            ("a.shop.test", "/api", wild),
            ("a.b.shop.test", "/", "404"),
            ("a.b.shop.test", "/api/x", anyone),
            ("other.test", "/only/this", other),
            ("other.test", "/api", anyone),
            ("other.test", "/", "404"),
            ("[::1]:80", "/api", anyone),
            ("nobody.test", "/", "404"),
        ):
            for method in ("GET", "POST"):
                assert await answered(port, host, path, method) == expected, (method, host, path)


async def test_one_app_with_a_host_serves_no_other(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(1) as servers:
        await driver.start({"web": pool(port, servers, hosts=("web.test",))})
        assert await answered(port, "web.test") == servers[0].name
        answer = await ask(port, host="else.test")
        assert (answer.status, answer.body) == (404, "No app is reached by this host and path.\n")


async def test_a_path_is_stripped_for_the_app_that_asks_for_it(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(2) as servers:
        api = {"paths": ("/api", "/api/v1.0"), "strip_path": True}
        await driver.start(sharing(port, servers, api=api, web={"paths": ("/plain",)}))
        for asked, seen in (
            ("/api", "/"),
            ("/api/", "/"),
            ("/api/x/y?z=/api", "/x/y?z=/api"),
            ("/api/v1.0", "/"),
            ("/api/v1.0/x", "/x"),
            ("/api/v1x0", "/v1x0"),
            ("/plain", "/plain"),
        ):
            for method in ("GET", "POST"):
                answer = await ask(port, asked, method=method, headers={"X-Echo": "request"})
                assert answer.body.splitlines()[0] == f"{method} {seen} HTTP/1.1"


async def test_a_newcomer_on_a_shared_address_disturbs_nobody(driver: HaproxyDriver) -> None:
    """Under load: a second app, another path of the first, the second one gone."""
    port = free_port()
    async with backends(3) as servers:
        await driver.start({"web": pool(port, servers[:2])})
        async with Load(port) as load:
            await load.more(50)
            both = {"web": pool(port, servers[:2]), "api": pool(port, servers[2:], "api", hosts=("api.test",))}
            assert await driver.apply(both) == {}
            assert await answered(port, "api.test") == servers[2].name
            await load.more(100)
            both["web"] = pool(port, servers[:2], paths=("/", "/more"))
            assert await driver.apply(both) == {}
            await load.more(100)
            assert await driver.apply({"web": both["web"]}) == {}
            await load.more(100)
        assert load.failures == []
        assert set(load.answered) == {server.name for server in servers[:2]}
        assert await answered(port, "api.test") != servers[2].name


async def test_lists_of_apps_on_one_address_change_without_another_process(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(3) as servers:
        pools = sharing(port, servers[:2], a={"hosts": ("a.test",)}, b={"hosts": ("b.test",)})
        await driver.start(pools)
        pid = driver.pid
        pools["a"] = pool(port, servers[2:], "a", hosts=("a.test",))
        assert await driver.apply(pools) == {}
        assert (await answered(port, "a.test"), driver.pid) == (servers[2].name, pid)


async def test_who_has_a_host_and_path_keeps_it(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(2) as servers:
        first, second = (
            pool(port, [server], name, hosts=("a.test",)) for server, name in zip(servers, "zy", strict=True)
        )
        await driver.start({"z": first})
        with pytest.raises(DriverError, match=r"for a\.test is the route of z already: give y another"):
            await driver.validate(second)
        refused = await driver.apply({"z": first, "y": second})
        assert list(refused) == ["y"]
        assert await answered(port, "a.test") == servers[0].name
        assert await driver.apply({"y": second}) == {}
        await eventually(lambda: _is(port, "a.test", servers[1].name), "the freed host is the other app's")


async def _is(port: int, host: str, name: str) -> bool:
    return await answered(port, host) == name


async def test_a_restarted_driver_adopts_a_shared_address(driver: HaproxyDriver, tmp_path: Any, haproxy: Any) -> None:
    port = free_port()
    async with backends(2) as servers:
        pools = sharing(port, servers, a={"hosts": ("a.test",)}, b={"paths": ("/b",), "strip_path": True})
        await driver.start(pools)
        pid = driver.pid
        await driver.close()
        again = HaproxyDriver(tmp_path, haproxy)
        assert await again.start(pools) == {}
        assert again.pid == pid, "nothing changed, so the process stays"
        assert await asyncio.gather(answered(port, "a.test"), answered(port, "x", "/b")) == [
            one.name for one in servers
        ]
        await again.close()
