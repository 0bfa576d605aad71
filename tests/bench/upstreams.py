"""`python -m tests.bench.upstreams`: from a worker's word that it is ready to its first request, from its crash to off the list.

fleetctl: four workers on one host of a `fleetctl up`; one is killed, its supervisor starts it again, it says `ready`. Measured
are its end → HAProxy would choose it no more, and the word → the new process gets its first request. In the same run and in turn
with it, each with an HAProxy of the same configuration:

- the chain (`upstreams_chain`): the least that does this job over the same way, so three processes joined by two gRPC streams
  with mTLS; its workers are killed and started again, too, a millisecond after the word of their end. This is the floor that the
  target is about;
- the chain at once: the same, but the next process is started as soon as gRPC has sent that word, for fleetctl starts it at once.
  What it takes longer than the other is what a booting Node costs on this machine, whoever starts it;
- the datagram (`upstreams_floor`): one tiny process that gives HAProxy the same commands when a datagram tells it to. Nothing
  ends and nothing boots meanwhile.

All are seen by the same client and the same observer of HAProxy's stats socket, which ask every half millisecond. Prints medians,
quartiles and the ratios of the medians as JSON.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from fleet_balancer.driver import Endpoint, Pool, Route, Target
from fleet_balancer.haproxy import binary
from fleet_balancer.haproxy.driver import HaproxyDriver
from fleet_balancer.haproxy.layout import backends
from fleet_balancer.haproxy.replies import ServerRow, servers_state
from fleet_core.authority import create_authority
from fleet_core.ids import WorkerId
from fleet_core.route import RoutePolicy
from tests.bench.host.report import spread
from tests.integration.fleet.harness import Fleet, wait_for
from tests.ports import free_address

_WORKERS = 4
_TARGET = 2.0
_DEADLINE = 20.0
_PAUSE = 0.0005
"""Between two questions of client and observer: who asks without pause takes the cores from those who are measured."""
_APP = Path(__file__).with_name("upstreams_app.js")
_ANY_PORT = Path(__file__).with_name("any_port.js")

Samples = dict[str, list[float]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.upstreams")
    parser.add_argument("--rounds", type=int, default=5, help=f"of {_WORKERS} samples each")
    arguments = parser.parse_args()
    fleetctl: Samples = {"ready": [], "crash": []}
    chain: Samples = {"ready": [], "crash": []}
    booting: Samples = {"ready": [], "crash": []}
    datagram: Samples = {"ready": [], "crash": []}
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, contextlib.ExitStack() as held:
        fleet = held.enter_context(Fleet(Path(folder), hosts=1))
        fleet.start()
        bare = held.enter_context(Datagram(Path(folder)))
        joined = held.enter_context(Chain(Path(folder) / "chain"))
        hurried = held.enter_context(Chain(Path(folder) / "hurried", "--at-once"))
        address = fleet.start_app(_APP, _WORKERS, "--ready", "message", "--min-ready", "0s", "--max-restarts", "1000")
        for _ in range(arguments.rounds):
            # A worker's first crash is healed at once; a new generation makes each of them the first again.
            fleet.do("soft-restart", "my-app")
            for turn in range(_WORKERS):
                _measure_fleet(fleet, address, turn, fleetctl)
                joined.measure(turn, chain)
                hurried.measure(turn, booting)
                bare.measure(turn, datagram)
    names = {"ready": "ready → first request", "crash": "crash → out of the list"}
    for metric, name in names.items():
        measured = {"fleetctl": fleetctl, "chain": chain, "chain_at_once": booting, "datagram": datagram}
        spreads = {subject: _milliseconds(samples[metric]) for subject, samples in measured.items()}
        ratios = {
            f"ratio_to_{subject}": round(spreads["fleetctl"]["median"] / spreads[subject]["median"], 2)
            for subject in ("chain", "chain_at_once", "datagram")
        }
        verdict = {"target": _TARGET, "met": ratios["ratio_to_chain"] <= _TARGET}
        report = {f"{subject}_ms": found for subject, found in spreads.items()}
        print(json.dumps({"what": name, **report, **ratios, **verdict}, ensure_ascii=False))
    return 0


def _milliseconds(samples: list[float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in spread([1000 * sample for sample in samples]).items()}


class Client:
    """Asks one address again and again on one connection."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=10)

    def ask(self) -> dict[str, Any]:
        self._connection.request("GET", "/")
        response = self._connection.getresponse()
        body = response.read()
        return json.loads(body) if response.status == 200 else {"pid": 0}

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first answer that fulfils the condition. It tells when its worker got the request: a fresh Node answers late."""
        deadline = time.monotonic() + _DEADLINE
        while time.monotonic() < deadline:
            answer = self.ask()
            if condition(answer):
                return answer
            time.sleep(_PAUSE)
        raise AssertionError("the first request did not come in time")


class Observer:
    """HAProxy's own view of a pool's servers."""

    def __init__(self, stats: Path, pool: str) -> None:
        self._backend = backends(pool)[0]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(stats))
        self._ask("prompt")

    def _ask(self, command: str) -> str:
        self._socket.sendall(f"{command}\n".encode())
        answer = b""
        while not answer.endswith(b"\n> "):
            answer += self._socket.recv(262_144)
        return answer[:-2].decode()

    def rows(self) -> list[ServerRow]:
        return servers_state(self._ask(f"show servers state {self._backend}"))

    def until_unlisted(self, port: int) -> float:
        """When no server at this port may be chosen because of the list; that a check hides it does not count."""
        deadline = time.monotonic() + _DEADLINE
        while time.monotonic() < deadline:
            if not any(row.target.port == port and not (row.maintenance or row.draining) for row in self.rows()):
                return time.monotonic()
            time.sleep(_PAUSE)
        raise AssertionError("the worker stayed in the list")


def _measure_fleet(fleet: Fleet, address: str, turn: int, samples: Samples) -> None:
    wait_for(lambda: len(fleet.workers()) == _WORKERS, "every worker ready")
    workers = sorted(fleet.workers(), key=lambda worker: str(worker["id"]))
    victim, known = workers[turn], {worker["pid"] for worker in workers}
    # fleetctl's commands and what they left under way are not part of it.
    time.sleep(0.5)
    stats = max((fleet.runtime_root / "balancers" / "balancer1" / "run").glob("haproxy-*.sock"))
    _measure_death(victim["pid"], victim["port"], known, Client(address), Observer(stats, "my-app"), samples)


def _measure_death(
    pid: int, port: int, known: set[int], client: "Client", observer: "Observer", samples: Samples
) -> None:
    """`known`: the pids of all workers."""
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    # The kernel takes milliseconds to end a Node process; from here on whoever watches it can know.
    select.select([pidfd], [], [], _DEADLINE)
    began = time.monotonic()
    os.close(pidfd)
    samples["crash"].append(observer.until_unlisted(port) - began)
    answer = client.until(lambda answer: answer["pid"] not in known and answer["pid"] != 0)
    samples["ready"].append(answer["at"] - answer["ready"])


class Chain:
    """A host with four workers, a controller, a balancer and its HAProxy, each the least of its kind."""

    def __init__(self, folder: Path, *host_options: str) -> None:
        self._folder = folder
        self._host_options = host_options
        self._address = free_address()
        self._held = contextlib.ExitStack()
        self._host = 0

    def __enter__(self) -> "Chain":
        self._folder.mkdir()
        certificates = self._folder / "tls"
        create_authority(certificates)
        self._ports = [int(free_address().rpartition(":")[2]) for _ in range(_WORKERS)]
        self._held.enter_context(_haproxy(self._folder, self._address, self._ports))
        stats = self._folder / "haproxy-1.sock"
        self._observer = Observer(stats, "my-app")
        numbers = {row.target.port: row.number for row in self._observer.rows()}
        where = [certificates, free_address()]
        ports = ["--ports", *map(str, self._ports)]
        slots = ["--slots", *(str(numbers[port]) for port in self._ports)]
        self._start("controller", *where)
        self._start("balancer", *where, *ports, *slots, "--stats", stats, "--backends", *backends("my-app"))
        command = ["--command", "node", f"--require={_ANY_PORT}", str(_APP)]
        self._host = self._start("host", *where, *self._host_options, *ports, *command)
        wait_for(lambda: len(self._pids()) == _WORKERS, "the chain's workers listen")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._held.close()

    def measure(self, turn: int, samples: Samples) -> None:
        wait_for(lambda: len(self._pids()) == _WORKERS, "the chain's workers listen")
        time.sleep(0.5)
        port, pids = self._ports[turn], self._pids()
        known = set(pids.values())
        _measure_death(pids[port], port, known, Client(self._address), self._observer, samples)

    def _pids(self) -> dict[int, int]:
        """Workers that listen, by port."""
        found = {}
        for worker in psutil.Process(self._host).children():
            with contextlib.suppress(psutil.Error):
                found[_port_of(worker.pid)] = worker.pid
        return {port: pid for port, pid in found.items() if port}

    def _start(self, role: str, *arguments: object) -> int:
        """Once it is ready. Returns its pid."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.upstreams_chain", role, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._held.callback(_end_kindly, process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process.pid


class Datagram:
    """Four workers behind an HAProxy of the same configuration, and the process that changes its list."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "datagram"
        self._address = free_address()
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "Datagram":
        self._folder.mkdir()
        ports = [self._held.enter_context(_worker()) for _ in range(_WORKERS)]
        self._pids = {port: pid for pid, port in ports}
        self._ports = list(self._pids)
        self._held.enter_context(_haproxy(self._folder, self._address, self._ports))
        stats = self._folder / "haproxy-1.sock"
        self._inbox = self._folder / "inbox"
        floor = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.upstreams_floor", self._inbox, stats], stdout=subprocess.PIPE
        )
        self._held.callback(_end, floor)
        assert floor.stdout is not None
        assert floor.stdout.readline() == b"ready\n"
        self._out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._observer = Observer(stats, "my-app")
        self._client = Client(self._address)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._held.close()

    def measure(self, turn: int, samples: Samples) -> None:
        port = self._ports[turn]
        (number,) = {row.number for row in self._observer.rows() if row.target.port == port}
        replay, once = (f"{name}/s{number}" for name in backends("my-app"))
        began = time.monotonic()
        self._say(f"set server {replay} state maint")
        samples["crash"].append(self._observer.until_unlisted(port) - began)
        time.sleep(0.2)
        where = f"addr 127.0.0.1 port {port}"
        began = time.monotonic()
        self._say(f"set server {replay} {where}", f"set server {once} {where}", f"set server {replay} state ready")
        answer = self._client.until(lambda answer: answer["pid"] == self._pids[port])
        samples["ready"].append(answer["at"] - began)

    def _say(self, *commands: str) -> None:
        self._out.sendto(";".join(commands).encode(), str(self._inbox))


@contextlib.contextmanager
def _worker() -> Iterator[tuple[int, int]]:
    """(pid, port) of the app on a port of its own choice."""
    process = subprocess.Popen(["node", "--require", _ANY_PORT, _APP], stdout=subprocess.DEVNULL)
    try:
        yield process.pid, wait_for(lambda: _port_of(process.pid), "the floor's worker listens")
    finally:
        _end(process)


def _port_of(pid: int) -> int:
    listening = [one for one in psutil.Process(pid).net_connections("tcp4") if one.status == psutil.CONN_LISTEN]
    return int(listening[0].laddr.port) if listening else 0


@contextlib.contextmanager
def _haproxy(folder: Path, address: str, ports: list[int]) -> Iterator[None]:
    """HAProxy as fleet-balancer starts it, without fleet-balancer."""
    host, _, port = address.rpartition(":")
    endpoints = [
        Endpoint(WorkerId("my-app", "floor", slot, 1), Target("127.0.0.1", at))
        for slot, at in enumerate(ports, start=1)
    ]
    pool = Pool("my-app", Route.of(RoutePolicy(http=f"{host}:{port}")), tuple(endpoints))

    async def start() -> None:
        driver = HaproxyDriver(folder, binary.find(None))
        refused = await driver.start({"my-app": pool})
        await driver.close()
        assert not refused, refused

    async def stop() -> None:
        await HaproxyDriver(folder, binary.find(None)).stop(0)

    asyncio.run(start())
    try:
        yield
    finally:
        asyncio.run(stop())


def _end_kindly(process: "subprocess.Popen[bytes]") -> None:
    """The end of its input is the end of a host and of its workers."""
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(2)
    _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


if __name__ == "__main__":
    sys.exit(main())
