"""gRPC calls (PROTOCOL-HTTP2 of grpc/grpc's documentation) over one connection to a controller.

Messages are written in the turn in which they are handed over; no thread and no other task has a part in it. A controller asks
every few seconds whether we are there, which also shows that it is; one that is silent for longer is asked by a ping of ours, and
without an answer to that the connection ends.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, Protocol, Self, TypeVar
from urllib.parse import unquote

from google.protobuf.message import DecodeError

from fleet_core.controller_link.http2 import (
    CANCEL,
    REFUSED_STREAM,
    Away,
    Content,
    Event,
    Head,
    Http2,
    Http2Error,
    Ping,
    Pong,
    Reset,
)
from fleet_core.controller_link.wire import Ears, Wire, tls_context
from fleet_core.tls import CONTROLLER_DNS_NAME, TlsFiles

_CONNECT_SECONDS = 5.0
_PING_SECONDS = 3.5
"""After so long a silence the controller is asked: it is longer than from ping to ping of controllers, so idle daemons do not
wake for it."""
_PONG_SECONDS = 2.5
"""Six in all: a frozen controller is left before long after another leads."""
_REARM_SECONDS = 1.0
"""What is heard puts the end of the silence off, but not each of many messages."""
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_MAX_WAITING_BYTES = 256 * 1024
"""A writer waits while the controller does not take so much."""
_PREFIX = struct.Struct(">?I")


class Code(IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass
class CallError(Exception):
    """A call is over, and not because all was said."""

    code: Code
    details: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What came with the end."""

    def __str__(self) -> str:
        return f"{self.code.name.lower().replace('_', ' ')}: {self.details}"


class Message(Protocol):
    """What protobuf's generated classes have."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name

    @classmethod
    def FromString(cls, data: bytes, /) -> Self: ...  # noqa: N802 - protobuf's name


_Request = TypeVar("_Request", bound=Message)
_Reply = TypeVar("_Reply", bound=Message)


class _Stream(Protocol):
    """A call of whatever messages, as its connection sees it."""

    def take(self, data: bytes) -> None: ...

    def end(self, error: CallError | None) -> None: ...

    def on_taken(self) -> None: ...

    @property
    def on_pulse(self) -> Callable[[], None]: ...


def framed(message: Message) -> bytes:
    """As it goes onto a stream, not compressed."""
    data = message.SerializeToString()
    return _PREFIX.pack(False, len(data)) + data


class Call(Generic[_Request, _Reply]):
    """One stream of messages in each direction. Made by a connection, which tells it what happens."""

    def __init__(self, connection: "ControllerConnection", stream: int, reply: type[_Reply]) -> None:
        self._connection = connection
        self._stream = stream
        self._reply = reply
        self._partial = bytearray()
        self._messages: deque[_Reply] = deque()
        self._owed = 0
        self._error: CallError | None = None
        self._over = False
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self.on_pulse: Callable[[], None] = lambda: None
        """Called now and then, also while nothing is said: the connection was found to live."""

    async def read(self) -> _Reply | None:
        """The next message; None when the controller has said all. Raises CallError. For one reader."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._over:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._give_credit()
        return message

    async def write(self, message: _Request) -> None:
        """Messages go out in the order of the calls, each whole, also where the caller is cancelled. Raises CallError."""
        self.send(framed(message))
        while not self.clear and not self._over:
            self._taken.clear()
            await self._taken.wait()

    def send(self, data: bytes, *, end: bool = False) -> None:
        """What `framed` made, in this turn and without waiting for anything. Raises CallError."""
        if self._over:
            raise self._error or CallError(Code.UNAVAILABLE, "the controller ended the call")
        self._connection.send(self._stream, data, end=end)

    @property
    def clear(self) -> bool:
        """No more waits to be taken by the controller than is good."""
        return self._connection.clear(self._stream)

    def cancel(self) -> None:
        """The controller is told, and `read` ends. May be repeated."""
        if not self._over:
            self._connection.drop(self._stream)
            self.end(CallError(Code.CANCELLED, "cancelled"))

    # From the connection

    def take(self, data: bytes) -> None:
        """Raises CallError where it cannot be a message; the call is over then."""
        self._partial += data
        self._owed += len(data)
        while len(self._partial) >= _PREFIX.size:
            compressed, length = _PREFIX.unpack_from(self._partial)
            if compressed or length > _MAX_MESSAGE_BYTES:
                raise CallError(Code.INTERNAL, "a message is compressed, or too long")
            end = _PREFIX.size + length
            if len(self._partial) < end:
                break
            try:
                self._messages.append(self._reply.FromString(bytes(self._partial[_PREFIX.size : end])))
            except DecodeError as error:
                raise CallError(Code.INTERNAL, f"a message cannot be read: {error}") from error
            del self._partial[:end]
        self._arrived.set()
        self._give_credit()

    def end(self, error: CallError | None) -> None:
        """None: all was said."""
        if not self._over:
            self._error, self._over = error, True
            self._arrived.set()
            self._taken.set()

    def on_taken(self) -> None:
        self._taken.set()

    def _give_credit(self) -> None:
        """Unless there is something to read: a message may be longer than what may wait."""
        if self._owed and not self._messages and not self._over:
            self._connection.credit(self._stream, self._owed)
            self._owed = 0


