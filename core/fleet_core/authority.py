"""A small certificate authority: two files in a folder, and the certificates it issues there.

Apart from `fleet_core.tls`, because only what issues certificates needs the library for it.
"""

import datetime
import ipaddress
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet_core.durable import write_durably
from fleet_core.tls import CONTROLLER_DNS_NAME, Identity, Role, TlsFiles

_AUTHORITY_LIFETIME = datetime.timedelta(days=3650)
_LIFETIME = datetime.timedelta(days=825)
_CLOCK_SKEW = datetime.timedelta(hours=1)


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
    if not (files.certificate.exists() and files.key.exists()):
        certificate, key = _signed(folder, identity, hosts)
        write_durably(files.key, key)
        write_durably(files.certificate, certificate, mode=0o644)
    return files


def issue_into(authority: Path, files: TlsFiles, identity: Identity, hosts: Iterable[str] = ()) -> None:
    """Make all three files, for a machine of its own; what is there is replaced. Raises OSError, ValueError as `issue`."""
    certificate, key = _signed(authority, identity, hosts)
    for path in (files.key, files.certificate, files.authority):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_durably(files.key, key)
    write_durably(files.certificate, certificate, mode=0o644)
    write_durably(files.authority, (authority / "ca.pem").read_bytes(), mode=0o644)


def _signed(folder: Path, identity: Identity, hosts: Iterable[str]) -> tuple[bytes, bytes]:
    """A new key and its certificate by the authority in `folder`: (certificate, key) as PEM. Raises OSError, ValueError."""
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
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
    return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


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
