"""The agent's half of HTTP/2, frame by frame."""

import struct

import pytest
from hpack import Encoder

from fleet_core.controller_link.http2 import Away, Content, Event, Head, Http2, Http2Error, Ping, Pong, Reset

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM = ACK = 1
END_HEADERS, PADDED, PRIORITY = 4, 8, 32


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    while data:
        length = int.from_bytes(data[:3])
        found.append((data[3], data[4], int.from_bytes(data[5:9]), data[9 : 9 + length]))
        data = data[9 + length :]
    return found


def setting(name: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, struct.pack(">HI", name, value))


def credit(stream: int, count: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", count))


class Peer:
    """A connection with one open stream; what it says at the start is out."""

    def __init__(self) -> None:
        self.http2 = Http2()
        self.encoder = Encoder()
        self.stream = self.http2.open([(b":method", b"POST")])
        self.sent()

    def sent(self) -> list[tuple[int, int, int, bytes]]:
        return frames(self.http2.take_output().removeprefix(_PREFACE))

    def says(self, *said: bytes) -> list[Event]:
        return self.http2.receive(b"".join(said))

    def headers(self, *fields: tuple[str, str]) -> bytes:
        return self.encoder.encode(fields)


def test_a_connection_begins_with_the_preface_and_its_settings() -> None:
    http2 = Http2()
    begin = http2.take_output()
    assert begin.startswith(_PREFACE)
    settings, window = frames(begin.removeprefix(_PREFACE))
    assert settings == (SETTINGS, 0, 0, struct.pack(">HIHIHI", 2, 0, 4, 1024 * 1024, 5, 256 * 1024))
    assert window == (WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1 - 65_535))
    assert http2.take_output() == b""


def test_streams_have_odd_numbers_and_headers_a_server_can_read() -> None:
    http2 = Http2()
    http2.take_output()
    assert (http2.open([(b":path", b"/a")]), http2.open([(b":path", b"/b"), (b"te", b"trailers")])) == (1, 3)
    first, second = frames(http2.take_output())
    assert first == (HEADERS, END_HEADERS, 1, b"\0\5:path\2/a")
    assert second == (HEADERS, END_HEADERS, 3, b"\0\5:path\2/b\0\2te\x08trailers")


def test_what_is_sent_goes_out_at_once_within_the_windows() -> None:
    peer = Peer()
    peer.http2.send(peer.stream, b"hello")
    peer.http2.send(peer.stream, b"bye", end=True)
    assert peer.sent() == [(DATA, 0, 1, b"hello"), (DATA, END_STREAM, 1, b"bye")]


def test_long_data_is_cut_into_frames_and_waits_for_both_windows() -> None:
    peer = Peer()
    data = bytes(range(256)) * 400  # 102,400 bytes
    peer.http2.send(peer.stream, data)
    out = peer.sent()
    assert [len(payload) for *_, payload in out] == [16_384, 16_384, 16_384, 16_383]
    assert peer.http2.waiting(peer.stream) == 102_400 - 65_535
    peer.says(credit(peer.stream, 100_000))
    assert peer.sent() == []
    peer.http2.send(peer.stream, b"last", end=True)
    peer.says(credit(0, 20_000))
    out += peer.sent()
    peer.says(credit(0, 100_000))
    out += peer.sent()
    assert b"".join(payload for *_, payload in out) == data + b"last"
    assert [flags for _, flags, *_ in out] == [0] * (len(out) - 1) + [END_STREAM]


def test_a_window_made_smaller_counts_for_what_is_under_way() -> None:
    peer = Peer()
    peer.http2.send(peer.stream, bytes(1000))
    peer.says(setting(4, 500))
    peer.sent()
    peer.http2.send(peer.stream, b"x")
    assert peer.sent() == []
    peer.says(credit(peer.stream, 500))
    assert peer.sent() == []
    peer.says(credit(peer.stream, 1))
    assert peer.sent() == [(DATA, 0, 1, b"x")]


def test_settings_and_pings_are_answered() -> None:
    peer = Peer()
    assert peer.says(setting(5, 20_000), frame(PING, 0, 0, b"12345678")) == [Ping()]
    assert peer.sent() == [(SETTINGS, ACK, 0, b""), (PING, ACK, 0, b"12345678")]
    assert peer.says(frame(SETTINGS, ACK, 0)) == []
    peer.http2.send(peer.stream, bytes(20_000))
    assert [len(payload) for *_, payload in peer.sent()] == [20_000]
    peer.http2.ping()
    [(kind, flags, stream, payload)] = peer.sent()
    assert (kind, flags, stream) == (PING, 0, 0)
    assert peer.says(frame(PING, ACK, 0, payload)) == [Pong()]