class ControllerConnection:
    """One connection, used by one event loop. Made by `connect`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._http2 = Http2()
        self._calls: dict[int, _Stream] = {}
        self._ended = ""
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._silence = self._loop.call_later(_PING_SECONDS, self._ask)
        self._asked = False
        """A ping was sent and nothing heard since."""

    @classmethod
    async def connect(cls, address: str, files: TlsFiles) -> Self:
        """To the controller at "host:port". Raises OSError, also where a certificate is refused or cannot be read."""
        wire = Wire(tls_context(files))
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await wire.connect(address)
        except TimeoutError as error:
            wire.close()
            raise TimeoutError(f"no connection within {_CONNECT_SECONDS:g} s") from error
        except BaseException:
            wire.close()
            raise
        connection = cls(wire)
        wire.listen(Ears(connection._receive, connection._end, connection._tell_taken))
        connection._transmit()
        return connection

    def close(self) -> None:
        """Calls under way end. May be repeated."""
        self._wire.close()
        self._end("closed")

    def call(
        self, method: str, request: type[_Request], reply: type[_Reply], metadata: Sequence[tuple[str, str]] = ()
    ) -> Call[_Request, _Reply]:
        """Begin a call of "/package.Service/Method"; the names of metadata are in lower case. Raises CallError."""
        del request  # only for the type
        if self._ended:
            raise CallError(Code.UNAVAILABLE, self._ended)
        stream = self._http2.open(
            [
                (b":method", b"POST"),
                (b":scheme", b"https"),
                (b":path", method.encode()),
                (b":authority", CONTROLLER_DNS_NAME.encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                *((name.encode(), value.encode()) for name, value in metadata),
            ]
        )
        call = Call[_Request, _Reply](self, stream, reply)
        self._calls[stream] = call
        self._transmit()
        return call

    # From calls

    def send(self, stream: int, data: bytes, *, end: bool) -> None:
        self._http2.send(stream, data, end=end)
        self._transmit()

    def clear(self, stream: int) -> bool:
        return self._wire.clear and self._http2.waiting(stream) < _MAX_WAITING_BYTES

    def credit(self, stream: int, count: int) -> None:
        self._http2.credit(stream, count)
        self._transmit()

    def drop(self, stream: int) -> None:
        self._calls.pop(stream, None)
        self._http2.reset(stream)
        self._transmit()

    # From the wire

    def _receive(self, data: bytes) -> None:
        self._heard = self._loop.time()
        if self._asked or self._silence.when() - self._heard < _PING_SECONDS - _REARM_SECONDS:
            self._listen_until(self._heard + _PING_SECONDS)
        self._asked = False
        try:
            events = self._http2.receive(data)
            for event in events:
                self._take(event)
        except Http2Error as error:
            self._wire.close()
            self._end(f"the controller's answer is not understood: {error}")
            return
        self._tell_taken()
        if any(isinstance(event, Content) for event in events):
            # After whoever reads had its turn: credit and acknowledgements hurry nobody, a list does.
            self._loop.call_soon(self._transmit)
        else:
            self._transmit()

    def _ask(self) -> None:
        """The silence was long: ask, or end where the answer did not come."""
        now = self._loop.time()
        quiet = now - self._heard
        if self._asked:
            self._wire.close()
            self._end(f"nothing was heard for {quiet:.0f} s")
        elif quiet < _PING_SECONDS:
            self._listen_until(self._heard + _PING_SECONDS)
        else:
            self._asked = True
            self._listen_until(now + _PONG_SECONDS)
            self._http2.ping()
            self._transmit()

    def _listen_until(self, moment: float) -> None:
        self._silence.cancel()
        self._silence = self._loop.call_at(moment, self._ask)

    def _take(self, event: Event) -> None:
        match event:
            case Content(stream, data, ended):
                if (call := self._calls.get(stream)) is not None:
                    self._give(call, stream, data)
                    if ended:
                        self._finish(stream, CallError(Code.UNKNOWN, "the call ended without a status"))
            case Head(stream, headers, ended):
                if ended:
                    self._finish(stream, _status(headers))
                elif headers.get(":status", "200") != "200":
                    self.drop_with(stream, CallError(Code.UNAVAILABLE, f"HTTP status {headers[':status']}"))
            case Reset(stream, code):
                self._finish(stream, _reset(code))
            case Away(last, _code, reason):
                for stream in [stream for stream in self._calls if stream > last]:
                    self._finish(stream, CallError(Code.UNAVAILABLE, reason or "the controller takes no calls"))
                self._ended = self._ended or reason or "the controller is about to end"
            case Ping() | Pong():
                for call in list(self._calls.values()):
                    call.on_pulse()

    def _give(self, call: _Stream, stream: int, data: bytes) -> None:
        try:
            call.take(data)
        except CallError as error:
            self.drop_with(stream, error)

    def drop_with(self, stream: int, error: CallError) -> None:
        """The call is over for this reason, and the controller is told that it is."""
        self._finish(stream, error)
        self.drop(stream)

    def _finish(self, stream: int, error: CallError | None) -> None:
        call = self._calls.pop(stream, None)
        if call is not None:
            call.end(error)

    def _end(self, reason: str) -> None:
        self._ended = reason
        self._silence.cancel()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.end(CallError(Code.UNAVAILABLE, reason))

    def _transmit(self) -> None:
        output = self._http2.take_output()
        if output:
            self._wire.write(output)

    def _tell_taken(self) -> None:
        for call in self._calls.values():
            call.on_taken()


def _status(headers: Mapping[str, str]) -> CallError | None:
    """What trailers say; None: all is well."""
    number = headers.get("grpc-status", "")
    code = Code(int(number)) if number.isdecimal() and int(number) in Code.__members__.values() else Code.UNKNOWN
    if code is Code.OK:
        return None
    return CallError(code, unquote(headers.get("grpc-message", "")), headers)


def _reset(code: int) -> CallError:
    if code == CANCEL:
        return CallError(Code.CANCELLED, "the controller cancelled the call")
    if code == REFUSED_STREAM:
        return CallError(Code.UNAVAILABLE, "the controller takes no calls")
    return CallError(Code.UNAVAILABLE, f"the controller gave the call up (HTTP/2 error {code})")
