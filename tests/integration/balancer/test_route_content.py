"""What routes do with answers, seen by a client of a real HAProxy: compression, error pages, the cache."""

import asyncio
import contextlib
import gzip
import http.client
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from fleet_balancer.driver import Endpoint, Target
from fleet_balancer.haproxy.driver import HaproxyDriver
from fleet_core.ids import WorkerId
from tests.integration.balancer.harness import Connection, backends, eventually, get, pool
from tests.ports import free_port

TEXT = "the same again and again; " * 200
PAGE = '<!doctype html><h1>Gleich zurück — "%" $HOME \\n</h1>\n'


@dataclass
class Shop:
    """Answers each path with what `answers` has for it, headers and body; counts what it is asked."""

    answers: Mapping[str, tuple[Mapping[str, str], str]]
    asked: Counter[str] = field(default_factory=Counter)
    port: int = 0

    def endpoint(self) -> Endpoint:
        return Endpoint(WorkerId("web", "host", 1 + self.port, 1), Target("127.0.0.1", self.port))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                method, path, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ", 2)
                self.asked[f"{method} {path}"] += 1
                headers, body = self.answers[path]
                lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                length = len(body.encode())
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{lines}\r\n{body}".encode())
        writer.close()


@contextlib.asynccontextmanager
async def shop(answers: Mapping[str, tuple[Mapping[str, str], str]]) -> AsyncIterator[Shop]:
    one = Shop(answers)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    async with server:
        yield one


async def fetched(
    port: int, path: str = "/", method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    def fetch() -> tuple[int, http.client.HTTPMessage, bytes]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers={"Accept-Encoding": "identity", **sent})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    return await asyncio.to_thread(fetch)


async def test_text_is_compressed_for_who_accepts_it(driver: HaproxyDriver) -> None:
    port = free_port()
    kinds = {"/html": "text/html; charset=utf-8", "/json": "application/json", "/image": "image/png"}
    async with shop({path: ({"Content-Type": kind}, TEXT) for path, kind in kinds.items()}) as one:
        assert await driver.start({"web": pool(port, [one.endpoint()], compression=True)}) == {}
        for path in ("/html", "/json"):
            status, headers, body = await fetched(port, path, Accept_Encoding="gzip, br")
            assert (status, headers["Content-Encoding"]) == (200, "gzip")
            assert len(body) < len(TEXT) / 4
            assert gzip.decompress(body).decode() == TEXT
            assert "accept-encoding" in headers["Vary"].lower()
        for path, accepted in (("/html", "identity"), ("/image", "gzip")):
            status, headers, body = await fetched(port, path, Accept_Encoding=accepted)
            assert (status, headers["Content-Encoding"], body.decode()) == (200, None, TEXT)


async def test_without_compression_nothing_is_compressed(driver: HaproxyDriver) -> None:
    port = free_port()
    async with shop({"/": ({"Content-Type": "text/html"}, TEXT)}) as one:
        await driver.start({"web": pool(port, [one.endpoint()])})
        _, headers, body = await fetched(port, Accept_Encoding="gzip")
        assert (headers["Content-Encoding"], body.decode()) == (None, TEXT)


