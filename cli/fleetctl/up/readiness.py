"""Whether the fleet is whole, as the operator would find out: by asking the controller."""

import asyncio
from dataclasses import dataclass

import grpc

from fleet.v1 import control_pb2
from fleet.v1.control_pb2_grpc import ControlServiceStub
from fleet_core.grpc_tls import controller_channel
from fleet_core.tls import TlsFiles
from fleetctl.up.layout import balancer_names, host_names
from fleetctl.up.settings import Settings

_CALL_SECONDS = 3.0
POLL_SECONDS = 0.15


@dataclass(frozen=True, slots=True)
class Lacking:
    """What the fleet still waits for."""

    service: str
    """The daemon to look at."""
    what: str


class FleetProbe:
    """Asks the controllers in turn; whichever leads answers."""

    def __init__(self, settings: Settings, operator: TlsFiles) -> None:
        self._settings = settings
        self._operator = operator
        self._channels: list[grpc.aio.Channel] = []

    async def lacking(self) -> Lacking | None:
        """What is first missing; None: controller, hosts and balancers are all there. Raises OSError on missing certificates."""
        if not self._channels:
            self._channels = [controller_channel(each, self._operator) for each in self._settings.controller_addresses]
        answers = await asyncio.gather(*(self._ask(channel) for channel in self._channels))
        reason = ""
        for answer in answers:
            if isinstance(answer, str):
                reason = reason or answer
            else:
                return answer.lacking
        return Lacking("controller1", f"does not answer ({reason})")

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))
        self._channels = []

    async def _ask(self, channel: grpc.aio.Channel) -> "_Answer | str":
        stub = ControlServiceStub(channel)
        try:
            hosts = await stub.ListHosts(control_pb2.ListHostsRequest(), timeout=_CALL_SECONDS)
            balancers = await stub.ListBalancers(control_pb2.ListBalancersRequest(), timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            return " ".join((error.details() or error.code().name).split())
        online = {host.name for host in hosts.hosts if host.state == control_pb2.HOST_STATE_ONLINE}
        connected = {balancer.name for balancer in balancers.balancers if balancer.connected}
        for name in host_names(self._settings.hosts):
            if name not in online:
                return _Answer(Lacking(f"{name}-agent", "has not connected to the controller"))
        for name in balancer_names(self._settings.balancers):
            if name not in connected:
                return _Answer(Lacking(name, "has not connected to the controller"))
        return _Answer(None)


@dataclass(frozen=True, slots=True)
class _Answer:
    lacking: Lacking | None
