"""Who is who: a small certificate authority, and mutual TLS for every gRPC stream.

A certificate names its holder by one URI in its subject alternative name, `fleet://ROLE/NAME`; the server end reads it back
with `peer_identity`. Controllers also carry the DNS name `fleet-controller`, which every client expects, so that a controller's
address may change without a new certificate.
"""

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet_core.durable import write_durably

CONTROLLER_DNS_NAME = "fleet-controller"
_AUTHORITY_LIFETIME = datetime.timedelta(days=3650)
_LIFETIME = datetime.timedelta(days=825)
_CLOCK_SKEW = datetime.timedelta(hours=1)


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


def create_authority(folder: Path) -> None:
    """Make `ca.pem` and `ca.key` in `folder`, unless they are there. Raises OSError."""
    if (folder / "ca.pem").exists():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fleetctl authority")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_durably(folder / "ca.key", _key_pem(key))
    write_durably(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def issue(folder: Path, identity: Identity, hosts: Iterable[str] = ()) -> TlsFiles:
    """Make `ROLE-NAME.pem` and its key in `folder`, signed by the authority there, unless they are there.

    `hosts` are the addresses and names clients will expect of a server. Raises OSError, and ValueError on a damaged authority.
    """
    stem = f"{identity.role}-{identity.name}"
    files = TlsFiles(folder / "ca.pem", folder / f"{stem}.pem", folder / f"{stem}.key")
    if files.certificate.exists() and files.key.exists():
        return files
    authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
    authority_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{folder / 'ca.key'} is not an elliptic-curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
    if identity.role is Role.CONTROLLER:
        names.append(x509.DNSName(CONTROLLER_DNS_NAME))
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, identity.role),
                    x509.NameAttribute(NameOID.COMMON_NAME, identity.name),
                ]
            )
        )
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    write_durably(files.key, _key_pem(key))
    write_durably(files.certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return files


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
    for name in names:
        text = name.decode(errors="replace")
        if text.startswith("fleet://"):
            role, _, holder = text.removeprefix("fleet://").partition("/")
            if role in Role.__members__.values() and holder:
                return Identity(Role(role), holder)
    return None


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
