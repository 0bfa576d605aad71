"""The configuration files and certificates of every daemon, written as an administrator would."""

from collections.abc import Iterable
from pathlib import Path

from fleet_core.authority import create_authority, issue
from fleet_core.config import AgentConfig, BalancerConfig, ControllerConfig, DaemonConfig, PortRange, TlsConfig
from fleet_core.durable import write_durably
from fleet_core.tls import Identity, Role, TlsFiles
from fleet_core.toml import render
from fleetctl.up.layout import Layout, balancer_addresses, balancer_names, controller_names, host_names
from fleetctl.up.settings import Settings

OPERATOR = "operator"
_ADDRESS = "127.0.0.1"


class Certificates:
    """Those of one fleet, made where they are missing."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        create_authority(folder)
        self._folder = folder

    def get(self, role: Role, name: str) -> TlsFiles:
        """Raises OSError, and ValueError on a damaged authority."""
        hosts = (_ADDRESS, "localhost") if role in (Role.CONTROLLER, Role.ETCD) else ()
        return issue(self._folder, Identity(role, name), hosts)

    def config(self, role: Role, name: str) -> TlsConfig:
        files = self.get(role, name)
        return TlsConfig(authority=files.authority, certificate=files.certificate, key=files.key)


def write_configs(layout: Layout, settings: Settings, certificates: Certificates) -> set[str]:
    """Write what changed, and make the folders they name; returns the services whose configuration is not what it was.

    Raises OSError and ValueError.
    """
    changed = set()
    for service, path, config in [
        *_controllers(layout, settings, certificates),
        *_agents(layout, settings, certificates),
        *_balancers(layout, settings, certificates),
    ]:
        text = render(config.plain())
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_durably(path, text.encode())
            changed.add(service)
    return changed


def _controllers(
    layout: Layout, settings: Settings, certificates: Certificates
) -> Iterable[tuple[str, Path, DaemonConfig]]:
    names = controller_names(settings.controllers)
    for name, address in zip(names, settings.controller_addresses, strict=True):
        state = _folder(layout.controller_state(name))
        tls = certificates.config(Role.CONTROLLER, name)
        config = ControllerConfig(
            name=name,
            state_dir=state,
            tls=tls,
            listen=address,
            etcd=[f"{_ADDRESS}:{port}" for port in settings.etcd_client_ports],
            etcd_tls=tls,
            artifact_dir=_folder(layout.artifacts),
        )
        yield name, layout.controller_config(name), config


def _agents(layout: Layout, settings: Settings, certificates: Certificates) -> Iterable[tuple[str, Path, DaemonConfig]]:
    for index, name in enumerate(host_names(settings.hosts)):
        folders = layout.host(name)
        first, last = settings.worker_ports(index)
        config = AgentConfig(
            name=name,
            state_dir=_folder(folders.state),
            tls=certificates.config(Role.AGENT, name),
            controllers=settings.controller_addresses,
            address=_ADDRESS,
            ports=PortRange(first=first, last=last),
            runtime_dir=_folder(folders.run),
            log_dir=_folder(folders.log),
        )
        yield f"{name}-agent", folders.config, config


def _balancers(
    layout: Layout, settings: Settings, certificates: Certificates
) -> Iterable[tuple[str, Path, DaemonConfig]]:
    for name, own_address in zip(
        balancer_names(settings.balancers), balancer_addresses(settings.balancers), strict=True
    ):
        config = BalancerConfig(
            name=name,
            state_dir=_folder(layout.balancer_state(name)),
            tls=certificates.config(Role.BALANCER, name),
            controllers=settings.controller_addresses,
            runtime_dir=_folder(layout.balancer_run(name)),
            listen_address=own_address,
        )
        yield name, layout.balancer_config(name), config


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path
