"""The same identities (`fleet_core.tls`) for gRPC's own channels and servers."""

import grpc

from fleet_core.tls import CONTROLLER_DNS_NAME, Identity, TlsFiles, identity_of_uri


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that refuse every client without a certificate of our authority. Raises OSError."""
    authority, certificate, key = files.read()
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=authority, require_client_auth=True)


def controller_channel(address: str, files: TlsFiles) -> grpc.aio.Channel:
    """A channel to the controller at "host:port" that sends keepalive pings, so that a dead peer is noticed within 6 s.

    The caller closes it. Raises OSError when a certificate cannot be read.
    """
    authority, certificate, key = files.read()
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    return grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS)


CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.ssl_target_name_override", CONTROLLER_DNS_NAME),
    # A controller that is frozen, or whose machine lost its power, is noticed within six seconds: another leads after four.
    ("grpc.keepalive_time_ms", 3_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # What counts in gRPC 1.85, where the keepalive's own timeout is without effect: an unanswered ping would wait 60 s.
    ("grpc.http2.ping_timeout_ms", 3_000),
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


def server_options(ping_seconds: float = 3.0, answer_seconds: float = 2.5) -> list[tuple[str, int | str]]:
    """Of a server that asks each client which is silent for `ping_seconds` whether it is there, and closes the connection of one
    that does not answer within `answer_seconds`: after the sum of both at the latest (ADR 23)."""
    return [
        ("grpc.keepalive_time_ms", round(ping_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", round(answer_seconds * 1000)),
        # What counts in gRPC 1.85, as in CHANNEL_OPTIONS.
        ("grpc.http2.ping_timeout_ms", round(answer_seconds * 1000)),
        # Else the third ping of a silent client would be the last.
        ("grpc.http2.max_pings_without_data", 0),
        # Of the clients' own pings.
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
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
