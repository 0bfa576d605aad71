"""Websockets and streams while their workers are replaced, seen from the client: they are requests in flight."""

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.fleet.harness import ROOT, Fleet, wait_for

_SERVER = ROOT / "tests" / "load" / "apps" / "long_server.js"
_DRAIN_SECONDS = 3


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One host."""
    with Fleet(tmp_path_factory.mktemp("fleet"), hosts=1) as running:
        running.start()
        yield running


class Lasting:
    """A connection that stays: upgraded, or the answer to GET /events."""

    def __init__(self, address: str, path: str, headers: str = "") -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), 10)
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n".encode())
        self._buffer = b""
        self.status = int(self._until(b"\r\n\r\n").split()[1])

    def __enter__(self) -> "Lasting":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            data = self._socket.recv(4096)
            assert data, "the connection ended"
            self._buffer += data
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def line(self) -> str:
        return self._until(b"\n").decode()

    def echo(self, text: str) -> str:
        self._socket.sendall(f"{text}\n".encode())
        return self.line()

    def await_event(self) -> str:
        """The next event's data; the lines of HTTP's chunks lie between them."""
        while not (line := self.line()).startswith("data: "):
            pass
        return line.removeprefix("data: ")

    def await_end(self, seconds: float) -> float:
        """When the other side ended it, by the monotonic clock."""
        self._socket.settimeout(seconds)
        try:
            while self._socket.recv(4096):
                pass
        except ConnectionResetError:
            pass
        return time.monotonic()


def websocket(address: str) -> tuple[Lasting, int]:
    """An upgraded connection, and the pid of its worker."""
    connection = Lasting(address, "/", "Connection: Upgrade\r\nUpgrade: echo\r\n")
    assert connection.status == 101
    return connection, int(connection.line())


def stream(address: str) -> tuple[Lasting, int]:
    """A stream of events, and the pid of its worker."""
    connection = Lasting(address, "/events")
    assert connection.status == 200
    return connection, int(connection.await_event())


def _pid_that_answers(address: str) -> int:
    with urllib.request.urlopen(f"http://{address}/", timeout=10) as answer:
        return int(json.load(answer)["pid"])


@contextmanager
def _app(fleet: Fleet, drain_seconds: float) -> Iterator[str]:
    """Two workers; the address they are served at."""
    try:
        yield fleet.start_app(_SERVER, 2, "--drain-timeout", f"{drain_seconds}s")
    finally:
        fleet.do("remove", "my-app", "--now", "-y")


def test_a_websocket_open_during_a_soft_restart_lives_until_drain_timeout_and_the_rollout_goes_on(fleet: Fleet) -> None:
    """Guards invariant 7."""
    with _app(fleet, _DRAIN_SECONDS) as address:
        before = fleet.pids()
        connection, pid = websocket(address)
        with connection:
            began = time.monotonic()
            with fleet.begun("soft-restart", "my-app") as rollout:
                assert connection.echo("still here") == "still here"
                assert connection.await_end(60) - began >= _DRAIN_SECONDS
                assert rollout.wait(60) == 0
        assert pid in before
        assert not before & fleet.pids()


def test_a_rollout_waits_for_long_connections_and_goes_on_when_they_end(fleet: Fleet) -> None:
    """Guards invariant 7."""
    with _app(fleet, 600) as address:
        before = fleet.pids()
        upgraded, first = websocket(address)
        events, second = stream(address)
        with upgraded, events:
            assert {first, second} == before, "the shortest queue is chosen"
            with fleet.begun("soft-restart", "my-app") as rollout:
                wait_for(lambda: len(fleet.pids() - before) == 1, "the first new worker is ready")
                (leaving,) = wait_for(lambda: _draining(fleet), "an old one drains")
                assert leaving in before
                assert all(_pid_that_answers(address) != leaving for _ in range(50))
                assert upgraded.echo("still here") == "still here"
                for _ in range(20):
                    events.await_event()
                assert rollout.poll() is None
                assert _draining(fleet) == {leaving}
                upgraded.close()
                events.close()
                assert rollout.wait(60) == 0
        assert not before & fleet.pids()


def _draining(fleet: Fleet) -> set[int]:
    """The pids of the workers that drain in the list which every balancer acknowledged."""
    (upstream,) = fleet.ask("balancer", "upstreams", "my-app")
    if set(upstream["acknowledged"].values()) != {upstream["version"]}:
        return set()
    ports = {endpoint["port"] for endpoint in upstream["endpoints"] if endpoint["state"] == "draining"}
    return {worker["pid"] for worker in fleet.ask("ps", "my-app") if worker["port"] in ports}
