"""Responses as the load client reads them, however the network cuts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load.http import GarbledResponseError, Response, ResponseReader, encode_request

_SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"


def _read(pieces: list[bytes]) -> list[Response | None]:
    reader = ResponseReader()
    return [reader.feed(piece) for piece in pieces]


@pytest.mark.parametrize("response", [_SIZED, _CHUNKED])
@given(data=st.data())
def test_a_response_is_whole_only_with_its_last_byte_wherever_it_was_cut(response: bytes, data: st.DataObject) -> None:
    # The chunked one ends with its last empty line, one CRLF of which may be missing when the reader already knows the body.
    cut = data.draw(st.integers(1, len(response) - 3))

    answers = _read([response[:cut], response[cut:]])

    assert answers == [None, Response(200, b"hello", keeps_alive=True)]


def test_a_response_without_a_length_ends_with_its_connection() -> None:
    answers = _read([b"HTTP/1.1 503 Service Unavailable\r\n\r\nno ", b"server", b""])

    assert answers == [None, None, Response(503, b"no server", keeps_alive=False)]


def test_a_sized_response_cut_off_by_the_end_of_the_connection_is_never_whole() -> None:
    assert _read([_SIZED[:-1], b""]) == [None, None]


def test_a_server_that_says_close_is_taken_at_its_word() -> None:
    (answer,) = _read([b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"])

    assert answer == Response(200, b"", keeps_alive=False)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_not_a_response_is_refused(answer: bytes) -> None:
    with pytest.raises(GarbledResponseError):
        ResponseReader().feed(answer)


def test_a_request_with_a_body_says_how_long_it_is() -> None:
    request = encode_request("POST", "/echo", "127.0.0.1:80", "ü".encode(), close=True)

    head, _, body = request.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /echo HTTP/1.1"
    assert b"Content-Length: 2" in head
    assert b"Connection: close" in head
    assert body == "ü".encode()
