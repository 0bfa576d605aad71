"""Who is who: mutual TLS for every gRPC stream. The certificates come from `fleet_core.authority`.

A certificate names its holder by one URI in its subject alternative name, `fleet://ROLE/NAME`; the server end reads it back
with `peer_identity`. Controllers also carry the DNS name `fleet-controller`, which every client expects, so that a controller's
address may change without a new certificate.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import grpc

CONTROLLER_DNS_NAME = "fleet-controller"


class Role(StrEnum):
    CONTROLLER = "controller"
    AGENT = "agent"
    BALANCER = "balancer"
    OPERATOR = "operator"
    ETCD = "etcd"


@dataclass(frozen=True, slots=True)
class Identity:
    role: Role
    name: str

    @property
    def uri(self) -> str:
        return f"fleet://{self.role}/{self.name}"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files: the authority everyone trusts, one's own certificate and its key."""

    authority: Path
    certificate: Path
    key: Path

    def read(self) -> tuple[bytes, bytes, bytes]:
        """(authority, certificate, key) as PEM; raises OSError."""
        return self.authority.read_bytes(), self.certificate.read_bytes(), self.key.read_bytes()


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that refuse every client without a certificate of our authority. Raises OSError."""
    authority, certificate, key = files.read()
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=authority, require_client_auth=True)


def controller_channel(address: str, files: TlsFiles) -> grpc.aio.Channel:
    """A channel to the controller at "host:port" that sends keepalive pings, so that a dead peer is noticed within 15 s.

    The caller closes it. Raises OSError when a certificate cannot be read.
    """
    authority, certificate, key = files.read()
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    return grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS)


CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.ssl_target_name_override", CONTROLLER_DNS_NAME),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Not a pause: how long one attempt to connect may take, TLS handshake included. 100 ms fails on a slow link.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A controller on this machine is reached directly, whatever proxy the environment names.
    ("grpc.enable_http_proxy", 0),
    # Channels of one process must not share a broken connection's back-off.
    ("grpc.use_local_subchannel_pool", 1),
]

SERVER_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # Its pings after each message that arrives cost both sides more than the small messages of our streams themselves.
    ("grpc.http2.bdp_probe", 0),
    # Two controllers must never listen on one port side by side.
    ("grpc.so_reuseport", 0),
]


def peer_identity(context: grpc.aio.ServicerContext[object, object]) -> Identity | None:
    """Who is at the other end, by its verified certificate; None when the certificate names nobody."""
    names = context.auth_context().get("x509_subject_alternative_name", [])
    found = (identity_of_uri(name.decode(errors="replace")) for name in names)
    return next((identity for identity in found if identity is not None), None)


def identity_of_uri(text: str) -> Identity | None:
    """Whom `fleet://ROLE/NAME` names; None for any other text."""
    if text.startswith("fleet://"):
        role, _, holder = text.removeprefix("fleet://").partition("/")
        if role in Role.__members__.values() and holder:
            return Identity(Role(role), holder)
    return None
