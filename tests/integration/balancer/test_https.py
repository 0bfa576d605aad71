"""HTTPS, seen by a client of a real HAProxy: certificates by name, given, made and changed live; what apps are told."""

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from fleet_balancer.driver import Pool, Route
from fleet_balancer.haproxy.driver import HaproxyDriver
from fleet_core.route import RoutePolicy
from tests.integration.balancer.harness import Answer, Backend, Load, ask, backends, eventually, pool
from tests.integration.balancer.tls import TlsClient, give
from tests.ports import free_port


def secure(port: int, servers: list[Backend], name: str = "web", **settings: object) -> Pool:
    """Reached by HTTPS at `port` alone, unless `settings` say more."""
    policy = RoutePolicy.model_validate({"https": f"127.0.0.1:{port}", **settings})
    return Pool(name, Route.of(policy), tuple(server.endpoint(name) for server in servers))


async def names_shown(port: int, name: str | None) -> frozenset[str]:
    async with TlsClient(port, name) as client:
        return client.names


def echoed(answer: Answer) -> dict[str, list[str]]:
    """The headers the app got, by lower-case name."""
    found: dict[str, list[str]] = {}
    for line in answer.body.splitlines()[1:]:
        name, _, value = line.partition(": ")
        found.setdefault(name.lower(), []).append(value)
    return found


async def test_the_name_a_client_asks_for_chooses_the_certificate(driver: HaproxyDriver, tmp_path: Path) -> None:
    given = tmp_path / "given"
    give(given, "shop", "shop.test", "www.shop.test")
    give(given, "wild", "*.wild.test")
    give(given, "default", "fallback.test")
    live = given / "api.test"
    live.mkdir()
    one = give(tmp_path / "elsewhere", "api", "api.test").pem
    key = one.index(b"-----BEGIN PRIVATE KEY")
    (live / "fullchain.pem").write_bytes(one[:key])
    (live / "privkey.pem").write_bytes(one[key:])
    port = free_port()
    async with backends(1) as servers:
        hosts = ("shop.test", "www.shop.test", "api.test", "a.wild.test", "new.test", "*.new.test")
        assert await driver.start({"web": secure(port, servers, hosts=hosts)}) == {}
        for asked, shown in (
            ("shop.test", {"shop.test", "www.shop.test"}),
            ("WWW.shop.test", {"shop.test", "www.shop.test"}),
            ("api.test", {"api.test"}),
            ("a.wild.test", {"*.wild.test"}),
            ("new.test", {"new.test"}),
            ("b.new.test", {"*.new.test"}),
            ("nobody.test", {"fallback.test"}),
            (None, {"fallback.test"}),
        ):
            assert await names_shown(port, asked) == shown, asked
        async with TlsClient(port, "new.test") as client:
            assert await client.get(host="new.test") == (200, servers[0].name)
            assert (await client.get(host="else.test"))[0] == 404


async def test_a_certificate_made_here_is_kept(driver: HaproxyDriver, tmp_path: Path, haproxy: object) -> None:
    port = free_port()
    async with backends(1) as servers:
        pools = {"web": secure(port, servers, hosts=("a.test",))}
        await driver.start(pools)
        async with TlsClient(port, "a.test") as client:
            first = client.shown.pem
        await driver.stop(0)
        again = HaproxyDriver(tmp_path, haproxy)  # type: ignore[arg-type]
        try:
            await again.start(pools)
            async with TlsClient(port, "a.test") as client:
                assert client.shown.pem == first
        finally:
            await again.stop(0)


async def test_a_new_certificate_is_shown_without_a_lost_connection(driver: HaproxyDriver, tmp_path: Path) -> None:
    given = tmp_path / "given"
    port, plain = free_port(), free_port()
    async with backends(2) as servers:
        both = secure(port, servers, hosts=("a.test", "*.a.test"), http=f"127.0.0.1:{plain}")
        await driver.start({"web": both})
        async with TlsClient(port, "a.test") as kept, Load(plain, host="a.test") as load:
            assert (await kept.get(host="a.test"))[0] == 200
            for turn in range(2):
                newest = give(given, "a", "a.test", f"turn{turn}.a.test")
                await eventually(lambda: _shows(port, newest.names), "the new certificate is shown")  # noqa: B023
            # What was connected before is answered once more, and told to come again.
            assert (await kept.get(host="a.test"))[0] == 200
            await load.more(100)
        assert load.failures == []


async def _shows(port: int, names: frozenset[str]) -> bool:
    return await names_shown(port, "a.test") == names


