"""The access log, read as its user does: a request goes out, and its line is in the app's file, and says what happened."""

import asyncio
import datetime
import json
import re
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fleet_balancer.driver import Endpoint, Pool, Route, Target
from fleet_balancer.haproxy.binary import Binary
from fleet_balancer.haproxy.driver import HaproxyDriver
from fleet_core.ids import WorkerId
from fleet_core.route import RoutePolicy
from tests.integration.balancer.harness import Connection, ask, backends, eventually, get, pool, waiting
from tests.integration.balancer.tls import TlsClient
from tests.integration.full_disk import needs_mounts, small_disk
from tests.ports import free_port

JSON = {"format": "json"}


def lines_in(folder: Path, app: str = "web") -> list[str]:
    """Those that are complete; none in the moment in which another file takes the log's place."""
    try:
        return (folder / "access" / f"{app}.log").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []


async def logged(folder: Path, count: int, app: str = "web") -> list[dict[str, Any]]:
    """Exactly so many lines, which may take a moment."""
    found: list[str] = []

    def there() -> bool:
        found[:] = lines_in(folder, app)
        return len(found) >= count

    await eventually(there, f"{count} lines of {app}")
    assert len(found) == count
    return [json.loads(line) for line in found]


def slot(endpoint: Endpoint) -> str:
    return str(endpoint.worker.slot_id)


async def test_a_line_says_what_became_of_a_request(driver: HaproxyDriver, tmp_path: Path) -> None:
    """And nothing of what is nobody's business: no query, no cookie, no authorization."""
    port = free_port()
    async with backends(1) as servers:
        assert (
            await driver.start({"web": pool(port, servers, access_log=JSON, paths=("/shop",), strip_path=True)}) == {}
        )
        headers = {
            "User-Agent": 'a "quoted" \\ agent\twith a tab',
            "Referer": "http://a.test/from?secret=1",
            "Cookie": "session=secret",
            "Authorization": "Basic secret",
            "X-Request-Id": "r-1",
        }
        servers[0].thawed.clear()
        before = datetime.datetime.now(datetime.UTC)
        asked = asyncio.create_task(
            ask(port, "/shop/a?key=secret", method="POST", body=b"12345", host="Shop.test", headers=headers)
        )
        await eventually(lambda: servers[0].requests == 1, "it is at the worker")
        arrived = datetime.datetime.now(datetime.UTC)
        await asyncio.sleep(0.2)  # how long the worker takes is what is measured
        servers[0].thawed.set()
        answer = await asked
        assert answer.status == 200
        (line,) = await logged(tmp_path, 1)
        assert "secret" not in lines_in(tmp_path)[0]
        began = datetime.datetime.fromisoformat(line.pop("time"))
        rounded = datetime.timedelta(milliseconds=100)  # and more: HAProxy looks at the clock once a turn
        assert before - rounded < began <= arrived, "it is when the request came, not when it ended"
        assert line.pop("client_port") > 0
        assert line.pop("bytes_out") > len(answer.body)
        assert line.pop("bytes_in") > 5
        assert line.pop("seconds") >= line.pop("first_byte_seconds") >= 0.19
        assert (line.pop("queue_seconds"), line.pop("connect_seconds") >= 0) == (0, True)
        endpoint = servers[0].endpoint()
        assert line == {
            "app": "web",
            "worker": slot(endpoint),
            "generation": 1,
            "server": str(endpoint.target),
            "client": "127.0.0.1",
            "retries": 0,
            "tls": None,
            "termination": "----",
            "method": "POST",
            "host": "Shop.test",
            "path": "/shop/a",
            "protocol": "HTTP/1.1",
            "status": 200,
            "cached": False,
            "request_id": "r-1",
            "referer": "http://a.test/from",
            "user_agent": 'a "quoted" \\ agent\twith a tab',
        }


async def test_the_query_is_there_where_it_is_asked_for(driver: HaproxyDriver, tmp_path: Path) -> None:
    port = free_port()
    async with backends(1) as servers:
        route = pool(port, servers, access_log=JSON | {"query": True}, forwarded="append")
        assert await driver.start({"web": route}) == {}
        headers = {"Referer": "http://a.test/from?page=1", "X-Forwarded-For": "192.0.2.7, 10.0.0.1"}
        await ask(port, "/find?q=a/b", headers=headers)
        (line,) = await logged(tmp_path, 1)
        assert (line["path"], line["referer"]) == ("/find?q=a/b", "http://a.test/from?page=1")
        assert line["forwarded_for"] == "192.0.2.7, 10.0.0.1"
        assert (line["request_id"], line["user_agent"]) == (None, None)


