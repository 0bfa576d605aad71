"""The access log in HAProxy's configuration, and what HAProxy writes by it, read. Pure.

HAProxy writes a raw line to a pipe at the end of each request, whatever the app's lines shall be: fields between tabs, first
those by which it is sorted and completed, last the texts that a client chose. Those are cut to a length, and escaped as in JSON,
so that no tab or end of line is in them. A raw line is never longer than PIPE_BUF, so HAProxy's write of it is whole or fails at
once, and no client ever waits for it.
"""

from collections.abc import Iterable, Sequence

from msgspec import UNSET

from fleet_balancer.access_log.lines import Line, rfc3339, text
from fleet_balancer.haproxy.layout import PoolLayout
from fleet_core.route import AccessLogFormat, Forwarded, RoutePolicy

_LONGEST = 4000
"""Bytes; PIPE_BUF is 4096 (pipe(7))."""
_TAB = "\t"
_TEXTS = ("version", "host", "path", "id", "referer", "agent", "forwarded_for")
"""Variables that `noted` sets in the backends."""
_HTTP = (
    "%si",
    "%sp",
    "%Ts%ms",
    "%Th",
    "%Ti",
    "%ci",
    "%cp",
    "%HM",
    "%ST",
    "%B",
    "%U",
    "%TR",
    "%Tw",
    "%Tc",
    "%Tr",
    "%Ta",
)
_TCP = ("%si", "%sp", "%Ts%ms", "%Th", "0", "%ci", "%cp", "-", "-", "%B", "%U", "-1", "%Tw", "%Tc", "-1", "%Tt")
_FIELDS = 1 + len(_HTTP) + 4 + len(_TEXTS)


def logged(policy: RoutePolicy) -> bool:
    return policy.access_log.format is not AccessLogFormat.OFF


def log_lines(pools: Sequence[PoolLayout], descriptor: int, app: str, *, tcp: bool = False) -> Iterable[str]:
    """For the frontend of `pools`; `app`: the name of the one that the request is for, or a format that finds it."""
    if not any(logged(pool.route.policy) for pool in pools):
        return
    yield f"    log fd@{descriptor} len {_LONGEST} format raw local0"
    if tcp:
        fields = (app, *_TCP, "%ts", "%rc", "%sslv", "%s", *("-" for _ in _TEXTS))
    else:
        # A connection on which nothing was asked is none of an app's requests.
        yield "    option dontlognull"
        fields = (app, *_HTTP, "%tsc", "%rc", "%sslv", "%s", *(f"%[var({_variable(name)})]" for name in _TEXTS))
    yield f'    log-format "{_TAB.join(fields)}"'


def noted(policy: RoutePolicy) -> Iterable[str]:
    """For the backends: what is no longer known when the line is written. Before the request is changed."""
    if not logged(policy):
        return
    query = policy.access_log.query
    without = "" if query else "field(1,?),"
    yield f"    http-request set-var({_variable('version')}) req.ver"
    fetched = {
        "host": "req.hdr(host),bytes(0,255)",
        "path": f"{'pathq' if query else 'path'},bytes(0,1000)",
        "id": "req.fhdr(x-request-id),bytes(0,128)",
        "referer": f"req.fhdr(referer),{without}bytes(0,500)",
        "agent": "req.fhdr(user-agent),bytes(0,300)",
    }
    if policy.forwarded is Forwarded.APPEND:
        fetched["forwarded_for"] = "req.fhdr(x-forwarded-for),bytes(0,200)"
    for name, fetch in fetched.items():
        yield f"    http-request set-var({_variable(name)}) {fetch},json(utf8s)"


def _variable(name: str) -> str:
    return f"txn.log_{name}"


def server_of(fields: Sequence[str]) -> tuple[str, str]:
    """Address and port of the worker, of a line's `fields`; where there is none, "-"."""
    return (fields[1], fields[2]) if len(fields) > 2 else ("-", "-")


def fields_of(raw: bytes) -> list[str]:
    """Of a raw line, the first of which is the app's name."""
    fields = raw.decode(errors="replace").split(_TAB)
    if len(fields) < _FIELDS or len(raw) >= _LONGEST - 1:
        return _completed(fields)
    return fields


def read(fields: Sequence[str], worker: str | None, generation: int | None) -> Line:
    """The line of a raw one. Raises ValueError where it is none."""
    if len(fields) != _FIELDS:
        raise ValueError("it ends too early")
    app, address, port, accepted, handshake, idle, client, client_port, method, status, bytes_out, bytes_in = fields[
        :12
    ]
    asked, queued, connected, answered, total = map(int, fields[12:17])
    termination, retries, tls, server, version, host, path, request_id, referer, agent, forwarded = fields[17:]
    http = method != "-"
    first = -1 if min(asked, queued, connected, answered) < 0 else asked + queued + connected + answered
    return Line(
        time=rfc3339(int(accepted) + max(0, int(handshake)) + max(0, int(idle))),
        app=app,
        worker=worker,
        generation=generation,
        server=None if address == "-" else f"[{address}]:{port}" if ":" in address else f"{address}:{port}",
        client=client,
        client_port=int(client_port),
        bytes_in=int(bytes_in),
        bytes_out=int(bytes_out),
        seconds=_seconds(total),
        queue_seconds=_seconds(queued),
        connect_seconds=_seconds(connected),
        retries=int(retries.lstrip("+")),
        tls=None if tls == "-" else tls,
        termination=termination,
        method=method if http else UNSET,
        host=text(host) if http else UNSET,
        path=text(path) if http else UNSET,
        protocol=(None if version == "-" else f"HTTP/{version}") if http else UNSET,
        status=(int(status) if int(status) > 0 else None) if http else UNSET,
        first_byte_seconds=_seconds(first) if http else UNSET,
        cached=server == "<CACHE>" if http else UNSET,
        request_id=text(request_id) if http else UNSET,
        referer=text(referer) if http else UNSET,
        user_agent=text(agent) if http else UNSET,
        forwarded_for=text(forwarded) if http and forwarded != "-" else UNSET,
    )


def _completed(fields: list[str]) -> list[str]:
    """Of a line that was too long: without the text that may end in the middle of an escape. Of another one: as it is."""
    if len(fields) <= _FIELDS - len(_TEXTS):
        return fields
    kept = fields[: _FIELDS - 1] if len(fields) >= _FIELDS else fields[:-1]
    return [*kept, *("-" for _ in range(_FIELDS - len(kept)))]


def _seconds(milliseconds: int) -> float | None:
    return None if milliseconds < 0 else milliseconds / 1000
