"""The command lines of `fleet-controller init`, `install` and `uninstall`, and the steps they stand for."""

import argparse
from pathlib import Path
from typing import Any

from fleet_controller.install.initiation import DEFAULT_PORT, init
from fleet_controller.install.units import CONTROLLER, Place, unit
from fleet_core.config import ControllerConfig
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

COMMANDS = ("init", "install", "uninstall")
_CONFIG = CONFIG_FOLDER / "controller.toml"
_CERTIFICATES = CONFIG_FOLDER / "controller"
_STATE = STATE_FOLDER / "controller"
_ACCOUNT = Account("fleet-controller", "controller of fleetctl")
_NAMES_ONLY = Place(Path("/"), Path("/"), _ACCOUNT.name, _STATE)


def add_commands(commands: Any) -> None:
    """`commands`: the subparsers of fleet-controller."""
    first = commands.add_parser("init", help="make a fleet's certificate authority, and its first operator here")
    first.add_argument(
        "--controllers",
        type=addresses,
        required=True,
        metavar="ADDR[,ADDR]",
        help=f"where the controllers will listen, for example 10.0.0.1:{DEFAULT_PORT}",
    )
    first.add_argument("--authority", type=Path, metavar="DIR", help="default /etc/fleet/authority")
    first.add_argument("--operator", metavar="NAME", help="default: the login name")
    first.add_argument(
        "--context", default="default", metavar="NAME", help="what fleetctl calls this fleet; default: default"
    )
    install = commands.add_parser("install", help="run a controller on this host; again: upgrade")
    install.add_argument("--systemd", action="store_true", required=True, help="as a service, enabled and started")
    add_install_options(install)
    install.add_argument("--listen", metavar="ADDR:PORT", help=f"default 0.0.0.0:{DEFAULT_PORT}")
    install.add_argument("--advertise", metavar="ADDR:PORT", help="where others reach it; needed once")
    install.add_argument("--etcd", type=addresses, metavar="ADDR[,ADDR]", help="the members; default 127.0.0.1:2379")
    add_uninstall(commands, "configuration, certificates and state")


def run(arguments: argparse.Namespace) -> int:
    """Carry out any of them; returns the exit status."""
    if arguments.command == "init":
        return init(arguments)
    if arguments.command == "uninstall":
        return conclude("fleet-controller", lambda: _removal(purge=arguments.purge), dry_run=arguments.dry_run)
    return conclude("fleet-controller", lambda: _installation(arguments), dry_run=arguments.dry_run)


def _installation(arguments: argparse.Namespace) -> list[Step]:
    settings: dict[str, Any] = {
        "listen": arguments.listen,
        "advertise": arguments.advertise,
        "etcd": arguments.etcd,
    }
    if arguments.config is None and not _CONFIG.exists():
        if not arguments.advertise:
            raise InstallError(
                f"--advertise ADDR:PORT is missing: where others reach this controller, for example 10.0.0.1:{DEFAULT_PORT}"
            )
        settings["listen"] = arguments.listen or f"0.0.0.0:{DEFAULT_PORT}"
        settings["etcd"] = arguments.etcd or ["127.0.0.1:2379"]
        settings["state_dir"] = str(_STATE)
    config, bundle = configuration(ControllerConfig, Role.CONTROLLER, arguments, settings)
    service = unit(Place(program("fleet-controller"), _CONFIG, _ACCOUNT.name, config.state_dir))
    return [
        _ACCOUNT,
        Folder(CONFIG_FOLDER),
        Folder(STATE_FOLDER),
        Folder(config.state_dir, 0o700, _ACCOUNT.name),
        *(bundle.steps(_CERTIFICATES, _ACCOUNT.name) if bundle is not None else ()),
        File(_CONFIG, render(config.plain()).encode(), 0o640, _ACCOUNT.name),
        File(service.path, service.render().encode()),
        Run(("systemctl", "daemon-reload")),
        Run(("systemctl", "enable", f"{CONTROLLER}.service")),
        Run(("systemctl", "restart", f"{CONTROLLER}.service")),
    ]


def _removal(*, purge: bool) -> list[Step]:
    steps: list[Step] = [
        Run(("systemctl", "stop", f"{CONTROLLER}.service"), may_fail=True),
        Run(("systemctl", "disable", f"{CONTROLLER}.service"), may_fail=True),
        RemovePath(unit(_NAMES_ONLY).path),
        Run(("systemctl", "daemon-reload")),
        RemoveAccount(_ACCOUNT.name),
    ]
    if purge:
        steps += [RemovePath(_CONFIG), RemovePath(_CERTIFICATES), RemovePath(_STATE)]
    return steps
