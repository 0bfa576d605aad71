"""The configuration file of each daemon: TOML, checked, with one clear line for what is wrong."""

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fleet_core.ids import check_name
from fleet_core.spec import EVERYWHERE, parse_address
from fleet_core.tls import TlsFiles


class ConfigError(Exception):
    """A configuration file cannot be used; the message is one line that names the file and the setting."""


class TlsConfig(BaseModel):
    """`authority`, `certificate` and `key`: paths of PEM files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    authority: Path
    certificate: Path
    key: Path

    def files(self) -> TlsFiles:
        return TlsFiles(self.authority, self.certificate, self.key)


class DaemonConfig(BaseModel):
    """What the configuration of every daemon holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    state_dir: Path
    tls: TlsConfig
    metrics: str = ""
    """ "address:port" to answer GET /metrics on, in Prometheus' text format; empty: not at all."""

    @field_validator("name")
    @classmethod
    def _valid_name(cls, value: str) -> str:
        return check_name("daemon", value)

    @field_validator("metrics")
    @classmethod
    def _valid_metrics(cls, value: str) -> str:
        if value:
            parse_address(value)
        return value

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises ConfigError."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text()))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not TOML: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "file"
            raise ConfigError(f"{path}: {field}: {first['msg']}") from error


class PortRange(BaseModel):
    """Ports first to last, both included, that an agent may give to workers; no other program should use them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: Annotated[int, Field(ge=1, le=65_535)]
    last: Annotated[int, Field(ge=1, le=65_535)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.first > self.last:
            raise ValueError(f"first ({self.first}) is greater than last ({self.last})")
        return self


class AgentConfig(DaemonConfig):
    """fleet-agent."""

    controllers: Annotated[list[str], Field(min_length=1)]
    """ "host:port" of each controller."""
    address: str
    """Where other hosts reach this host's workers: workers listen on it."""
    ports: PortRange = PortRange(first=20_000, last=29_999)
    runtime_dir: Path
    """Holds the supervisor's socket: the supervisor's --runtime-dir."""
    log_dir: Path
    """The supervisor's --log-dir."""
    labels: dict[str, str] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables of every worker on this host; an app's own win over them."""


class ControllerConfig(DaemonConfig):
    """fleet-controller."""

    listen: str
    """ "host:port" of the gRPC server."""
    advertise: str = ""
    """ "host:port" others reach it at; empty: as `listen`."""
    etcd: Annotated[list[str], Field(min_length=1)]
    """ "host:port" of each etcd member."""
    etcd_tls: TlsConfig | None = None
    heartbeat_interval_seconds: Annotated[float, Field(gt=0, le=60)] = 1.5


class BalancerConfig(DaemonConfig):
    """fleet-balancer."""

    controllers: Annotated[list[str], Field(min_length=1)]
    runtime_dir: Path
    haproxy: Path | None = None
    """The HAProxy to run; absent: the newer of the one on PATH and the bundled one."""
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """HAProxy's threads; one serves some ten thousand requests a second."""
    listen_address: str = EVERYWHERE
    """The IP address routes without an address are served on. One other than 0.0.0.0 is this balancer's own: routes with another
    address are then left to other balancers."""

    @field_validator("listen_address")
    @classmethod
    def _literal_address(cls, value: str) -> str:
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            raise ValueError(f"{value!r} is not an IP address: write one, as in 10.0.0.5 or 0.0.0.0") from None
