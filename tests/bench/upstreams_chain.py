"""The least that does the same job over the same way: a host, a controller and a balancer, joined by two gRPC streams with mTLS.

`python -m tests.bench.upstreams_chain ROLE FOLDER ADDRESS`, where FOLDER has the certificates. Nothing is kept, planned,
compared or acknowledged: the host says which worker ended, before it starts it again, and which is ready; the controller hands
that on as it is; the balancer makes commands of it, and gives them to HAProxy's stats socket.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import grpc

from fleet_core.authority import issue
from fleet_core.grpc_tls import controller_channel, server_credentials, server_options
from fleet_core.tls import Identity, Role
from tests.bench.upstreams_floor import ask

_REPORT = "/bench.Chain/Report"
_LISTS = "/bench.Chain/Lists"
_WORD_SECONDS = 0.001
"""From a worker's end to its restart, so that the word of it is under way before anything else wants the processor."""

Said = tuple[bytes, Callable[[], object]]
"""A word, and what to do once gRPC has sent it."""


class Worker:
    """A Node process on one port. Owns it until `end`."""

    def __init__(self, command: Sequence[str], port: int) -> None:
        self._command = command
        self._port = port
        self.pidfd = -1
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> socket.socket:
        """The channel on which it will say that it is ready."""
        ours, theirs = socket.socketpair()
        with theirs:
            inherited = theirs.fileno()
            env = {**os.environ, "NODE_CHANNEL_FD": str(inherited), "BENCH_PORT": str(self._port)}
            self._process = subprocess.Popen(
                self._command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[inherited]
            )
        self.pidfd = os.pidfd_open(self._process.pid)
        return ours

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            os.close(self.pidfd)
            self._process = None


class Host:
    """Watches workers, starts each again, and says so."""

    def __init__(self, command: Sequence[str], ports: Sequence[int], *, at_once: bool) -> None:
        """`at_once`: start a worker again as soon as the word of its end is sent."""
        self._workers = {port: Worker(command, port) for port in ports}
        self._at_once = at_once
        self._said: asyncio.Queue[Said] = asyncio.Queue()

    async def run(self, channel: grpc.aio.Channel) -> None:
        for port in self._workers:
            self._start(port)
        report: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(_REPORT)
        await report(self._reports())

    def close(self) -> None:
        for worker in self._workers.values():
            worker.end()

    async def _reports(self) -> AsyncIterator[bytes]:
        while True:
            word, then = await self._said.get()
            yield word
            then()

    def _start(self, port: int) -> None:
        loop, worker = asyncio.get_running_loop(), self._workers[port]
        words = worker.start()

        def on_word() -> None:
            loop.remove_reader(words.fileno())
            if words.recv(4096):
                self._said.put_nowait((f"up {port}".encode(), lambda: None))
                loop.add_reader(words.fileno(), on_end)
            else:
                words.close()

        def on_end() -> None:
            loop.remove_reader(words.fileno())
            words.close()

        def on_death() -> None:
            loop.remove_reader(worker.pidfd)
            start = partial(self._start, port)
            self._said.put_nowait((f"down {port}".encode(), start if self._at_once else lambda: None))
            worker.end()
            if not self._at_once:
                loop.call_later(_WORD_SECONDS, start)

        loop.add_reader(words.fileno(), on_word)
        loop.add_reader(worker.pidfd, on_death)


class Controller(grpc.GenericRpcHandler):
    """Hands every report on to every balancer."""

    def __init__(self) -> None:
        self._balancers: list[asyncio.Queue[bytes]] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:  # type: ignore[type-arg]
        if handler_call_details.method == _REPORT:
            return grpc.stream_unary_rpc_method_handler(self._report)
        return grpc.unary_stream_rpc_method_handler(self._lists)

    async def _report(self, reports: AsyncIterator[bytes], _context: object) -> bytes:
        async for report in reports:
            for queue in self._balancers:
                queue.put_nowait(report)
        return b""

    async def _lists(self, _request: bytes, _context: object) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._balancers.append(queue)
        yield b""
        while True:
            yield await queue.get()


async def balance(channel: grpc.aio.Channel, stats: Path, slots: dict[int, int], names: Sequence[str]) -> None:
    """`slots`: the number of HAProxy's server by the worker's port. `names`: of the pool's backends."""
    api = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    api.connect(str(stats))
    ask(api, b"prompt")
    lists: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(_LISTS)
    async for message in lists(b""):
        if not message:
            print("ready", flush=True)
            continue
        word, _, port = message.decode().partition(" ")
        replay, once = (f"{name}/s{slots[int(port)]}" for name in names)
        commands = [f"set server {replay} state maint"]
        if word == "up":
            where = f"addr 127.0.0.1 port {port}"
            commands = [
                f"set server {replay} {where}",
                f"set server {once} {where}",
                f"set server {replay} state ready",
            ]
        ask(api, ";".join(commands).encode())


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.upstreams_chain")
    parser.add_argument("role", choices=["host", "controller", "balancer"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("address")
    parser.add_argument("--ports", type=int, nargs="+", default=[])
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--stats", type=Path)
    parser.add_argument("--slots", type=int, nargs="+", default=[])
    parser.add_argument("--backends", nargs="+", default=[])
    parser.add_argument("--command", nargs=argparse.REMAINDER, default=[])
    arguments = parser.parse_args()
    if arguments.role == "controller":
        server = grpc.aio.server(options=server_options())
        server.add_generic_rpc_handlers((Controller(),))
        files = issue(arguments.folder, Identity(Role.CONTROLLER, "chain"), ["127.0.0.1"])
        server.add_secure_port(arguments.address, server_credentials(files))
        await server.start()
        print("ready", flush=True)
        await server.wait_for_termination()
        return
    role = Role.AGENT if arguments.role == "host" else Role.BALANCER
    async with controller_channel(arguments.address, issue(arguments.folder, Identity(role, "chain"))) as channel:
        if role is Role.BALANCER:
            slots = dict(zip(arguments.ports, arguments.slots, strict=True))
            await balance(channel, arguments.stats, slots, arguments.backends)
            return
        host = Host(arguments.command, arguments.ports, at_once=arguments.at_once)
        print("ready", flush=True)
        watching = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        running = asyncio.create_task(host.run(channel))
        try:
            await asyncio.wait([watching, running], return_when=asyncio.FIRST_COMPLETED)
        finally:
            running.cancel()
            host.close()


if __name__ == "__main__":
    asyncio.run(main())
