"""HTTP/1.1 as the load client needs it: requests as bytes, responses read from any split of the stream (RFC 9112). Pure."""

from dataclasses import dataclass

_MAX_HEAD_BYTES = 64 * 1024
_MAX_BODY_BYTES = 1024 * 1024


class GarbledResponseError(Exception):
    """What the server sent is not an HTTP/1.1 response."""


def encode_request(method: str, path: str, host: str, body: bytes, *, close: bool) -> bytes:
    """One request; a body is sent as JSON. `close` asks the server to close the connection after its answer."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Connection: {'close' if close else 'keep-alive'}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    keeps_alive: bool
    """The connection may carry another request."""


class ResponseReader:
    """Collects the bytes of one response; `feed` returns it once it is whole.

    Raises GarbledResponseError. Bodies come by Content-Length, chunked, or up to the end of the connection.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body_start = 0
        self._status = 0
        self._headers: dict[str, str] = {}

    def feed(self, data: bytes) -> Response | None:
        """Add received bytes; no bytes mean that the server closed the connection."""
        self._buffer += data
        if not self._body_start and not self._read_head():
            return None
        if self._status in (204, 304):
            return self._whole(b"")
        if self._headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunked_body()
            return None if body is None else self._whole(body)
        if "content-length" in self._headers:
            return self._sized_body()
        return None if data else self._whole(bytes(self._buffer[self._body_start :]), keeps_alive=False)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                raise GarbledResponseError("head of more than 64 KiB")
            return False
        status_line, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        version, _, rest = status_line.partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdigit():
            raise GarbledResponseError(f"status line {status_line[:80]!r}")
        self._status = int(rest[:3])
        for line in lines:
            name, _, value = line.partition(":")
            self._headers[name.strip().lower()] = value.strip()
        if version == "HTTP/1.0":
            self._headers.setdefault("connection", "close")
        self._body_start = end + 4
        return True

    def _sized_body(self) -> Response | None:
        length_text = self._headers["content-length"]
        if not length_text.isdigit() or int(length_text) > _MAX_BODY_BYTES:
            raise GarbledResponseError(f"Content-Length {length_text[:20]!r}")
        received = len(self._buffer) - self._body_start
        if received > int(length_text):
            raise GarbledResponseError("more bytes than Content-Length says")
        if received < int(length_text):
            return None
        return self._whole(bytes(self._buffer[self._body_start :]))

    def _chunked_body(self) -> bytes | None:
        body = bytearray()
        position = self._body_start
        while True:
            line_end = self._buffer.find(b"\r\n", position)
            if line_end < 0:
                return None
            try:
                size = int(self._buffer[position:line_end].split(b";")[0], 16)
            except ValueError as error:
                raise GarbledResponseError("chunk without a size") from error
            position = line_end + 2
            if size == 0:
                return bytes(body) if self._buffer.find(b"\r\n", position) >= 0 else None
            if len(body) + size > _MAX_BODY_BYTES:
                raise GarbledResponseError("body of more than 1 MiB")
            if len(self._buffer) < position + size + 2:
                return None
            body += self._buffer[position : position + size]
            position += size + 2

    def _whole(self, body: bytes, *, keeps_alive: bool = True) -> Response:
        asked_to_close = self._headers.get("connection", "").lower() == "close"
        return Response(self._status, body, keeps_alive and not asked_to_close)