async def test_combined_lines_are_those_of_web_servers(driver: HaproxyDriver, tmp_path: Path) -> None:
    """And what lines look like changes without another HAProxy."""
    port = free_port()
    async with backends(1) as servers:
        combined = {"format": "combined"}
        assert await driver.start({"web": pool(port, servers, access_log=combined)}) == {}
        await ask(port, "/a/b?c", headers={"User-Agent": 'curl "8"', "Referer": "http://a.test/"})
        await eventually(lambda: len(lines_in(tmp_path)) == 1, "the line")
        shape = r'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}(:\d\d){3} \+0000\] "GET /a/b HTTP/1\.1" 200 \d+ '
        assert re.fullmatch(shape + r'"http://a\.test/" "curl \\"8\\""', lines_in(tmp_path)[0])
        pid = driver.pid
        assert await driver.apply({"web": pool(port, servers, access_log=JSON)}) == {}
        await ask(port, "/json")
        await eventually(lambda: len(lines_in(tmp_path)) == 2, "another line")
        assert json.loads(lines_in(tmp_path)[1])["path"] == "/json"
        assert driver.pid == pid


async def test_each_app_of_an_address_has_its_own_log_or_none(driver: HaproxyDriver, tmp_path: Path) -> None:
    port = free_port()
    async with backends(3) as servers:
        shared = {
            name: pool(port, [server], name, paths=(f"/{name}",), access_log=how)
            for (name, how), server in zip({"web": JSON, "api": JSON, "quiet": {}}.items(), servers, strict=True)
        }
        assert await driver.start(shared) == {}
        for path in ("/web/1", "/quiet", "/nobody", "/api/1", "/web/2"):
            assert (await ask(port, path)).status == (404 if path == "/nobody" else 200)
        assert [line["path"] for line in await logged(tmp_path, 2)] == ["/web/1", "/web/2"]
        (line,) = await logged(tmp_path, 1, "api")
        assert (line["path"], line["worker"]) == ("/api/1", slot(servers[1].endpoint("api")))
        assert sorted(path.name for path in (tmp_path / "access").iterdir()) == ["api.log", "web.log"]


async def test_what_a_balancer_answers_itself_has_no_worker(driver: HaproxyDriver, tmp_path: Path) -> None:
    port = free_port()
    async with backends(1) as servers:
        settings: dict[str, Any] = {"access_log": JSON, "rate_limit": {"requests": 1, "per_seconds": 60}}
        assert await driver.start({"web": pool(port, servers, **settings)}) == {}
        assert [(await get(port))[0] for _ in range(2)] == [200, 429]
        assert await driver.apply({"web": pool(port, [], access_log=JSON)}) == {}
        assert (await get(port))[0] == 503
        lines = await logged(tmp_path, 3)
        assert [line["status"] for line in lines] == [200, 429, 503]
        assert [line["worker"] for line in lines] == [slot(servers[0].endpoint()), None, None]
        assert [line["termination"][:2] for line in lines] == ["--", "PR", "SC"]


async def test_an_answer_from_the_cache_is_told(driver: HaproxyDriver, tmp_path: Path) -> None:
    port = free_port()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
        )
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1])
        endpoint = Endpoint(WorkerId("web", "host", 1, 1), target)
        cache = {"max_age_seconds": 30}
        assert await driver.start({"web": pool(port, [endpoint], access_log=JSON, cache=cache)}) == {}
        for _ in range(2):
            assert (await ask(port, "/kept")).status == 200
        lines = await logged(tmp_path, 2)
        assert [(line["cached"], line["worker"]) for line in lines] == [(False, "web/host/1"), (True, None)]


async def test_https_and_who_waited(driver: HaproxyDriver, tmp_path: Path) -> None:
    port = free_port()
    async with backends(1) as servers:
        policy = RoutePolicy.model_validate({"https": f"127.0.0.1:{port}", "access_log": JSON, "max_connections": 1})
        assert await driver.start({"web": Pool("web", Route.of(policy), (servers[0].endpoint(),))}) == {}
        servers[0].thawed.clear()

        async def asked() -> None:
            async with TlsClient(port, "localhost") as client:
                assert (await client.get(host="localhost"))[0] == 200

        first_asked = asyncio.create_task(asked())
        await eventually(lambda: servers[0].requests == 1, "one is at the worker")
        second_asked = asyncio.create_task(asked())
        await eventually(partial(waiting, driver, "web", 1), "one waits")
        await asyncio.sleep(0.2)  # how long it waits is what is measured
        servers[0].thawed.set()
        await asyncio.gather(first_asked, second_asked)
        first, second = await logged(tmp_path, 2)
        assert first["tls"].startswith("TLSv1.")
        assert first["queue_seconds"] == 0
        assert 0.19 <= second["queue_seconds"] <= second["seconds"]


