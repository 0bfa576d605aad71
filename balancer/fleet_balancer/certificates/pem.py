"""One certificate with its chain and key, read from PEM and checked; and new ones that are signed by themselves."""

import datetime
import hashlib
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_BLOCK = re.compile(rb"-----BEGIN (?P<kind>[A-Z0-9 ]+)-----.*?-----END (?P=kind)-----", re.DOTALL)
_LIFETIME = datetime.timedelta(days=397)
_CLOCK_SKEW = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Certificate:
    """What HAProxy loads, and what is worth knowing of it."""

    pem: bytes
    """The certificate, its chain, its key."""
    names: frozenset[str]
    """DNS names, in lower case; "*.example.com" covers one label more."""
    not_after: datetime.datetime
    source: str
    """Where it came from, for people."""
    self_made: bool = False

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.pem).hexdigest()

    def covers(self, host: str) -> bool:
        """Whether a client that asks for `host`, which may be a wildcard itself, would accept the name (RFC 6125 §6.4.3)."""
        return host in self.names or f"*.{host.partition('.')[2]}" in self.names


def read(content: bytes, source: str) -> Certificate:
    """The certificate of the key in `content`, whatever the order they stand in. Raises ValueError with what is wrong."""
    chain, key = _parts(content)
    leaf = next((one for one in chain if one.public_key() == key.public_key()), None)
    if leaf is None:
        raise ValueError("its key is not that of a certificate in it")
    chain = [leaf, *(one for one in chain if one is not leaf)]
    pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain) + _key_pem(key)
    return Certificate(pem, _names(leaf), leaf.not_valid_after_utc, source)


def _parts(content: bytes) -> tuple[list[x509.Certificate], PrivateKeyTypes]:
    blocks = [(match["kind"].decode(), match[0] + b"\n") for match in _BLOCK.finditer(content)]
    keys = [block for kind, block in blocks if kind.endswith("PRIVATE KEY")]
    if len(keys) != 1:
        raise ValueError(f"it holds {len(keys) or 'no'} private key{'s' if len(keys) > 1 else ''}, not one")
    try:
        chain = [x509.load_pem_x509_certificate(block) for kind, block in blocks if kind == "CERTIFICATE"]
        key = serialization.load_pem_private_key(keys[0], password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # TypeError: the key is encrypted, and nobody is here to ask for its password.
        words = "its key is encrypted" if isinstance(error, TypeError) else "it is not PEM that can be read"
        raise ValueError(words) from error
    if not chain:
        raise ValueError("it holds no certificate")
    return chain, key


def _key_pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        found: Iterable[str] = extension.value.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        attributes = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        found = [str(attribute.value) for attribute in attributes]
    return frozenset(name.lower() for name in found)


def self_signed(name: str, others: Iterable[str] = (), now: datetime.datetime | None = None) -> Certificate:
    """A new one for `name`, and for `others`, which may be IP addresses."""
    now = now or datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general_name(one) for one in (name, *others)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return read(certificate.public_bytes(serialization.Encoding.PEM) + _key_pem(key), f"made here for {name}")


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
