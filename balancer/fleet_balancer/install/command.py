"""The command lines of `fleet-balancer install` and `fleet-balancer uninstall`, and the steps they stand for."""

import argparse
from pathlib import Path
from typing import Any

from fleet_balancer.install.units import BALANCER, HAPROXY, Place, units
from fleet_core.config import BalancerConfig
from fleet_core.install.carry_out import InstallError
from fleet_core.install.command import (
    CONFIG_FOLDER,
    STATE_FOLDER,
    add_install_options,
    add_uninstall,
    addresses,
    conclude,
    configuration,
    program,
)
from fleet_core.install.steps import Account, File, Folder, RemoveAccount, RemovePath, Run, Step
from fleet_core.tls import Role
from fleet_core.toml import render

COMMANDS = ("install", "uninstall")
_CONFIG = CONFIG_FOLDER / "balancer.toml"
_CERTIFICATES = CONFIG_FOLDER / "balancer"
_STATE = STATE_FOLDER / "balancer"
_RUNTIME = Path("/run/fleet-balancer")
_ACCOUNT = Account("fleet-balancer", "load balancer of fleetctl")
_NAMES_ONLY = Place(Path("/"), Path("/"), _ACCOUNT.name, (_STATE,), _RUNTIME)


def add_commands(commands: Any) -> None:
    """`commands`: the subparsers of fleet-balancer."""
    install = commands.add_parser("install", help="make this host a balancer; again: upgrade, while HAProxy serves on")
    install.add_argument("--systemd", action="store_true", required=True, help="as services, enabled and started")
    add_install_options(install)
    install.add_argument(
        "--controllers", type=addresses, metavar="ADDR[,ADDR]", help="where the controllers are; needed once"
    )
    install.add_argument(
        "--haproxy", type=Path, metavar="FILE", help="default: the newer of PATH's and the bundled one"
    )
    install.add_argument("--threads", type=int, metavar="N", help="HAProxy's; default 1")
    install.add_argument(
        "--listen-address", metavar="ADDR", help="serve routes without an address on this one alone; default 0.0.0.0"
    )
    install.add_argument(
        "--certificates-dir",
        type=Path,
        metavar="DIR",
        help="where HTTPS takes certificates from; default: in the state",
    )
    install.add_argument(
        "--access-log-dir", type=Path, metavar="DIR", help="where access logs are written; default: in the state"
    )
    add_uninstall(commands, "configuration, certificates and state")


def run(arguments: argparse.Namespace) -> int:
    """Carry out either command; returns the exit status."""
    if arguments.command == "uninstall":
        return conclude("fleet-balancer", lambda: _removal(purge=arguments.purge), dry_run=arguments.dry_run)
    return conclude("fleet-balancer", lambda: _installation(arguments), dry_run=arguments.dry_run)


def _installation(arguments: argparse.Namespace) -> list[Step]:
    settings: dict[str, Any] = {
        "controllers": arguments.controllers,
        "haproxy": str(arguments.haproxy) if arguments.haproxy else None,
        "threads": arguments.threads,
        "listen_address": arguments.listen_address,
        "certificates_dir": str(arguments.certificates_dir) if arguments.certificates_dir else None,
        "access_log_dir": str(arguments.access_log_dir) if arguments.access_log_dir else None,
    }
    if arguments.config is None and not _CONFIG.exists():
        if not arguments.controllers:
            raise InstallError(
                "--controllers ADDR[,ADDR] is missing: where fleet-controller listens, for example 10.0.0.1:7400"
            )
        settings.update(state_dir=str(_STATE), runtime_dir=str(_RUNTIME))
    config, bundle = configuration(BalancerConfig, Role.BALANCER, arguments, settings)
    if not config.runtime_dir.is_relative_to("/run") or config.runtime_dir == Path("/run"):
        raise InstallError(
            f"runtime_dir: {config.runtime_dir} is not below /run: what is in it must not outlive a boot"
        )
    own = (config.state_dir, *((config.access_log_dir,) if config.access_log_dir else ()))
    place = Place(program("fleet-balancer"), _CONFIG, _ACCOUNT.name, own, config.runtime_dir)
    services = units(place)
    return [
        _ACCOUNT,
        Folder(CONFIG_FOLDER),
        Folder(STATE_FOLDER),
        *(Folder(folder, 0o700, _ACCOUNT.name) for folder in own),
        *(bundle.steps(_CERTIFICATES, _ACCOUNT.name) if bundle is not None else ()),
        File(_CONFIG, render(config.plain()).encode(), 0o640, _ACCOUNT.name),
        *(File(unit.path, unit.render().encode()) for unit in services),
        Run(("systemctl", "daemon-reload")),
        Run(("systemctl", "enable", *(f"{unit.name}.service" for unit in services))),
        Run(("systemctl", "start", f"{HAPROXY}.service")),
        Run(("systemctl", "restart", f"{BALANCER}.service")),
    ]


def _removal(*, purge: bool) -> list[Step]:
    services = list(reversed(units(_NAMES_ONLY)))
    names = [f"{unit.name}.service" for unit in services]
    steps: list[Step] = [
        Run(("systemctl", "stop", *names), may_fail=True),
        Run(("systemctl", "disable", *names), may_fail=True),
        *(RemovePath(unit.path) for unit in services),
        Run(("systemctl", "daemon-reload")),
        RemovePath(_RUNTIME),
        RemoveAccount(_ACCOUNT.name),
    ]
    if purge:
        steps += [RemovePath(_CONFIG), RemovePath(_CERTIFICATES), RemovePath(_STATE)]
    return steps