async def test_a_connection_by_tcp_has_a_line_when_it_ended(driver: HaproxyDriver, tmp_path: Path) -> None:
    port = free_port()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1])
        policy = RoutePolicy.model_validate({"tcp": f"127.0.0.1:{port}", "access_log": JSON})
        endpoint = Endpoint(WorkerId("db", "host", 7, 3), target)
        assert await driver.start({"db": Pool("db", Route.of(policy), (endpoint,))}) == {}
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.2)  # how long the connection stands is what is measured
        writer.write(b"12345")
        assert await reader.read() == b"12345"
        writer.close()
        (line,) = await logged(tmp_path, 1, "db")
        assert (line["worker"], line["generation"], line["server"]) == ("db/host/7", 3, str(target))
        assert (line["bytes_in"], line["bytes_out"], line["termination"]) == (5, 5, "--")
        assert line["seconds"] >= 0.19
        assert line.keys().isdisjoint({"method", "path", "status", "host", "first_byte_seconds"})


async def test_a_request_that_outlives_its_worker_and_its_haproxy_has_its_line(
    driver: HaproxyDriver, tmp_path: Path
) -> None:
    port, other = free_port(), free_port()
    async with backends(2) as (old, new):
        assert await driver.start({"web": pool(port, [old], access_log=JSON)}) == {}
        held = Connection(port)
        await held.send("GET", "/hold")
        await eventually(lambda: old.requests == 1, "it is at the worker")
        pid = driver.pid
        # Another route: another HAProxy, while the request goes on in the one before.
        changed = {"web": pool(port, [new], access_log=JSON), "api": pool(other, [new], "api")}
        assert await driver.apply(changed) == {}
        assert driver.pid != pid
        assert (await get(port, "/new"))[0] == 200
        await logged(tmp_path, 1)  # two processes write: nothing else keeps their lines in order
        old.release.set()
        assert (await held.receive())[0] == 200
        lines = await logged(tmp_path, 2)
        assert [(line["path"], line["worker"]) for line in lines] == [
            ("/new", slot(new.endpoint())),
            ("/hold", slot(old.endpoint())),
        ]


async def test_a_client_that_went_away_is_told_from_one_that_was_answered(
    driver: HaproxyDriver, tmp_path: Path
) -> None:
    port = free_port()
    async with backends(1) as servers:
        assert await driver.start({"web": pool(port, servers, access_log=JSON)}) == {}
        client = Connection(port)
        await client.send("GET", "/stream")
        assert (await client.receive_head())[0] == 200
        client.close()
        (line,) = await logged(tmp_path, 1)
        assert (line["path"], line["worker"]) == ("/stream", slot(servers[0].endpoint()))
        assert (line["status"], line["termination"][:2]) == (200, "CD")


async def test_lines_wait_while_fleet_balancer_is_away(driver: HaproxyDriver, tmp_path: Path, haproxy: Binary) -> None:
    port = free_port()
    async with backends(1) as servers:
        wanted = {"web": pool(port, servers, access_log=JSON)}
        assert await driver.start(wanted) == {}
        assert (await get(port, "/before"))[0] == 200
        await driver.close()
        assert [line["path"] for line in await logged(tmp_path, 1)] == ["/before"], "nothing is left behind in the pipe"
        for number in range(200):
            assert (await get(port, f"/{number}"))[0] == 200
        assert len(lines_in(tmp_path)) == 1
        successor = HaproxyDriver(tmp_path, haproxy)
        try:
            assert await successor.start(wanted) == {}
            lines = await logged(tmp_path, 201)
            assert [line["path"] for line in lines[1:]] == [f"/{number}" for number in range(200)]
            assert {line["worker"] for line in lines} == {slot(servers[0].endpoint())}
        finally:
            await successor.close()


