"""The members of an etcd cluster, one channel each, and which of them to talk to next.

One channel over all members (gRPC's round robin) would go on giving every n-th call to a member that is stopped or cut off until
keepalive finds out, which takes 15 s. Here a member that failed one call is asked last from then on.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from etcd3aio.kv import KVService
from etcd3aio.lease import LeaseService

from fleet_core.tls import TlsFiles

_OPTIONS: list[tuple[str, int | str]] = [
    # etcd takes more than one ping in 5 s (--grpc-keepalive-min-time), and pings without a call, for abuse.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Desired state never travels through a proxy, whatever the environment names.
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    endpoint: str
    channel: grpc.aio.Channel
    kv: KVService
    lease: LeaseService

    async def connected(self, seconds: float) -> bool:
        """Whether there is, or can be made within `seconds`, a connection. Sends no call."""
        try:
            async with asyncio.timeout(seconds):
                while (state := self.channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                        return False
                    await self.channel.wait_for_state_change(state)
        except TimeoutError:
            return False
        return True


class Members:
    """Create it inside the running event loop. Raises OSError when a certificate cannot be read."""

    def __init__(self, endpoints: Sequence[str], tls: TlsFiles, server_name: str | None) -> None:
        if not endpoints:
            raise ValueError("at least one etcd endpoint is needed")
        authority, certificate, key = tls.read()
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        options = list(_OPTIONS)
        if server_name is not None:
            options.append(("grpc.ssl_target_name_override", server_name))
        self._members = []
        for endpoint in endpoints:
            channel = grpc.aio.secure_channel(endpoint, credentials, options=options)
            self._members.append(
                Member(endpoint, channel, KVService(channel, max_attempts=1), LeaseService(channel, max_attempts=1))
            )

    @property
    def endpoints(self) -> str:
        """For messages: all of them, in a stable order."""
        return ", ".join(sorted(member.endpoint for member in self._members))

    def in_order(self) -> tuple[Member, ...]:
        """All members, the most trusted first."""
        return tuple(self._members)

    def distrust(self, member: Member) -> None:
        self._members.remove(member)
        self._members.append(member)

    async def close(self) -> None:
        for member in self._members:
            await member.channel.close()
