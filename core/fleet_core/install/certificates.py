"""The folder of certificate files that `fleetctl cert issue` makes and an install command takes."""

from dataclasses import dataclass
from pathlib import Path

from fleet_core.config import TlsConfig
from fleet_core.install.carry_out import InstallError
from fleet_core.install.steps import File, Folder, Step
from fleet_core.tls import Identity, Role, TlsFiles, identity_of_uri

AUTHORITY, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"


def files_in(folder: Path) -> TlsFiles:
    return TlsFiles(folder / AUTHORITY, folder / CERTIFICATE, folder / KEY)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a daemon proves itself with, as PEM, and who the certificate says it is."""

    identity: Identity
    authority: bytes
    certificate: bytes
    key: bytes

    def steps(self, folder: Path, group: str) -> list[Step]:
        """The files in `folder`; the key is readable for root and `group` alone."""
        files = files_in(folder)
        return [
            Folder(folder),
            File(files.authority, self.authority),
            File(files.certificate, self.certificate),
            File(files.key, self.key, 0o640, group, secret=True),
        ]


def read_bundle(folder: Path, role: Role) -> Bundle:
    """Raises InstallError: where files are missing, do not belong together, or are of another role."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        authority, certificate, key = files_in(folder).read()
    except OSError as error:
        raise InstallError(
            f"{error.filename}: {error.strerror}: name the folder that `fleetctl cert issue {role} NAME` made"
        ) from error
    try:
        parsed = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key, password=None)
        parsed.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    except Exception as error:  # the library raises half a dozen kinds
        reason = str(error) or type(error).__name__
        raise InstallError(f"{folder}: these certificate files cannot be used: {reason}") from error
    if private.public_key() != parsed.public_key():
        raise InstallError(f"{folder}: {KEY} is not the key of {CERTIFICATE}")
    identity = _identity(parsed)
    if identity is None or identity.role is not role:
        found = f"that of {identity.role} {identity.name}" if identity else "of nobody in a fleet"
        raise InstallError(f"{folder / CERTIFICATE} is {found}: `fleetctl cert issue {role} NAME` makes the right one")
    return Bundle(identity, authority, certificate, key)


def _identity(certificate: object) -> Identity | None:
    from cryptography import x509

    if not isinstance(certificate, x509.Certificate):
        return None
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    found = (identity_of_uri(uri) for uri in names.get_values_for_type(x509.UniformResourceIdentifier))
    return next((identity for identity in found if identity is not None), None)


def tls_config(folder: Path) -> TlsConfig:
    files = files_in(folder)
    return TlsConfig(authority=files.authority, certificate=files.certificate, key=files.key)
