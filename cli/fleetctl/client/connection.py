"""Calls to whichever controller leads.

A call goes to the controllers in turn; one that does not lead names the leader (trailing metadata `fleet-leader`), which is
asked next. Every call has a deadline. Errors become FleetError, in the controller's own words.
"""

import asyncio
import os
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's C core would log failed handshakes between our lines

import grpc

from fleet.v1.control_pb2_grpc import ControlServiceStub
from fleet_core.contexts import ContextError, load_contexts
from fleet_core.grpc_tls import controller_channel
from fleet_core.leader_search import LEADER_METADATA
from fleet_core.tls import TlsFiles
from fleetctl.client.errors import FleetError, NotFound, Refused, UnavailableError, Unreachable, UsageError
from fleetctl.wording import printable

if TYPE_CHECKING:
    from fleet.v1.control_pb2_grpc import ControlServiceAsyncStub

Request = TypeVar("Request")
Response = TypeVar("Response")

_CONNECT_SECONDS = 3.0
_FIRST_CONNECT_SECONDS = 1.0
"""So long one of several controllers may take before another is asked; it may go on connecting, and is asked again last."""
_PAUSE_SECONDS = 0.2
_PATIENCE_SECONDS = 6.0
"""Another controller leads within 5 s of the leader's death (DESIGN: when something dies)."""
_ACCEPTED = "fleet-accepted"
"""Initial metadata: the first message of a stream was accepted, the rest may come."""

