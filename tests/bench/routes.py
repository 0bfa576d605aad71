"""What a route costs a request: HAProxy as fleet-balancer configures it, beside a bare one with the same servers, in turns.

`python -m tests.bench.routes [--rounds N] [--seconds S]`. The servers are one more HAProxy, which answers by itself, so that they
are not what is measured. A client of its own process keeps so many connections busy, each with one request at a time.
"""

import argparse
import asyncio
import contextlib
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from fleet_balancer.driver import Endpoint, Pool, Route, Target
from fleet_balancer.haproxy import binary
from fleet_balancer.haproxy.driver import HaproxyDriver
from fleet_core.ids import WorkerId
from fleet_core.route import RoutePolicy
from tests.ports import free_port

_SERVERS = 4
_CONNECTIONS = 32
_END = b"the end\n"
_BODY = "x" * 1000
_COMMON = """\
global
    nbthread 1
    maxconn 2000
defaults
    mode http
    timeout connect 1s
    timeout client 5m
    timeout server 5m
"""
_REQUEST = b"GET /shop/items/4711?colour=green HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: tests.bench.routes\r\n\r\n"


@dataclass(frozen=True)
class Subject:
    name: str
    port: int
    pid: int


def client(port: int, seconds: float) -> None:
    """Print how many requests were answered, and how long that took, as JSON."""
    selector = selectors.DefaultSelector()
    began: dict[int, float] = {}
    held: dict[int, bytes] = {}
    took: list[float] = []
    for _ in range(_CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ, connection)
        began[connection.fileno()] = time.perf_counter()
        connection.sendall(_REQUEST)
    start = time.perf_counter()
    now = start
    while now < start + seconds:
        for key, _ in selector.select(1.0):
            connection = key.data
            number = connection.fileno()
            answer = held.pop(number, b"") + connection.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"not the expected answer: {answer[:100]!r}")
            if not answer.endswith(_END):
                held[number] = answer
                continue
            now = time.perf_counter()
            took.append(now - began[number])
            began[number] = now
            connection.sendall(_REQUEST)
        now = time.perf_counter()
    percentiles = statistics.quantiles(took, n=100)
    print(
        json.dumps(
            {"rate": len(took) / (now - start), "count": len(took), "p50": percentiles[49], "p99": percentiles[98]}
        )
    )


def processor_seconds(pid: int) -> float:
    """Of a process and its threads so far (proc_pid_stat(5)), to 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def haproxy(folder: Path, name: str, sections: str) -> Iterator[int]:
    """One with this configuration; its pid."""
    path = folder / f"{name}.cfg"
    path.write_text(_COMMON + sections)
    process = subprocess.Popen([binary.find(None).path, "-q", "-db", "-f", path])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


async def answering(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def route(folder: Path, name: str, ports: list[int], **settings: object) -> AsyncIterator[Subject]:
    folder.mkdir()
    driver = HaproxyDriver(folder, binary.find(None))
    port = free_port()
    policy = RoutePolicy.model_validate({"http": f"127.0.0.1:{port}", **settings})
    endpoints = tuple(
        Endpoint(WorkerId("shop", "host1", number, 1), Target("127.0.0.1", one)) for number, one in enumerate(ports, 1)
    )
    try:
        refused = await driver.start({"shop": Pool("shop", Route.of(policy), endpoints)})
        if refused:
            raise SystemExit(f"refused: {refused}")
        yield Subject(name, port, driver.pid)
    finally:
        await driver.stop(0)


async def measured(subject: Subject, seconds: float) -> dict[str, float]:
    command = (sys.executable, "-m", "tests.bench.routes", "--client", str(subject.port), "--seconds", str(seconds))
    before, own = processor_seconds(subject.pid), time.process_time()
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise SystemExit("the client failed")
    found: dict[str, float] = json.loads(output)
    found["haproxy_us"] = (processor_seconds(subject.pid) - before) / found["count"] * 1e6
    found["balancer_us"] = (time.process_time() - own) / found["count"] * 1e6
    return found


async def run(rounds: int, seconds: float) -> None:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = [free_port() for _ in range(_SERVERS)]
        binds = "".join(f"    bind 127.0.0.1:{port}\n" for port in ports)
        answer = f'    http-request return status 200 content-type text/plain string "{_BODY}the end\\n"\n'
        stack.enter_context(haproxy(folder, "servers", f"frontend servers\n{binds}{answer}"))
        port = free_port()
        servers = "".join(f"    server s{number} 127.0.0.1:{one}\n" for number, one in enumerate(ports))
        bare = f"listen bare\n    bind 127.0.0.1:{port}\n    balance leastconn\n{servers}"
        subjects = [Subject("bare", port, stack.enter_context(haproxy(folder, "bare", bare)))]
        for one in (*ports, port):
            await answering(one)
        logged = {"access_log": {"format": "json"}}
        subjects.append(await stack.enter_async_context(route(folder / "plain", "route", ports)))
        subjects.append(await stack.enter_async_context(route(folder / "logged", "route, access log", ports, **logged)))
        for subject in subjects:
            await measured(subject, 0.5)
        samples: dict[str, list[dict[str, float]]] = {subject.name: [] for subject in subjects}
        for number in range(rounds):
            turn = number % len(subjects)
            for subject in (*subjects[turn:], *subjects[:turn]):
                samples[subject.name].append(await measured(subject, seconds))
        lines = (folder / "logged" / "access" / "shop.log").read_text().count("\n")
    medians = {
        name: {key: statistics.median(sample[key] for sample in taken) for key in taken[0]}
        for name, taken in samples.items()
    }
    print(
        "| | requests/s | p50 ms | p99 ms | HAProxy, µs a request | fleet-balancer, µs a request |\n|---|---|---|---|---|---|"
    )
    for name, found in medians.items():
        print(
            f"| {name} | {found['rate']:,.0f} | {found['p50'] * 1e3:.2f} | {found['p99'] * 1e3:.2f} "
            f"| {found['haproxy_us']:.1f} | {found['balancer_us']:.1f} |"
        )
    print(json.dumps({"samples": samples, "lines in the newest log": lines}), file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--client", type=int, metavar="PORT", help="be the client")
    options = parser.parse_args()
    if options.client is not None:
        client(options.client, options.seconds)
    else:
        asyncio.run(run(options.rounds, options.seconds))


if __name__ == "__main__":
    main()
