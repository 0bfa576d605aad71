"""What agent sessions and balancer subscriptions have in common: who may, the hello, and the two directions of a stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import grpc

from fleet_controller.leadership import Leadership, Office
from fleet_controller.lineage import Remembered
from fleet_controller.outbox import Outbox
from fleet_controller.store.interface import StoreError
from fleet_core.grpc_tls import peer_identity
from fleet_core.tls import Identity, Role
from fleet_core.version import PROTOCOL_VERSION

_In = TypeVar("_In")
_Out = TypeVar("_Out")
HELLO_TIMEOUT_SECONDS = 5.0
LEADER_METADATA = "fleet-leader"
ACCEPTED_METADATA = "fleet-accepted"
"""In the initial metadata of a call that takes a stream: the first message was accepted, the rest may be sent."""
MISSED_HEARTBEATS = 3
"""So many intervals without a word, and the peer counts as gone."""

Context = grpc.aio.ServicerContext[Any, Any]


async def require_role(context: Context, *roles: Role) -> Identity:
    """Who calls, if of one of these roles; else the call ends with PERMISSION_DENIED."""
    identity = peer_identity(context)
    if identity is None or identity.role not in roles:
        who = f"a certificate of role {identity.role}" if identity else "this certificate"
        await abort(context, grpc.StatusCode.PERMISSION_DENIED, f"{who} may not make this call")
    return identity


async def require_office(context: Context, leadership: Leadership, code: grpc.StatusCode) -> Office:
    """The leader's office, if this controller leads; else the call ends with `code` and names the leader."""
    office = leadership.office
    if office is None or not office.open.is_set():
        try:
            address = await leadership.leader_address()
        except StoreError as error:
            await abort(
                context, code, f"controller {leadership.name} does not lead, and cannot find the leader: {error}"
            )
        if address and address != leadership.address:
            context.set_trailing_metadata(((LEADER_METADATA, address),))
            await abort(context, code, f"controller {leadership.name} does not lead: the leader is at {address}")
        await abort(context, code, f"controller {leadership.name} does not lead, and knows no leader at present")
    return office


async def check_hello(
    context: Context, identity: Identity, peer: Remembered, name: str, protocol_version: int, office: Office
) -> None:
    """End the call unless the peer is who its certificate names, speaks our protocol and obeyed leaders of our etcd alone."""
    if name != identity.name:
        text = f"the certificate is of {identity.role} {identity.name}, the caller says it is {name!r}"
        await abort(context, grpc.StatusCode.PERMISSION_DENIED, text)
    failed = grpc.StatusCode.FAILED_PRECONDITION
    if protocol_version != PROTOCOL_VERSION:
        text = f"protocol version {protocol_version} is not spoken here, {PROTOCOL_VERSION} is"
        await abort(context, failed, f"{text}: upgrade the older one of the two programs")
    refusal = await office.lineage.check(peer)
    if refusal:
        await abort(context, failed, refusal)


async def converse(
    requests: AsyncIterator[_In],
    outbox: Outbox[_Out],
    receive: Callable[[_In], Awaitable[None]],
    silence_seconds: float,
) -> AsyncIterator[_Out]:
    """Yield what the outbox sends while `receive` takes what comes in.

    Ends when either direction ends, or nothing came in for `silence_seconds`. Errors of `receive` are raised here.
    """

    async def read() -> None:
        try:
            while True:
                async with asyncio.timeout(silence_seconds):
                    message = await anext(requests)
                await receive(message)
        except (StopAsyncIteration, TimeoutError):
            pass
        finally:
            outbox.close()

    reader = asyncio.create_task(read(), name="stream-reader")
    try:
        async for message in outbox.messages():
            yield message
    finally:
        reader.cancel()
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await reader


async def first(requests: AsyncIterator[_In], context: Context) -> _In:
    """The first message; the call ends when it does not come in time."""
    try:
        async with asyncio.timeout(HELLO_TIMEOUT_SECONDS):
            return await anext(requests)
    except (TimeoutError, StopAsyncIteration):
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a hello")


async def abort(context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError("abort raises")
