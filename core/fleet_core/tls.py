"""Who is who: mutual TLS for every gRPC stream. The certificates come from `fleet_core.authority`.

A certificate names its holder by one URI in its subject alternative name, `fleet://ROLE/NAME`; the server end reads it back
with `grpc_tls.peer_identity`. Controllers also carry the DNS name `fleet-controller`, which every client expects, so that a
controller's address may change without a new certificate.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

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


def identity_of_uri(text: str) -> Identity | None:
    """Whom `fleet://ROLE/NAME` names; None for any other text."""
    if text.startswith("fleet://"):
        role, _, holder = text.removeprefix("fleet://").partition("/")
        if role in Role.__members__.values() and holder:
            return Identity(Role(role), holder)
    return None
