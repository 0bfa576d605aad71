"""What agent sessions and balancer subscriptions have in common: who may, the hello, and the two directions of a stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import grpc

from fleet_controller.admission import Crowded
from fleet_controller.leadership import Leadership, Office
from fleet_controller.lineage import Remembered
from fleet_controller.outbox import Outbox
from fleet_core.grpc_tls import peer_identity
from fleet_core.leader_search import LEADER_METADATA, TRIED_METADATA
from fleet_core.tls import Identity, Role
from fleet_core.version import PROTOCOL_VERSION

_In = TypeVar("_In")
_Out = TypeVar("_Out")
HELLO_TIMEOUT_SECONDS = 5.0
PATIENCE_SECONDS = 3.0
"""So long a session that found no leader waits here for one: less than the five seconds in which its caller wants a welcome,
and about as long as a dead leader's lease lasts, so that most callers need not dial again and again meanwhile."""
ACCEPTED_METADATA = "fleet-accepted"
"""In the initial metadata of a call that takes a stream: the first message was accepted, the rest may be sent."""
MISSED_HEARTBEATS = 3
"""So many intervals without a word, and the peer counts as gone."""
_STALL_SECONDS = 0.5
"""A timer that comes so much too late shows that this process stood still: frozen, swapped out, or starved."""

Context = grpc.aio.ServicerContext[Any, Any]


async def require_role(context: Context, *roles: Role) -> Identity:
    """Who calls, if of one of these roles; else the call ends with PERMISSION_DENIED."""
    identity = peer_identity(context)
    if identity is None or identity.role not in roles:
        who = f"a certificate of role {identity.role}" if identity else "this certificate"
        await abort(context, grpc.StatusCode.PERMISSION_DENIED, f"{who} may not make this call")
    return identity


async def require_office(
    context: Context, leadership: Leadership, code: grpc.StatusCode, patience_seconds: float = 0.0
) -> Office:
    """The leader's office, if this controller leads or comes to lead in time; else the call ends with `code` and names who leads.

    The caller may say (metadata `fleet-tried`) which leader it cannot reach: to be named that one again would not help it, so
    while there is patience it waits here for the next.
    """
    found = await leadership.find(_tried(context), patience_seconds)
    if isinstance(found, Office):
        return found
    if found and patience_seconds:
        with suppress(Crowded):
            await leadership.referrals.turn()
    if found:
        context.set_trailing_metadata(((LEADER_METADATA, found),))
        await abort(context, code, f"controller {leadership.name} does not lead: the leader is at {found}")
    return await abort(context, code, f"controller {leadership.name} does not lead, and knows no leader at present")


def _tried(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == TRIED_METADATA:
            return value.decode(errors="replace") if isinstance(value, bytes) else value
    return ""


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

    Ends when either direction ends, or nothing came in for `silence_seconds`, which may be infinite. Raises what `receive`
    raises.
    """

    async def read() -> None:
        try:
            async for message in requests:
                silence.broken()
                await receive(message)
        finally:
            outbox.close()

    reader = asyncio.create_task(read(), name="stream-reader")
    silence = Silence(silence_seconds, reader.cancel)
    try:
        async for message in outbox.messages():
            yield message
    finally:
        silence.close()
        reader.cancel()
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await reader


class Silence:
    """Calls back once nothing was heard for so long. One timer for all messages, as most of them come long before it."""

    def __init__(self, seconds: float, over: Callable[[], object]) -> None:
        self._seconds = seconds
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._timer = self._wait()

    def broken(self) -> None:
        """Something was heard."""
        self._heard = self._loop.time()

    def close(self) -> None:
        self._timer.cancel()

    def _wait(self) -> asyncio.TimerHandle:
        return self._loop.call_at(self._heard + self._seconds, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if now - self._timer.when() >= _STALL_SECONDS:
            self._heard = now  # it was us who slept: what was sent meanwhile is still to be read
        if self._heard + self._seconds <= now:
            self._over()
        else:
            self._timer = self._wait()


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
