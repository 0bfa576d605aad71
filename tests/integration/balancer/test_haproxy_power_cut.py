"""A host loses power with requests in flight: nobody answers for it, not even its kernel."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet_balancer.driver import Endpoint, Target
from fleet_balancer.haproxy.driver import HaproxyDriver
from fleet_core.ids import WorkerId
from tests.integration.balancer.harness import Connection, backends, eventually, pool
from tests.ports import free_port

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="a network of its own needs root and iproute2"
)

_SERVER = """
import socket, sys, threading
listener = socket.create_server(("0.0.0.0", 8000))
print("up", flush=True)
def serve(connection):
    if b"/hold" in connection.recv(65536):
        print("held", flush=True)
        threading.Event().wait()
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nother")
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


@dataclass
class OtherHost:
    """A worker on a host of its own: `/hold` is never answered."""

    endpoint: Endpoint
    server: "subprocess.Popen[str]"
    namespace: str

    def cut_power(self) -> None:
        """Its network is gone, without a word."""
        _ip("-n", self.namespace, "link", "set", "inside", "down")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=10)


@pytest.fixture
def other_host() -> Iterator[OtherHost]:
    number = os.getpid() % 16_000
    namespace, outside = f"fleet-{number}", f"fleet{number}"
    subnet = f"10.{200 + number // 4_000}.{number // 64 % 64}.{number % 64 * 4}".rpartition(".")
    base, last = subnet[0], int(subnet[2])
    try:
        _ip("netns", "add", namespace)
        _ip("link", "add", outside, "type", "veth", "peer", "name", "inside", "netns", namespace)
        _ip("address", "add", f"{base}.{last + 1}/30", "dev", outside)
        _ip("link", "set", outside, "up")
        _ip("-n", namespace, "address", "add", f"{base}.{last + 2}/30", "dev", "inside")
        _ip("-n", namespace, "link", "set", "inside", "up")
        server = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "up\n"
            endpoint = Endpoint(WorkerId("web", "other", 1, 1), Target(f"{base}.{last + 2}", 8000), draining=False)
            yield OtherHost(endpoint, server, namespace)
        finally:
            server.kill()
            server.wait(10)
            server.stdout.close() if server.stdout else None
    finally:
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "delete", namespace)


async def test_a_request_that_waits_at_a_dead_host_is_sent_elsewhere_or_ends_and_a_long_one_elsewhere_goes_on(
    driver: HaproxyDriver, other_host: OtherHost, tmp_path: Path
) -> None:
    port = free_port()
    async with backends(1) as (live,):
        await driver.start({"web": pool(port, [other_host.endpoint])})
        safe, unsafe = Connection(port), Connection(port)
        await safe.send("GET", "/hold")
        await unsafe.send("POST", "/hold", b"x")
        assert other_host.server.stdout is not None
        for _ in range(2):
            assert await asyncio.to_thread(other_host.server.stdout.readline) == "held\n"
        assert await driver.apply({"web": pool(port, [other_host.endpoint, live])}) == {}
        long = Connection(port)
        other_host.cut_power()

        # Well below the five minutes of `timeout server`.
        async with asyncio.timeout(30):
            status, _ = await unsafe.receive()
            assert status == 502, "what may not be sent twice fails"
            await eventually(lambda: live.requests >= 1, "what may be is sent elsewhere", 30)
        await long.send("GET", "/hold")
        await eventually(lambda: live.requests == 2, "the dead host is hidden, so that the live one gets it", 30)
        # Longer than a dead host is waited for: its kernel answers the probes.
        await asyncio.sleep(4)
        live.release.set()
        assert await long.receive() == (200, live.name.encode())
        assert await safe.receive() == (200, live.name.encode())
        for connection in (safe, unsafe, long):
            connection.close()