async def test_events_are_passed_on_one_by_one_where_text_is_compressed(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(1) as servers:
        await driver.start({"web": pool(port, servers, compression=True)})
        client = Connection(port)
        event = b"9\r\ndata: x\n\n\r\n"
        async with asyncio.timeout(10):
            await client.send(path="/events", headers="Accept-Encoding: gzip\r\n")
            servers[0].event.set()
            _, headers = await client.receive_head()
            assert "content-encoding" not in headers
            assert await client.read(len(event)) == event
            for _ in range(3):
                servers[0].event.set()
                assert await client.read(len(event)) == event
        servers[0].release.set()
        servers[0].event.set()
        client.close()


async def test_an_app_has_its_own_page_where_no_worker_is_ready(driver: HaproxyDriver) -> None:
    """Of two apps on one address each has its own; one without a page has the plain text."""
    port = free_port()
    await driver.start(
        {
            "web": pool(port, [], error_pages={503: PAGE}),
            "api": pool(port, [], "api", paths=("/api",)),
        }
    )
    for method in ("GET", "POST"):
        status, headers, body = await fetched(port, method=method)
        assert (status, body.decode()) == (503, PAGE)
        assert (headers["Content-Type"], headers["Retry-After"]) == ("text/html; charset=utf-8", "1")
    status, headers, body = await fetched(port, "/api")
    assert (status, headers["Content-Type"], body) == (503, "text/plain", b"No worker is ready for this request.\n")


async def test_a_changed_page_is_shown_at_once(driver: HaproxyDriver) -> None:
    port = free_port()
    await driver.start({"web": pool(port, [], error_pages={503: PAGE})})
    assert await driver.apply({"web": pool(port, [], error_pages={503: "<p>other</p>"})}) == {}
    assert await get(port) == (503, "<p>other</p>")
    assert await driver.apply({"web": pool(port, [])}) == {}
    assert await get(port) == (503, "No worker is ready for this request.\n")


async def test_the_longest_pages_fit(driver: HaproxyDriver) -> None:
    port = free_port()
    page = "ü" * (6 * 1024)
    await driver.start({"web": pool(port, [], error_pages=dict.fromkeys((502, 503, 504), page))})
    status, _, body = await fetched(port)
    assert (status, body.decode()) == (503, page)


async def test_pages_for_a_worker_that_fails(driver: HaproxyDriver) -> None:
    """502: its answer is no HTTP. 504: it does not answer in time."""
    port = free_port()

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b" /slow " in head:
            await reader.read()
        else:
            writer.write(b"this is not HTTP\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    target = Target("127.0.0.1", server.sockets[0].getsockname()[1])
    pages = {status: f"<h1>{status}</h1>" for status in (502, 504)}
    async with server:
        endpoint = Endpoint(WorkerId("web", "host", 1, 1), target)
        timeouts = {"server_seconds": 0.5}
        await driver.start({"web": pool(port, [endpoint], error_pages=pages, timeouts=timeouts)})
        assert await get(port, "/", "POST") == (502, "<h1>502</h1>")
        assert await get(port, "/slow", "POST") == (504, "<h1>504</h1>")


async def test_who_finds_the_queue_full_sees_the_page_for_503(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(1) as servers:
        settings: dict[str, Any] = {"max_connections": 1, "max_queue": 1, "error_pages": {503: PAGE}}
        await driver.start({"web": pool(port, servers, **settings)})
        held = [asyncio.create_task(fetched(port, "/hold"))]
        await eventually(lambda: servers[0].requests == 1, "one is at the worker")
        # One of the two waits, whichever came first; the other finds the queue full.
        held += [asyncio.create_task(fetched(port, "/hold")) for _ in range(2)]
        await eventually(lambda: any(one.done() for one in held), "one is refused")
        servers[0].release.set()
        answers = await asyncio.gather(*held)
        status, headers, body = next(answer for answer in answers if answer[0] != 200)
        assert sorted(answer[0] for answer in answers) == [200, 200, 503]
        assert (status, headers["Retry-After"], body.decode()) == (503, "1", PAGE)


KEPT = {"Content-Type": "text/plain", "Cache-Control": "max-age=60"}


async def test_small_answers_that_may_be_kept_are_asked_for_once(driver: HaproxyDriver) -> None:
    port = free_port()
    answers = {
        "/small": (KEPT, "small"),
        "/large": (KEPT, "x" * 5000),
        "/private": ({"Cache-Control": "private, max-age=60"}, "mine"),
        "/cookie": ({**KEPT, "Set-Cookie": "a=b"}, "yours"),
        "/silent": ({}, "it says nothing of keeping"),
    }
    async with shop(answers) as one:
        cache = {"max_age_seconds": 30, "max_object_bytes": 2000}
        assert await driver.start({"web": pool(port, [one.endpoint()], cache=cache)}) == {}
        for path, (_, body) in answers.items():
            for _ in range(3):
                status, headers, answer = await fetched(port, path)
                assert (status, answer.decode()) == (200, body)
            assert (headers["Age"] is not None) is (path == "/small")
        assert one.asked == {f"GET {path}": 1 if path == "/small" else 3 for path in answers}
        await fetched(port, "/small", Authorization="Basic eDp5")
        await fetched(port, "/small", method="POST")
        assert (one.asked["GET /small"], one.asked["POST /small"]) == (2, 1)


async def test_an_answer_is_kept_no_longer_than_said(driver: HaproxyDriver) -> None:
    port = free_port()
    async with shop({"/": (KEPT, "kept")}) as one:
        await driver.start({"web": pool(port, [one.endpoint()], cache={"max_age_seconds": 1})})
        await fetched(port)

        async def asked_again() -> bool:
            await fetched(port)
            return one.asked["GET /"] == 2

        await eventually(asked_again, "the kept answer is too old")


@pytest.mark.parametrize("accepted", ["gzip", "identity"])
async def test_what_is_kept_is_compressed_for_who_accepts_it(driver: HaproxyDriver, accepted: str) -> None:
    port = free_port()
    async with shop({"/": (KEPT, TEXT)}) as one:
        await driver.start({"web": pool(port, [one.endpoint()], cache={"max_age_seconds": 30}, compression=True)})
        for asked in ("identity", accepted, accepted):
            _, headers, body = await fetched(port, Accept_Encoding=asked)
            assert headers["Content-Encoding"] == (None if asked == "identity" else "gzip")
            assert (body if asked == "identity" else gzip.decompress(body)).decode() == TEXT