async def test_a_broken_file_changes_nothing_and_is_told(
    driver: HaproxyDriver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = tmp_path / "given"
    good = give(given, "a", "a.test", "good.test")
    port = free_port()
    async with backends(1) as servers:
        await driver.start({"web": secure(port, servers, hosts=("a.test",))})
        pid = driver.pid
        (given / "a.pem").write_bytes(good.pem[:300])
        await eventually(lambda: "a.pem is not used: it holds no private key" in caplog.text, "it is told")
        assert await names_shown(port, "a.test") == good.names
        assert driver.pid == pid
        other = give(given, "a", "a.test", "other.test")
        await eventually(lambda: _shows(port, other.names), "the mended file is used")


async def test_nothing_older_than_tls_1_2_is_spoken(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(1) as servers:
        await driver.start({"web": secure(port, servers)})
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            async with TlsClient(port, "a.test", newest=version) as client:
                assert await client.get() == (200, servers[0].name)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            async with TlsClient(port, "a.test", newest=ssl.TLSVersion.TLSv1_1):
                pass


async def test_http_2_is_spoken_and_outlives_a_new_process(driver: HaproxyDriver) -> None:
    """curl, three requests on one connection that is kept by the process before."""
    curl = shutil.which("curl")
    if curl is None or b"HTTP2" not in subprocess.run([curl, "--version"], capture_output=True, check=True).stdout:
        pytest.skip("no curl that speaks HTTP/2")
    port = free_port()
    async with backends(2) as servers:
        await driver.start({"web": secure(port, servers[:1])})
        url = f"https://127.0.0.1:{port}/"
        options = (
            "-sk",
            "--http2",
            "--rate",
            "120/m",
            "-w",
            "%{http_version} %{http_code} %{num_connects}\\n",
            "-o",
            "/dev/null",
        )
        process = await asyncio.create_subprocess_exec(
            curl, *options, *[url, "-o", "/dev/null"] * 3, url, stdout=asyncio.subprocess.PIPE
        )
        await eventually(lambda: servers[0].requests > 0, "the first request")
        await driver.apply({"web": secure(port, servers[:1]), "api": secure(port, servers[1:], "api", paths=("/api",))})
        output, _ = await asyncio.wait_for(process.communicate(), 20)
        answers = [line.split() for line in output.decode().splitlines()]
        assert [answer[:2] for answer in answers] == [["2", "200"]] * 4
        connects = [int(answer[2]) for answer in answers]
        assert connects[0] == 1
        assert sum(connects) <= 2, "the process before closes its connection once, at most"


async def test_http_is_redirected_to_https(driver: HaproxyDriver) -> None:
    plain, port = free_port(), free_port()
    async with backends(2) as servers:
        redirected = secure(port, servers[:1], http=f"127.0.0.1:{plain}", hosts=("a.test",), redirect_https=True)
        beside = pool(plain, servers[1:], "api", hosts=("b.test",))
        await driver.start({"web": redirected, "api": beside})
        for method in ("GET", "POST"):
            answer = await ask(plain, "/x?y=1", method=method, host=f"A.test:{plain}")
            assert (answer.status, answer.headers["location"]) == (308, f"https://a.test:{port}/x?y=1")
        assert (await ask(plain, host="b.test")).body == servers[1].name
        async with TlsClient(port, "a.test") as client:
            assert await client.get(host="a.test") == (200, servers[0].name)
        assert servers[0].requests == 1


async def test_the_app_is_told_who_asked_and_how(driver: HaproxyDriver) -> None:
    """By default nothing that a client says of it is believed."""
    plain, port = free_port(), free_port()
    lies = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "bank.test"}
    sent = {**lies, "Forwarded": "for=6.6.6.6", "X-Echo": "request"}
    async with backends(1) as servers:
        await driver.start({"web": secure(port, servers, http=f"127.0.0.1:{plain}")})
        for method in ("GET", "POST"):
            told = echoed(await ask(plain, method=method, host="a.test:81", headers=sent))
            assert told["x-forwarded-for"] == ["127.0.0.1"]
            assert told["x-forwarded-proto"] == ["http"]
            assert told["x-forwarded-host"] == told["host"] == ["a.test:81"]
            assert "forwarded" not in told
        async with TlsClient(port, "a.test") as client:
            told = echoed(await client.ask(host="a.test", headers="X-Echo: request\r\n"))
        assert told["x-forwarded-proto"] == ["https"]


@pytest.mark.parametrize(
    ("forwarded", "addresses", "proto"),
    [("append", ["6.6.6.6", "127.0.0.1"], "gopher"), ("off", ["6.6.6.6"], "gopher")],
)
async def test_what_another_proxy_said_is_kept_where_the_route_says_so(
    driver: HaproxyDriver, forwarded: str, addresses: list[str], proto: str
) -> None:
    port = free_port()
    async with backends(1) as servers:
        await driver.start({"web": pool(port, servers, forwarded=forwarded)})
        sent = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher", "Forwarded": "for=6.6.6.6"}
        told = echoed(await ask(port, host="a.test", headers={**sent, "X-Echo": "request"}))
        assert told["x-forwarded-for"] == addresses
        assert told["x-forwarded-proto"] == [proto]
        assert told["forwarded"] == ["for=6.6.6.6"]
        assert told.get("x-forwarded-host") == (["a.test"] if forwarded == "append" else None)
