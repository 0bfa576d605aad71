"""The configuration file of one HAProxy process, rendered from values: pure."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fleet_balancer.certificates.store import Selection
from fleet_balancer.haproxy.backends import pool_backends
from fleet_balancer.haproxy.frontends import frontends, map_lines
from fleet_balancer.haproxy.layout import BACKLOG, USUAL_TIMEOUTS, Layout, PoolLayout, milliseconds, quoted

CERTIFICATES = "certificates"
"""The folder, beside the configuration, of the certificates that HAProxy reads when it starts."""
# A host that lost power answers nothing, not even TCP: a request that waits there ends after three unanswered probes, and data
# that nobody acknowledges after 3 s (tcp(7), TCP_USER_TIMEOUT). A worker that takes its time has a kernel that answers. The check
# hides such a host within inter + fastinter + 2 x timeout check < 3 s.
_DEFAULTS = f"""\
defaults
    mode http
    balance leastconn
    backlog {BACKLOG}
    timeout connect {milliseconds(USUAL_TIMEOUTS.connect_seconds)}
    timeout client {milliseconds(USUAL_TIMEOUTS.client_seconds)}
    timeout server {milliseconds(USUAL_TIMEOUTS.server_seconds)}
    timeout client-fin 30s
    timeout server-fin 30s
    timeout queue {milliseconds(USUAL_TIMEOUTS.queue_seconds)}
    timeout tunnel {milliseconds(USUAL_TIMEOUTS.tunnel_seconds)}
    timeout check 800ms
    option srvtcpka
    srvtcpka-idle 1s
    srvtcpka-intvl 1s
    srvtcpka-cnt 3
    default-server tcp-ut 3s
    timeout http-request 10s
    timeout http-keep-alive 60s
    retries 6
    option redispatch 1
    option http-no-delay
    option idle-close-on-response
    http-error status 503 content-type "text/plain" string "No worker is ready for this request.\\n" hdr Retry-After 1
"""


def render(layout: Layout) -> str:
    lines = [
        "global",
        "    default-path config",
        f"    maxconn {layout.max_connections}",
        f"    nbthread {layout.threads}",
        f'    stats socket "{quoted(layout.socket)}" mode 600 level admin',
        "    stats timeout 1d",
        "",
        _DEFAULTS,
        *frontends(layout),
    ]
    for pool in layout.pools:
        lines += pool_backends(pool)
    return "\n".join(lines) + "\n"


def render_map(pools: Iterable[PoolLayout]) -> str:
    """The file that the configuration names as `Layout.map`."""
    return "".join(f"{line}\n" for line in map_lines(pools))


def render_certificates(selection: Selection) -> str:
    """The file that the configuration names as `Layout.certificates`; the certificates' own files lie in CERTIFICATES."""
    return "".join(f"{CERTIFICATES}/{one.digest}.pem\n" for one in selection.certificates)


def skeleton(pools: Iterable[PoolLayout], threads: int, certificates: Selection) -> str:
    """A digest of all that takes another process to change: of the configuration for `pools` without servers and descriptors."""
    bare = tuple(replace(pool, slots=()) for pool in pools)
    layout = Layout(
        socket=Path(),
        map="",
        certificates="",
        threads=threads,
        max_connections=0,
        listeners={address: 0 for pool in bare for address in pool.route.addresses},
        pools=bare,
    )
    text = render(layout) + render_map(bare)
    return hashlib.sha256((text + render_certificates(certificates)).encode()).hexdigest()
