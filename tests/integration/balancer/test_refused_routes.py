"""A route that HAProxy does not want: told in its words, before or after the fact, and of no harm to any other app."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleet_balancer.driver import DriverError
from fleet_balancer.haproxy.binary import Binary, find
from fleet_balancer.haproxy.driver import HaproxyDriver
from tests.integration.balancer.harness import Load, ask, backends, get, pool
from tests.ports import free_port

TOO_MUCH = {"paths": tuple(f"/{'a' * 500}{number}" for number in range(100)), "strip_path": True}
"""Each of them is well; all of them are a regular expression that HAProxy's library has no room for."""


@pytest.fixture
async def picky(tmp_path: Path, haproxy: Binary) -> AsyncIterator[HaproxyDriver]:
    """A HAProxy that knows no slowstart, as if it were older; and says so as HAProxy does."""
    program = tmp_path / "picky"
    program.write_text(f"""#!/bin/sh
for file; do :; done
if [ -f "$file" ] && line=$(grep -n -m1 slowstart "$file"); then
    echo "[ALERT]    (1) : config : parsing [$file:${{line%%:*}}] : 'default-server' unknown keyword 'slowstart'." >&2
    echo "[ALERT]    (1) : config : Fatal errors found in configuration." >&2
    exit 1
fi
exec {haproxy.path} "$@"
""")
    program.chmod(0o755)
    driver = HaproxyDriver(tmp_path / "run", find(program))
    (tmp_path / "run").mkdir()
    yield driver
    await driver.stop(0)


async def test_a_route_that_haproxy_would_refuse_is_refused_before_anything_changes(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(1) as servers:
        assert await driver.start({"web": pool(port, servers)}) == {}
        pid = driver.pid
        with pytest.raises(DriverError) as refused:
            await driver.validate(pool(port, servers, "api", **TOO_MUCH))
        words = str(refused.value)
        assert re.match(r"HAProxy 2\.\d+\.\d+ refuses the route of api: error detected in backend 'api\.replay'", words)
        assert "http-request replace-path" in words
        assert "\n" not in words
        assert len(words) < 600
        await driver.validate(pool(port, servers, "api", paths=("/api",), strip_path=True))
        assert (driver.pid, await get(port)) == (pid, (200, servers[0].name))


async def test_one_refused_route_stops_no_other_app(picky: HaproxyDriver) -> None:
    """Neither its lists nor its routes; and the refused one goes on as it was."""
    port = free_port()
    async with backends(3) as (one, two, three):
        paths = {name: {"paths": (f"/{name}",)} for name in ("web", "api", "new")}
        before = {"web": pool(port, [one], **paths["web"]), "api": pool(port, [one], "api", **paths["api"])}
        assert await picky.start(before) == {}
        wanted = {
            "web": pool(port, [two], **paths["web"], slow_start_seconds=5),
            "api": pool(port, [two], "api", **paths["api"]),
            "new": pool(port, [three], "new", **paths["new"]),
        }
        async with Load(port, post_share=0, host="test") as load:
            refused = await picky.apply(wanted)
            assert refused.keys() == {"web"}
            assert "refuses the route of web: 'default-server' unknown keyword 'slowstart', in `" in refused["web"]
            for name, server in {"web": one, "api": two, "new": three}.items():
                assert (await ask(port, f"/{name}")).body == server.name
            pid = picky.pid
            assert (await picky.apply(wanted)).keys() == {"web"}
            assert picky.pid == pid, "it is not tried again and again"
            await load.more(20)
        assert set(load.failures) == {"GET 404"}, "what the load asks for is no app's"
        # What is asked for once more without the setting is no longer refused.
        assert await picky.apply({**wanted, "web": pool(port, [two], **paths["web"])}) == {}
        assert (await ask(port, "/web")).body == two.name


async def test_a_start_serves_all_apps_but_the_refused_one(picky: HaproxyDriver) -> None:
    port, other = free_port(), free_port()
    async with backends(1) as servers:
        wanted = {"web": pool(port, servers), "api": pool(other, servers, "api", slow_start_seconds=5)}
        assert (await picky.start(wanted)).keys() == {"api"}
        assert (await get(port))[0] == 200
        with pytest.raises(ConnectionRefusedError):
            await get(other)