def test_an_answer_comes_in_whatever_pieces() -> None:
    peer = Peer()
    block = peer.headers((":status", "200"), ("content-type", "application/grpc"))
    trailers = peer.headers(("grpc-status", "0"), ("grpc-message", "wéll"))
    said = b"".join(
        [
            frame(HEADERS, 0, 1, block[:3]),
            frame(CONTINUATION, END_HEADERS, 1, block[3:]),
            frame(DATA, 0, 1, b"one"),
            frame(DATA, PADDED, 1, b"\3two\0\0\0"),
            frame(HEADERS, END_HEADERS | END_STREAM | PRIORITY, 1, bytes(5) + trailers),
        ]
    )
    events = [event for at in range(len(said)) for event in peer.says(said[at : at + 1])]
    assert events == [
        Head(1, {":status": "200", "content-type": "application/grpc"}, ended=False),
        Content(1, b"one", ended=False),
        Content(1, b"two", ended=False),
        Head(1, {"grpc-status": "0", "grpc-message": "wéll"}, ended=True),
    ]


def test_credit_is_given_for_the_connection_at_once_and_for_a_stream_when_it_is_read() -> None:
    peer = Peer()
    peer.says(frame(DATA, 0, 1, bytes(100)))
    assert peer.sent() == [(WINDOW_UPDATE, 0, 0, struct.pack(">I", 100))]
    peer.http2.credit(1, 100)
    assert peer.sent() == [(WINDOW_UPDATE, 0, 1, struct.pack(">I", 100))]


def test_a_stream_that_is_over_is_heard_of_no_more() -> None:
    peer = Peer()
    peer.http2.reset(1)
    peer.http2.reset(1)
    assert peer.sent() == [(RST_STREAM, 0, 1, struct.pack(">I", 8))]
    late = frame(HEADERS, END_HEADERS, 1, peer.headers(("late", "yes")))
    assert peer.says(late, frame(DATA, 0, 1, b"late"), frame(RST_STREAM, 0, 1, bytes(4))) == []
    peer.http2.send(1, b"nothing")
    peer.http2.credit(1, 1)
    assert [kind for kind, *_ in peer.sent()] == [WINDOW_UPDATE]  # the connection's, for what came late


def test_a_later_stream_is_understood_after_headers_of_one_that_is_over() -> None:
    peer = Peer()
    peer.http2.reset(1)
    peer.says(frame(HEADERS, END_HEADERS, 1, peer.headers(("x-known", "to the table"))))
    second = peer.http2.open([(b":path", b"/")])
    said = frame(HEADERS, END_HEADERS, second, peer.headers(("x-known", "to the table")))
    assert peer.says(said) == [Head(second, {"x-known": "to the table"}, ended=False)]


def test_a_peer_gives_up_a_stream_and_takes_its_leave() -> None:
    peer = Peer()
    assert peer.says(frame(RST_STREAM, 0, 1, struct.pack(">I", 7))) == [Reset(1, 7)]
    assert peer.says(frame(GOAWAY, 0, 0, struct.pack(">II", 1, 11) + b"too many pings")) == [
        Away(1, 11, "too many pings")
    ]


def test_kinds_of_frames_that_are_not_known_are_ignored() -> None:
    assert Peer().says(frame(77, 255, 1, b"whatever"), frame(2, 0, 1, bytes(5))) == []


@pytest.mark.parametrize(
    "said",
    [
        struct.pack(">I", 256 * 1024 + 1)[1:] + bytes(6),
        frame(HEADERS, 0, 1, b"") + frame(DATA, 0, 1, b""),
        frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, END_HEADERS, 3, b""),
        frame(CONTINUATION, END_HEADERS, 1, b""),
        frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff"),
        frame(DATA, PADDED, 1, b"\x05ab"),
        frame(DATA, PADDED, 1, b""),
        frame(WINDOW_UPDATE, 0, 0, b"ab"),
        frame(GOAWAY, 0, 0, b"ab"),
        frame(SETTINGS, 0, 0, b"abc"),
        frame(PUSH_PROMISE, END_HEADERS, 1, bytes(8)),
        frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, bytes(16_000)) * 5,
    ],
    ids=[
        "too long",
        "unfinished headers",
        "headers of another",
        "a continuation of nothing",
        "no headers at all",
        "padding beyond the end",
        "padding of nothing",
        "a short window",
        "a short leave",
        "a short setting",
        "a push",
        "endless headers",
    ],
)
def test_nonsense_is_an_error(said: bytes) -> None:
    with pytest.raises(Http2Error):
        Peer().says(said)
