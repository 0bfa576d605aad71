"""The controller's end of a subscription, driven by a test: it says what it is told to and remembers what it hears."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from fleet.v1 import balancer_pb2, balancer_pb2_grpc
from fleet_balancer.driver import Pool
from fleet_core.authority import create_authority, issue
from fleet_core.grpc_tls import peer_identity, server_credentials
from fleet_core.ids import Epoch
from fleet_core.tls import Identity, Role, TlsFiles
from fleet_core.version import PROTOCOL_VERSION
from tests.integration.balancer.harness import eventually
from tests.ports import free_port

HEARTBEAT_SECONDS = 0.5


class FakeController(balancer_pb2_grpc.BalancerServiceServicer):
    def __init__(self, folder: Path, *, era: int = 1, revision: int = 10) -> None:
        create_authority(folder)
        self.tls: TlsFiles = issue(folder, Identity(Role.CONTROLLER, "c1"), ["127.0.0.1"])
        self.epoch = Epoch(era, revision)
        self.leader: str | None = None
        """Not None: refuse every subscription and name this leader."""
        self.hellos: list[balancer_pb2.BalancerHello] = []
        self.applied: list[balancer_pb2.Applied] = []
        self.heartbeats: list[balancer_pb2.BalancerHeartbeat] = []
        self.validated: list[balancer_pb2.Validated] = []
        self.subscriptions = 0
        self.port = 0
        self.lists = balancer_pb2.UpstreamLists()
        self._outbox: asyncio.Queue[balancer_pb2.UpstreamMessage] | None = None
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, port: int | None = None) -> "FakeController":
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        balancer_pb2_grpc.add_BalancerServiceServicer_to_server(self, self._server)
        self.port = free_port() if port is None else port
        self._server.add_secure_port(f"127.0.0.1:{self.port}", server_credentials(self.tls))
        await self._server.start()
        return self

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def Subscribe(  # noqa: N802 (gRPC's name)
        self,
        request_iterator: AsyncIterator[balancer_pb2.BalancerMessage],
        context: grpc.aio.ServicerContext[balancer_pb2.BalancerMessage, balancer_pb2.UpstreamMessage],
    ) -> AsyncIterator[balancer_pb2.UpstreamMessage]:
        identity = peer_identity(context)  # type: ignore[arg-type]
        assert identity is not None
        assert identity.role is Role.BALANCER
        if self.leader is not None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not the leader", (("fleet-leader", self.leader),))
        self.subscriptions += 1
        outbox: asyncio.Queue[balancer_pb2.UpstreamMessage] = asyncio.Queue()
        self._outbox = outbox
        self.say(
            welcome=balancer_pb2.BalancerWelcome(
                protocol_version=PROTOCOL_VERSION, heartbeat_interval_seconds=HEARTBEAT_SECONDS
            )
        )
        self.say(lists=self.lists)
        listening = asyncio.create_task(self._listen(request_iterator))
        try:
            while True:
                yield await outbox.get()
        finally:
            listening.cancel()

    async def _listen(self, messages: AsyncIterator[balancer_pb2.BalancerMessage]) -> None:
        async for message in messages:
            kind = message.WhichOneof("message")
            if kind == "hello":
                self.hellos.append(message.hello)
            elif kind == "applied":
                self.applied.append(message.applied)
            elif kind == "heartbeat":
                self.heartbeats.append(message.heartbeat)
            elif kind == "validated":
                self.validated.append(message.validated)

    def say(self, **message: object) -> None:
        assert self._outbox is not None
        self._outbox.put_nowait(balancer_pb2.UpstreamMessage(epoch=self.epoch.to_proto(), **message))  # type: ignore[arg-type]

    def want(self, version: int, *pools: Pool) -> None:
        """Send complete lists, all at this version, and to every later subscriber too."""
        messages = [to_proto(pool, version) for pool in pools]
        self.lists = balancer_pb2.UpstreamLists(changed=messages, pools=[pool.name for pool in pools])
        if self._outbox is not None:
            self.say(lists=self.lists)

    async def acknowledged(self, version: int, pool: str = "web") -> balancer_pb2.Applied:
        """The answer to this version of the pool, in the present epoch."""

        def answers() -> list[balancer_pb2.Applied]:
            epoch = self.epoch.to_proto()
            return [one for one in self.applied if (one.pool, one.version, one.epoch) == (pool, version, epoch)]

        await eventually(lambda: bool(answers()), f"{pool} version {version} is acknowledged", 20)
        return answers()[-1]


def to_proto(pool: Pool, version: int) -> balancer_pb2.Pool:
    message = balancer_pb2.Pool(name=pool.name, version=version, health_path=pool.health_path)
    if pool.route is not None:
        message.route.CopyFrom(pool.route.policy.to_proto())
    for endpoint in pool.endpoints:
        message.endpoints.add(
            worker=endpoint.worker.to_proto(),
            address=endpoint.target.address,
            port=endpoint.target.port,
            state="ENDPOINT_STATE_DRAINING" if endpoint.draining else "ENDPOINT_STATE_READY",
        )
    return message
