"""What an access log says of a request, or of a TCP connection, and the two ways to write it. Pure.

Texts that clients chose are `msgspec.Raw`: JSON strings, with their quotes, already escaped.
"""

import datetime
from functools import lru_cache

import msgspec
from msgspec import UNSET, Raw, UnsetType

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_GAVE_UP = 499
"""What nginx writes for a client that was gone before there was an answer; HAProxy has no number for it."""
_NULL = Raw(b"null")
_encoder = msgspec.json.Encoder()


class Line(msgspec.Struct, omit_defaults=False):
    """The names are the keys of a JSON line: docs/routes.md. `*_seconds` of what did not happen are None."""

    time: str
    """When its first byte came (RFC 3339, UTC)."""
    app: str
    worker: str | None
    """"my-app/prod1/3"; None: a balancer answered it, or the worker is not known any more."""
    generation: int | None
    server: str | None
    """The worker's "address:port"."""
    client: str
    client_port: int
    bytes_in: int
    bytes_out: int
    seconds: float | None
    queue_seconds: float | None
    connect_seconds: float | None
    retries: int
    tls: str | None
    termination: str
    """HAProxy's Configuration Manual §8.5."""
    method: str | UnsetType = UNSET
    host: Raw | UnsetType = UNSET
    path: Raw | UnsetType = UNSET
    protocol: str | UnsetType | None = UNSET
    status: int | UnsetType | None = UNSET
    first_byte_seconds: float | UnsetType | None = UNSET
    cached: bool | UnsetType = UNSET
    request_id: Raw | UnsetType = UNSET
    referer: Raw | UnsetType = UNSET
    user_agent: Raw | UnsetType = UNSET
    forwarded_for: Raw | UnsetType = UNSET
    """From `method` on: of HTTP alone."""


def as_json(line: Line) -> bytes:
    return _encoder.encode(line) + b"\n"


def as_combined(line: Line) -> bytes:
    """As Apache's and nginx' "combined"; quotes are escaped as in JSON."""
    path = _inside(line.path)
    request = f"{line.method or '-'} {path} {line.protocol or '-'}" if path != "-" else "-"
    return (
        f'{line.client} - - [{_common_time(line.time)}] "{request}" {line.status or _GAVE_UP} {line.bytes_out} '
        f'"{_inside(line.referer)}" "{_inside(line.user_agent)}"\n'
    ).encode()


def text(escaped: str) -> Raw:
    """What stands between the quotes of a JSON string; "-": there is nothing."""
    # HAProxy escapes slashes too, which only makes paths hard to read. No slash that it wrote stands alone.
    return Raw('"' + escaped.replace("\\/", "/") + '"') if escaped != "-" else _NULL


def rfc3339(milliseconds: int) -> str:
    """Since the epoch, by the balancer's clock."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03}Z"


def _inside(raw: Raw | UnsetType) -> str:
    return "-" if raw is UNSET or raw == _NULL else bytes(raw)[1:-1].decode(errors="replace")


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _common_time(time: str) -> str:
    return f"{time[8:10]}/{_MONTHS[int(time[5:7]) - 1]}/{time[:4]}:{time[11:19]} +0000"
