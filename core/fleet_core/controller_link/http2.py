"""A client's half of HTTP/2 (RFC 9113), as far as gRPC's calls need it: bytes in, events and bytes out. Pure.

It opens streams with a POST each, sends on them within the peer's windows, and gives credit for what came in: for the connection
at once, so that no stream can block another, and for a stream when its reader says so (`credit`), so that what waits is bounded.
Nothing is pushed, prioritised or compressed; what a peer may leave out is not asked for.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from hpack import Decoder, HPACKError

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME = struct.Struct(">HBBBI")
"""Length in two parts, type, flags, stream (section 4.1)."""
_SETTING = struct.Struct(">HI")
_NUMBER = struct.Struct(">I")
_TWO_NUMBERS = struct.Struct(">II")
_DEFAULT_WINDOW = 65_535
_LARGEST_WINDOW = 2**31 - 1
_STREAM_WINDOW = 1024 * 1024
"""So much may wait for the reader of a stream."""
_FRAME_BYTES = 16_384
"""The longest frame either side sends without another word (section 4.2)."""
_TAKEN_FRAME_BYTES = 256 * 1024
"""The longest one we take: deployed code comes in few of them."""
_HEADER_BYTES = 64 * 1024
_PING = b"fleetctl"

CANCEL = 8
REFUSED_STREAM = 7
"""Of section 7."""


class _Kind(IntEnum):
    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class _Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


_ACK = _END_STREAM = 1
_END_HEADERS = 4
_PADDED = 8
_PRIORITY = 32


class Http2Error(Exception):
    """The peer does what this protocol does not allow; the connection must be closed."""


class Head(NamedTuple):
    """Headers of a stream: the first of them, or the trailers."""

    stream: int
    headers: dict[str, str]
    ended: bool


class Content(NamedTuple):
    stream: int
    data: bytes
    ended: bool


class Reset(NamedTuple):
    """The peer gave the stream up."""

    stream: int
    code: int


class Away(NamedTuple):
    """The peer takes no streams beyond `last`, and will end the connection."""

    last: int
    code: int
    reason: str


class Ping(NamedTuple):
    """The peer asks whether we are there; the answer lies in the output."""


class Pong(NamedTuple):
    """The answer to `Http2.ping`."""


Event = Head | Content | Reset | Away | Ping | Pong


@dataclass(slots=True)
class _Stream:
    window: int
    """What the peer takes on it now; below 0 after it made its windows smaller."""
    waiting: bytearray = field(default_factory=bytearray)
    end: bool = False
    """With the last of `waiting` this side has said all."""


class Http2:
    """One connection. After Http2Error it is of no more use."""

    def __init__(self) -> None:
        self._output = bytearray(_PREFACE)
        self._input = bytearray()
        self._decoder = Decoder(_HEADER_BYTES)
        self._streams: dict[int, _Stream] = {}
        self._next_stream = 1
        self._window = _DEFAULT_WINDOW
        self._stream_window = _DEFAULT_WINDOW
        self._frame_bytes = _FRAME_BYTES
        self._block: tuple[int, bool, bytearray] | None = None
        """An unfinished block of headers: its stream, whether that ends with it, and what is there of it."""
        self._handlers: dict[int, Callable[[int, int, bytes], Event | None]] = {
            _Kind.DATA: self._on_data,
            _Kind.HEADERS: self._on_headers,
            _Kind.RST_STREAM: self._on_reset,
            _Kind.SETTINGS: self._on_settings,
            _Kind.PUSH_PROMISE: self._on_push,
            _Kind.PING: self._on_ping,
            _Kind.GOAWAY: self._on_away,
            _Kind.WINDOW_UPDATE: self._on_window,
            _Kind.CONTINUATION: self._on_continuation,
        }
        wanted = (
            (_Setting.ENABLE_PUSH, 0),
            (_Setting.INITIAL_WINDOW_SIZE, _STREAM_WINDOW),
            (_Setting.MAX_FRAME_SIZE, _TAKEN_FRAME_BYTES),
        )
        self._frame(_Kind.SETTINGS, 0, 0, b"".join(_SETTING.pack(*setting) for setting in wanted))
        self._frame(_Kind.WINDOW_UPDATE, 0, 0, _NUMBER.pack(_LARGEST_WINDOW - _DEFAULT_WINDOW))

    def take_output(self) -> bytes:
        """What is to be sent now, in its order."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def open(self, headers: list[tuple[bytes, bytes]]) -> int:
        """Begin a stream; its number. Each name and value is shorter than 127 bytes."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._streams[stream] = _Stream(self._stream_window)
        # Literals that are not put into any table (RFC 7541, section 6.2.2).
        block = b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in headers)
        self._frame(_Kind.HEADERS, _END_HEADERS, stream, block)
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """As soon as the peer takes it, in this order. Nothing happens on a stream that is over."""
        state = self._streams.get(stream)
        if state is None:
            return
        if not state.waiting and not end and len(data) <= min(self._window, state.window, self._frame_bytes):
            self._window -= len(data)
            state.window -= len(data)
            self._frame(_Kind.DATA, 0, stream, data)
            return
        state.waiting += data
        state.end = state.end or end
        self._flush(stream, state)

    def waiting(self, stream: int) -> int:
        """Bytes the peer does not take yet."""
        state = self._streams.get(stream)
        return len(state.waiting) if state is not None else 0

    def credit(self, stream: int, count: int) -> None:
        """So many bytes of the stream are read: the peer may send as many more."""
        if stream in self._streams:
            self._frame(_Kind.WINDOW_UPDATE, 0, stream, _NUMBER.pack(count))

    def reset(self, stream: int) -> None:
        """Give it up. May be repeated."""
        if self._streams.pop(stream, None) is not None:
            self._frame(_Kind.RST_STREAM, 0, stream, _NUMBER.pack(CANCEL))

    def ping(self) -> None:
        self._frame(_Kind.PING, 0, 0, _PING)

    def receive(self, data: bytes) -> list[Event]:
        """Raises Http2Error."""
        self._input += data
        events: list[Event] = []
        while len(self._input) >= _FRAME.size:
            high, low, kind, flags, stream = _FRAME.unpack_from(self._input)
            length = high << 8 | low
            if length > _TAKEN_FRAME_BYTES:
                raise Http2Error(f"a frame of {length} bytes")
            end = _FRAME.size + length
            if len(self._input) < end:
                break
            payload = bytes(self._input[_FRAME.size : end])
            del self._input[:end]
            event = self._on_frame(kind, flags, stream & _LARGEST_WINDOW, payload)
            if event is not None:
                events.append(event)
        return events

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> Event | None:
        if self._block is not None and (kind != _Kind.CONTINUATION or stream != self._block[0]):
            raise Http2Error("headers were not finished")
        handler = self._handlers.get(kind)
        try:
            return handler(flags, stream, payload) if handler is not None else None  # unknown kinds are to be ignored
        except struct.error as error:
            raise Http2Error(f"a frame of kind {kind} is too short") from error

    def _on_data(self, flags: int, stream: int, payload: bytes) -> Event | None:
        if payload:
            self._frame(_Kind.WINDOW_UPDATE, 0, 0, _NUMBER.pack(len(payload)))
        data = _without_padding(flags, payload)
        if stream not in self._streams:
            return None  # of a stream that was given up meanwhile
        if len(payload) > len(data):
            self.credit(stream, len(payload) - len(data))
        ended = bool(flags & _END_STREAM)
        if ended:
            del self._streams[stream]
        return Content(stream, data, ended)

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> Event | None:
        block = _without_padding(flags, payload)
        if flags & _PRIORITY:
            block = block[5:]
        ended = bool(flags & _END_STREAM)
        if flags & _END_HEADERS:
            return self._end_of_headers(stream, ended, block)
        self._block = stream, ended, bytearray(block)
        return None

    def _on_continuation(self, flags: int, _stream: int, payload: bytes) -> Event | None:
        if self._block is None:
            raise Http2Error("a continuation of nothing")
        stream, ended, block = self._block
        block += payload
        if len(block) > _HEADER_BYTES:
            raise Http2Error(f"more than {_HEADER_BYTES} bytes of headers")
        return self._end_of_headers(stream, ended, bytes(block)) if flags & _END_HEADERS else None

    def _end_of_headers(self, stream: int, ended: bool, block: bytes) -> Event | None:  # noqa: FBT001 - a field of `_block`
        self._block = None
        try:
            # Also those of a stream that was given up: they change the decoder's table.
            headers = {_text(name): _text(value) for name, value in self._decoder.decode(block, raw=True)}
        except HPACKError as error:
            raise Http2Error(f"headers cannot be read: {error}") from error
        if stream not in self._streams:
            return None
        if ended:
            del self._streams[stream]
        return Head(stream, headers, ended)

    def _on_reset(self, _flags: int, stream: int, payload: bytes) -> Event | None:
        (code,) = _NUMBER.unpack(payload)
        return Reset(stream, code) if self._streams.pop(stream, None) is not None else None

    def _on_settings(self, flags: int, _stream: int, payload: bytes) -> Event | None:
        if flags & _ACK:
            return None
        for name, value in _SETTING.iter_unpack(payload):
            if name == _Setting.INITIAL_WINDOW_SIZE:
                for state in self._streams.values():
                    state.window += value - self._stream_window
                self._stream_window = value
            elif name == _Setting.MAX_FRAME_SIZE:
                self._frame_bytes = min(value, 1024 * 1024)
        self._frame(_Kind.SETTINGS, _ACK, 0, b"")
        self._flush_all()
        return None

    def _on_push(self, _flags: int, _stream: int, _payload: bytes) -> Event | None:
        raise Http2Error("a push that was not asked for")

    def _on_ping(self, flags: int, _stream: int, payload: bytes) -> Event | None:
        if flags & _ACK:
            return Pong()
        self._frame(_Kind.PING, _ACK, 0, payload)
        return Ping()

    def _on_away(self, _flags: int, _stream: int, payload: bytes) -> Event | None:
        last, code = _TWO_NUMBERS.unpack_from(payload)
        return Away(last & _LARGEST_WINDOW, code, _text(payload[_TWO_NUMBERS.size :]))

    def _on_window(self, _flags: int, stream: int, payload: bytes) -> Event | None:
        (more,) = _NUMBER.unpack(payload)
        if not stream:
            self._window += more
            self._flush_all()
        elif (state := self._streams.get(stream)) is not None:
            state.window += more
            self._flush(stream, state)
        return None

    def _flush_all(self) -> None:
        for stream, state in self._streams.items():
            self._flush(stream, state)

    def _flush(self, stream: int, state: _Stream) -> None:
        while state.waiting or state.end:
            count = min(len(state.waiting), max(0, self._window), max(0, state.window), self._frame_bytes)
            if not count and state.waiting:
                return
            last = state.end and count == len(state.waiting)
            self._frame(_Kind.DATA, _END_STREAM if last else 0, stream, bytes(state.waiting[:count]))
            del state.waiting[:count]
            self._window -= count
            state.window -= count
            if last:
                state.end = False

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        length = len(payload)
        self._output += _FRAME.pack(length >> 8, length & 0xFF, kind, flags, stream)
        self._output += payload


def _without_padding(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Http2Error("more padding than there is room")
    return payload[1 : len(payload) - payload[0]]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
