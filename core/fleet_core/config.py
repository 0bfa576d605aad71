"""The configuration file of each daemon: TOML, checked, with one clear line for what is wrong."""

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

from msgspec import Meta, field
from msgspec.structs import force_setattr

from fleet_core.addresses import EVERYWHERE, check_address
from fleet_core.checked import Checked, CheckError, RuleError
from fleet_core.ids import check_name
from fleet_core.tls import TlsFiles


class ConfigError(Exception):
    """A configuration file cannot be used; the message is one line that names the file and the setting."""


class TlsConfig(Checked, frozen=True):
    """`authority`, `certificate` and `key`: paths of PEM files."""

    authority: Path
    certificate: Path
    key: Path

    def files(self) -> TlsFiles:
        return TlsFiles(self.authority, self.certificate, self.key)


class DaemonConfig(Checked, frozen=True, kw_only=True):
    """What the configuration of every daemon holds."""

    name: str
    state_dir: Path
    tls: TlsConfig
    metrics: str = ""
    """ "address:port" to answer GET /metrics on, in Prometheus' text format; empty: not at all."""

    def __post_init__(self) -> None:
        try:
            check_name("daemon", self.name)
        except ValueError as error:
            raise RuleError(str(error), "name") from error
        if self.metrics:
            check_address(self.metrics, "metrics")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises ConfigError."""
        return cls.checked(read_toml(path), path)

    @classmethod
    def checked(cls, table: dict[str, Any], path: Path) -> Self:
        """The settings in `table`, which are those of the file `path`. Raises ConfigError."""
        try:
            return cls.model_validate(table)
        except CheckError as error:
            raise ConfigError(f"{path}: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """Raises ConfigError."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


class PortRange(Checked, frozen=True):
    """Ports first to last, both included, that an agent may give to workers; no other program should use them."""

    first: Annotated[int, Meta(ge=1, le=65_535)]
    last: Annotated[int, Meta(ge=1, le=65_535)]

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise RuleError(f"first ({self.first}) is greater than last ({self.last})")


class AgentConfig(DaemonConfig, frozen=True, kw_only=True):
    """fleet-agent."""

    controllers: Annotated[list[str], Meta(min_length=1)]
    """ "host:port" of each controller."""
    address: str
    """Where other hosts reach this host's workers: workers listen on it."""
    ports: PortRange = PortRange(first=20_000, last=29_999)
    runtime_dir: Path
    """Holds the supervisor's socket: the supervisor's --runtime-dir."""
    log_dir: Path
    """The supervisor's --log-dir."""
    labels: dict[str, str] = field(default_factory=dict)
    worker_user: str = ""
    """As whom workers run whose app names no user; empty: as the supervisor does."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of every worker on this host; an app's own win over them."""


class ControllerConfig(DaemonConfig, frozen=True, kw_only=True):
    """fleet-controller."""

    listen: str
    """ "host:port" of the gRPC server."""
    advertise: str = ""
    """ "host:port" others reach it at; empty: as `listen`."""
    etcd: Annotated[list[str], Meta(min_length=1)]
    """ "host:port" of each etcd member."""
    etcd_tls: TlsConfig | None = None
    heartbeat_interval_seconds: Annotated[float, Meta(gt=0, le=60)] = 1.5
    """Between a balancer's heartbeats; who says nothing for twice as long is asked whether it is there (ADR 23)."""
    artifact_dir: Path | None = None
    """Holds deployed code; several controllers need one that all of them see. Absent: `artifacts` in `state_dir`."""
    artifacts: str = ""
    """Instead of a folder, the URL of an object store that controllers share: s3://BUCKET/PREFIX."""
    artifact_quota_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 10 * 1024**3
    """Code that no revision names makes room for new code; when that is not enough, new code is refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.artifacts and self.artifact_dir is not None:
            raise RuleError("artifacts and artifact_dir exclude each other: code lies in one place", "artifacts")


class BalancerConfig(DaemonConfig, frozen=True, kw_only=True):
    """fleet-balancer."""

    controllers: Annotated[list[str], Meta(min_length=1)]
    runtime_dir: Path
    haproxy: Path | None = None
    """The HAProxy to run; absent: the newer of the one on PATH and the bundled one."""
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    """HAProxy's threads; one serves some ten thousand requests a second."""
    listen_address: str = EVERYWHERE
    """The IP address routes without an address are served on. One other than 0.0.0.0 is this balancer's own: routes with another
    address are then left to other balancers."""

    certificates_dir: Path | None = None
    """Holds the certificates, with their keys, of what is reached by HTTPS; absent: `certificates` in `state_dir`."""
    access_log_dir: Path | None = None
    """Holds the access logs of apps that have one; absent: `access` in `state_dir`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            address = str(ipaddress.ip_address(self.listen_address))
        except ValueError:
            text = f"{self.listen_address!r} is not an IP address: write one, as in 10.0.0.5 or 0.0.0.0"
            raise RuleError(text, "listen_address") from None
        force_setattr(self, "listen_address", address)