async def test_requests_go_on_where_no_line_finds_room(driver: HaproxyDriver, tmp_path: Path, haproxy: Binary) -> None:
    """Nobody reads for long: HAProxy answers as ever, drops lines, and how many is told."""
    port = free_port()
    async with backends(1) as servers:
        wanted = {"web": pool(port, servers, access_log=JSON)}
        assert await driver.start(wanted) == {}
        await driver.close()
        client, count = Connection(port), 1500
        for number in range(count):
            assert (await client.get(f"/{number}/{'x' * 900}"))[0] == 200
        client.close()
        successor = HaproxyDriver(tmp_path, haproxy)
        try:
            assert await successor.start(wanted) == {}

            def told() -> int:
                found = [re.search(r"access log: (\d+) lines were dropped", notice) for notice in successor.notices]
                return sum(int(match[1]) for match in found if match)

            await eventually(lambda: told() > 0, "it says how many lines were dropped")
            assert (await get(port, "/after"))[0] == 200
            lines = await logged(tmp_path, count - told() + 1)
            assert lines[-1]["path"] == "/after"
            assert [line["path"].split("/")[1] for line in lines[:-1]] == [
                str(number) for number in range(count - told())
            ]
        finally:
            await successor.close()


async def test_a_log_is_rotated_and_takes_no_more_room_than_said(driver: HaproxyDriver, tmp_path: Path) -> None:
    port = free_port()
    async with backends(1) as servers:
        bounds = JSON | {"max_bytes": 64 * 1024, "max_files": 2}
        assert await driver.start({"web": pool(port, servers, access_log=bounds)}) == {}
        client, folder = Connection(port), tmp_path / "access"

        def newest() -> int:
            return max(
                (int(line.partition('"path":"/')[2].partition("/")[0]) for line in lines_in(tmp_path)), default=-1
            )

        for number in range(250):
            assert (await client.get(f"/{number}/{'x' * 900}"))[0] == 200
            if number % 10 == 9:
                await eventually(lambda number=number: newest() == number, f"line {number}")  # type: ignore[misc]
        client.close()
        assert sorted(path.name for path in folder.iterdir()) == ["web.log", "web.log.1", "web.log.2"]
        assert all(path.stat().st_size <= 64 * 1024 for path in folder.iterdir())
        kept = [
            line for name in ("web.log.2", "web.log.1", "web.log") for line in (folder / name).read_text().splitlines()
        ]
        numbers = [int(json.loads(line)["path"].split("/")[1]) for line in kept]
        assert numbers == list(range(numbers[0], 250))


@needs_mounts
async def test_a_full_disk_costs_lines_and_no_request(driver: HaproxyDriver, tmp_path: Path) -> None:
    port = free_port()
    with small_disk(tmp_path / "access") as disk:
        async with backends(1) as servers:
            assert await driver.start({"web": pool(port, servers, access_log=JSON)}) == {}
            await get(port, "/before")
            await logged(tmp_path, 1)
            disk.fill()

            async def told(condition: Callable[[], bool], what: str) -> None:
                async def asked() -> bool:
                    assert (await get(port, f"/{'x' * 900}"))[0] == 200
                    return condition()

                await eventually(asked, what)

            await told(lambda: any("No space left" in notice for notice in driver.notices), "it says so")
            disk.free()
            await told(lambda: not driver.notices, "it is well again")
            assert all(json.loads(line)["status"] == 200 for line in lines_in(tmp_path)), "no line is half"
            await driver.close()


async def test_a_header_with_anything_in_it_spoils_no_line(driver: HaproxyDriver, tmp_path: Path) -> None:
    """Tabs, quotes, control characters, bytes that are no UTF-8, and more of all than fits."""
    port = free_port()
    async with backends(1) as servers:
        assert await driver.start({"web": pool(port, servers, access_log=JSON | {"query": True})}) == {}
        for junk in (b'"\t\\', b"\x01\x7f", "ü€".encode(), b"\xff\xfe", b'\x01"' * 2000, "€".encode() * 2000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            fields = b"".join(name + b": " + junk + b"\r\n" for name in (b"User-Agent", b"Referer", b"X-Request-Id"))
            writer.write(b"GET /" + b'"' * 900 + b" HTTP/1.0\r\nHost: " + junk[:500] + b"\r\n" + fields + b"\r\n")
            async with asyncio.timeout(10):
                await reader.read()
            # A reset: whether HAProxy takes such a request is not the question here.
            writer.get_extra_info("socket").setsockopt(1, 13, struct.pack("ii", 1, 0))
            writer.close()
        assert (await get(port, "/last"))[0] == 200
        await eventually(lambda: any("/last" in line for line in lines_in(tmp_path)), "the last line")
        lines = [json.loads(line) for line in lines_in(tmp_path)]
        assert len(lines) >= 4
        assert {line["worker"] for line in lines} <= {slot(servers[0].endpoint()), None}