_CLOSED = re.compile("Socket closed|reset|closing")
_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.OUT_OF_RANGE)
"""A stream of ours that ended so may be begun again."""
_KINDS: dict[grpc.StatusCode, type[FleetError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: UsageError,
    grpc.StatusCode.UNAVAILABLE: Unreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unreachable,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Refused,
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
    grpc.StatusCode.ABORTED: Refused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Refused,
    grpc.StatusCode.PERMISSION_DENIED: Refused,
    grpc.StatusCode.UNAUTHENTICATED: Refused,
}
_HINTS = {
    grpc.StatusCode.ABORTED: "somebody else changed it meanwhile: look with `fleetctl status`, then say it again",
    grpc.StatusCode.PERMISSION_DENIED: "use a context whose certificate is an operator's: --context NAME",
    grpc.StatusCode.UNIMPLEMENTED: "the controller is older than this fleetctl: upgrade it",
}


class _NobodyAnsweredError(Exception):
    """One round over the controllers brought no answer. `leaderless`: some were reached, and none leads."""

    def __init__(self, reasons: dict[str, str], *, leaderless: bool) -> None:
        super().__init__()
        self.leaderless = leaderless
        self._tried = ", ".join(f"{address} ({reason})" for address, reason in reasons.items())

    def final(self) -> UnavailableError:
        if self.leaderless:
            message = f"no controller leads at present: {self._tried}; try again in a few seconds"
        else:
            message = (
                f"no controller can be reached: {self._tried}; "
                "start one with `fleetctl up`, or name another with -C HOST:PORT"
            )
        return UnavailableError(message)


class Connection:
    """The fleet's control API; use as an async context manager, which closes every channel.

    `patient`: whatever was asked before, a controller that was reached once and is lost is awaited for some seconds.
    """

    def __init__(
        self, addresses: tuple[str, ...], files: TlsFiles, call_seconds: float, *, patient: bool = False
    ) -> None:
        self._addresses = addresses
        self._files = files
        self._call_seconds = call_seconds
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._leader = ""
        self._patient = patient
        self._answered: set[str] = set()
        """Addresses whose certificate and ours are known to fit."""
        self._silent: set[str] = set()
        """Addresses that took too long to connect to."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @classmethod
    def find(
        cls, controllers: tuple[str, ...], context: str | None, call_seconds: float, *, patient: bool = False
    ) -> Self:
        """To the fleet a context names, the current one where `context` is None; at its controllers, where no others are given.
        Raises FleetError; connects only when a call is made."""
        try:
            chosen = load_contexts().choose(context)[1]
        except ContextError as error:
            raise Unreachable(str(error)) from error
        files = TlsFiles(chosen.authority, chosen.certificate, chosen.key)
        check_readable(files, "see --context, or run `fleetctl up` again")
        return cls(controllers or chosen.controllers, files, call_seconds, patient=patient)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Calls under way fail; later ones raise RuntimeError."""
        self._closed = True
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()

    async def call(
        self,
        method: "Callable[[ControlServiceAsyncStub], grpc.aio.UnaryUnaryMultiCallable[Request, Response]]",
        request: Request,
        *,
        mutation: bool = False,
    ) -> Response:
        """The leader's answer. While no controller leads, ask again for a few seconds; a mutation, whose request id makes
        that safe, also while none can be reached. Raises FleetError."""
        clock = asyncio.get_running_loop().time
        give_up = clock() + min(_PATIENCE_SECONDS, self._call_seconds)
        worth_waiting = mutation or (self._patient and bool(self._answered))
        while True:
            try:
                return await self._ask_in_turn(method, request)
            except _NobodyAnsweredError as error:
                if not (worth_waiting or error.leaderless) or clock() + _PAUSE_SECONDS > give_up:
                    raise error.final() from None
            await asyncio.sleep(_PAUSE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 (spreads retries, guards no secret)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those configured."""
        return self._addresses

    async def ask_one(
        self,
        address: str,
        method: "Callable[[ControlServiceAsyncStub], grpc.aio.UnaryUnaryMultiCallable[Request, Response]]",
        request: Request,
    ) -> Response:
        """The answer of the controller at `address`, whether it leads or not. Raises FleetError; the whole message of an
        UnavailableError is what makes it unreachable."""
        if reason := await self._reach(address):
            raise UnavailableError(reason)
        try:
            return await method(self._stub(address))(request, timeout=min(_CONNECT_SECONDS, self._call_seconds))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise UnavailableError("no answer") from error
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise UnavailableError(self._why_unavailable(address, error)[0]) from error
            raise _translated(error, address) from error

    async def stream(
        self,
        method: "Callable[[ControlServiceAsyncStub], grpc.aio.UnaryStreamMultiCallable[Request, Response]]",
        request: Request,
    ) -> AsyncGenerator[Response, None]:
        """The leader's messages; the channel's keepalive notices a dead peer within 6 s. Raises UnavailableError when the
        stream breaks or no controller answers: ask again as long as it makes sense. Close it (`contextlib.aclosing`)."""
        reasons: dict[str, str] = {}
        leaderless = False
        for address in self._turns():
            reason = await self._reach(address)
            if reason:
                reasons[address] = reason
                continue
            started = False
            call = method(self._stub(address))(request)
            try:
                async for message in call:
                    started = True
                    yield message
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise _translated(error, address) from error
                if started:
                    raise UnavailableError(f"the controller at {address} went away") from error
                reasons[address], not_leader = self._why_unavailable(address, error)
                leaderless = leaderless or not_leader
            else:
                return
            finally:
                call.cancel()
        raise _NobodyAnsweredError(reasons, leaderless=leaderless).final()

    async def send(
        self,
        method: "Callable[[ControlServiceAsyncStub], grpc.aio.StreamUnaryMultiCallable[Request, Response]]",
        messages: AsyncIterator[Request],
    ) -> Response:
        """The answer of the leader, as the call before found it, to a stream of messages, the first of which it accepts before
        the rest is sent; the channel's keepalive notices a dead peer within 6 s.

        Raises UnavailableError when the stream breaks, other FleetErrors as `call`.
        """
        address = next(self._turns())
        reason = await self._reach(address)
        if reason:
            raise UnavailableError(f"the controller at {address}: {reason}")
        call = method(self._stub(address))()
        try:
            with suppress(asyncio.InvalidStateError):  # the call ended meanwhile, and says why
                await call.write(await anext(messages))
                # A refusal comes now: one that comes while data is written may be lost (grpc.aio, "Internal error from Core").
                if _ACCEPTED in dict(await call.initial_metadata()):
                    async for message in messages:
                        await call.write(message)
                    await call.done_writing()
            return await call
        except grpc.aio.AioRpcError as error:
            broken = error.code() in _BROKEN or error.details() == "Internal error from Core"
            if broken:
                self._why_unavailable(address, error)
                raise UnavailableError(f"the controller at {address} went away") from error
            raise _translated(error, address) from error
        finally:
            call.cancel()

    async def _ask_in_turn(
        self,
        method: "Callable[[ControlServiceAsyncStub], grpc.aio.UnaryUnaryMultiCallable[Request, Response]]",
        request: Request,
    ) -> Response:
        reasons: dict[str, str] = {}
        leaderless = False
        for address in self._turns():
            reason = await self._reach(address)
            if reason:
                reasons[address] = reason
                continue
            try:
                answer = await method(self._stub(address))(request, timeout=self._call_seconds)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise _translated(error, address) from error
                reasons[address], not_leader = self._why_unavailable(address, error)
                leaderless = leaderless or not_leader
            else:
                self._leader = address
                self._answered.add(address)
                return answer
        raise _NobodyAnsweredError(reasons, leaderless=leaderless)

    def _turns(self) -> Iterator[str]:
        """Addresses to ask: the known leader, those configured, and a leader that is named on the way; silent ones last, and more
        patiently."""
        asked: dict[str, None] = {}
        while left := [a for a in (self._leader, *self._addresses) if a and a not in asked]:
            address = min(left, key=self._silent.__contains__)
            asked[address] = None
            yield address
        if len(asked) > 1:
            yield from [address for address in asked if address in self._silent]

    def _stub(self, address: str) -> "ControlServiceAsyncStub":
        return ControlServiceStub(self._channels[address])

    async def _reach(self, address: str) -> str:
        """Connect; returns why it cannot be done, or ""."""
        if self._closed:
            raise RuntimeError("this client is closed: make another one")
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("this client was used in another event loop: make one in each")
        if address not in self._channels:
            self._channels[address] = controller_channel(address, self._files)
        channel = self._channels[address]
        try:
            async with asyncio.timeout(min(self._patience_with(address), self._call_seconds)):
                state = channel.get_state(try_to_connect=True)
                while state not in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            self._silent.add(address)
            return "no answer"
        self._silent.discard(address)
        # A failed channel is not given up here: its call fails at once, and says why.
        return ""

    def _patience_with(self, address: str) -> float:
        others = any(each not in (address, *self._silent) for each in self._addresses)
        return _FIRST_CONNECT_SECONDS if others and address not in self._silent else _CONNECT_SECONDS

    def _why_unavailable(self, address: str, error: grpc.aio.AioRpcError) -> tuple[str, bool]:
        """(why, the controller was reached and does not lead)."""
        details = printable(error.details() or "")
        leader = dict(error.trailing_metadata() or ()).get(LEADER_METADATA, "")
        if leader:
            self._leader = leader.decode() if isinstance(leader, bytes) else leader
        # UNAVAILABLE over a connection that stands was not made here: the controller said so.
        if leader or self._channels[address].get_state() is grpc.ChannelConnectivity.READY:
            return details or "does not lead", True
        return (
            "went away" if address in self._answered and _CLOSED.search(details) else _transport_reason(details)
        ), False


def check_readable(files: TlsFiles, hint: str) -> None:
    """Raises Unreachable, whose text ends with `hint`."""
    for path in (files.authority, files.certificate, files.key):
        if not os.access(path, os.R_OK):
            raise Unreachable(f"{path} cannot be read, and it is needed to prove who you are: {hint}")


def _translated(error: grpc.aio.AioRpcError, address: str) -> FleetError:
    code = error.code()
    message = printable(error.details() or "") or f"the controller answered {code.name}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = f"the controller at {address} did not answer in time"
    hint = _HINTS.get(code, "")
    if code is grpc.StatusCode.NOT_FOUND:
        hint = _not_found_hint(message)
    return _KINDS.get(code, FleetError)(message, hint)


def _not_found_hint(message: str) -> str:
    for word, command in (("host", "fleetctl host ls"), ("worker", "fleetctl ps"), ("slot", "fleetctl ps")):
        if re.search(rf"\b{word}\b", message):
            return f"`{command}` shows what there is"
    return "`fleetctl ls` shows the apps"


def _transport_reason(details: str) -> str:
    """gRPC's sentence in a person's words."""
    for pattern, reason in (
        ("Connection refused", "connection refused"),
        ("CERTIFICATE_VERIFY_FAILED", "its certificate is another fleet's: see --context"),
        ("lookup|resol", "no such host"),
        ("Handshake|handshake", "does not speak this fleet's TLS"),
        (_CLOSED.pattern, "closed the connection: it may not accept your certificate"),
    ):
        if re.search(pattern, details):
            return reason
    return details.rpartition("last error: ")[2] or "connection lost"
