"""The command lines of `fleet-agent install` and `fleet-agent uninstall`, and the steps they stand for."""

import argparse
import contextlib
import socket
from pathlib import Path
from typing import Any

from fleet_agent.install.cgroup import service_cgroup
from fleet_agent.install.units import DRAIN, WORKERS, Place, units
from fleet_agent.install.upstart import jobs
from fleet_core.config import AgentConfig
from fleet_core.install.carry_out import InstallError
from fleet_core.install.certificates import Bundle
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
_CONFIG = CONFIG_FOLDER / "agent.toml"
_CERTIFICATES = CONFIG_FOLDER / "agent"
_STATE = STATE_FOLDER / "agent"
_LOGS = Path("/var/log/fleet")
_RUNTIME = Path("/run/fleet")
_ACCOUNT = Account("fleet", "workers of fleetctl")
_NAMES_ONLY = Place(Path("/"), Path("/"), Path("/"), _RUNTIME, Path("/"), None)


def add_commands(commands: Any) -> None:
    """`commands`: the subparsers of fleet-agent."""
    install = commands.add_parser("install", help="make this host one of a fleet; again: upgrade, touching no worker")
    kind = install.add_mutually_exclusive_group(required=True)
    kind.add_argument("--systemd", action="store_true", help="as services of systemd, enabled and started")
    kind.add_argument(
        "--upstart",
        type=Path,
        metavar="FILE",
        help="as jobs of Upstart: the agent's in FILE, the supervisor's beside it",
    )
    add_install_options(install)
    install.add_argument(
        "--controllers", type=addresses, metavar="ADDR[,ADDR]", help="where the controllers are; needed once"
    )
    install.add_argument("--address", help="where other hosts reach this one; default: as the controllers see it")
    install.add_argument("--ports", type=_ports, metavar="FIRST-LAST", help="for workers; default 20000-29999")
    install.add_argument("--label", action="append", type=_label, metavar="KEY=VALUE", help="for placement; repeatable")
    install.add_argument(
        "--worker-user", metavar="USER", help=f"for apps that name none; default {_ACCOUNT.name}, which is made"
    )
    add_uninstall(commands, "configuration, certificates, the host's identity, and logs")


def run(arguments: argparse.Namespace) -> int:
    """Carry out either command; returns the exit status."""
    if arguments.command == "uninstall":
        return conclude("fleet-agent", lambda: _removal(purge=arguments.purge), dry_run=arguments.dry_run)
    if arguments.upstart is not None:
        return _write_jobs(arguments)
    return conclude("fleet-agent", lambda: _installation(arguments), dry_run=arguments.dry_run)


def _installation(arguments: argparse.Namespace) -> list[Step]:
    config, bundle = _configuration(arguments)
    services = units(_place(config))
    names = [f"{unit.name}.service" for unit in services]
    return [
        *_files(config, bundle),
        *(File(unit.path, unit.render().encode()) for unit in services),
        Run(("systemctl", "daemon-reload")),
        Run(("systemctl", "enable", *names)),
        # What owns the workers is never restarted. The two others adopt them.
        Run(("systemctl", "start", f"{WORKERS}.service")),
        Run(("systemctl", "restart", "fleet-supervisor.service")),
        Run(("systemctl", "restart", "fleet-agent.service")),
        Run(("systemctl", "start", f"{DRAIN}.service")),
    ]


def _configuration(arguments: argparse.Namespace) -> tuple[AgentConfig, Bundle | None]:
    first, last = arguments.ports or (None, None)
    settings: dict[str, Any] = {
        "controllers": arguments.controllers,
        "address": arguments.address,
        "ports": {"first": first, "last": last} if first else None,
        "labels": dict(arguments.label) if arguments.label else None,
        "worker_user": arguments.worker_user,
    }
    if arguments.config is None and not _CONFIG.exists():
        if not arguments.controllers:
            raise InstallError(
                "--controllers ADDR[,ADDR] is missing: where fleet-controller listens, for example 10.0.0.1:7400"
            )
        settings["address"] = arguments.address or _address_towards(arguments.controllers[0])
        settings["worker_user"] = arguments.worker_user or _ACCOUNT.name
        settings.update(state_dir=str(_STATE), runtime_dir=str(_RUNTIME), log_dir=str(_LOGS))
    return configuration(AgentConfig, Role.AGENT, arguments, settings)


def _place(config: AgentConfig) -> Place:
    if not config.runtime_dir.is_relative_to("/run") or config.runtime_dir == Path("/run"):
        raise InstallError(
            f"runtime_dir: {config.runtime_dir} is not below /run: what is in it must not outlive a boot"
        )
    return Place(
        supervisor=program("fleet-supervisor"),
        agent=program("fleet-agent"),
        config=_CONFIG,
        runtime_dir=config.runtime_dir,
        log_dir=config.log_dir,
        cgroup=service_cgroup(WORKERS),
    )


def _files(config: AgentConfig, bundle: Bundle | None) -> list[Step]:
    steps: list[Step] = []
    if config.worker_user == _ACCOUNT.name:
        steps.append(_ACCOUNT)
    steps += [
        Folder(CONFIG_FOLDER),
        Folder(STATE_FOLDER),
        Folder(config.state_dir, 0o700),
        Folder(config.log_dir, 0o750),
    ]
    if bundle is not None:
        steps += bundle.steps(_CERTIFICATES, "root")
    steps.append(File(_CONFIG, render(config.plain()).encode(), 0o640))
    return steps


def _removal(*, purge: bool) -> list[Step]:
    services = list(reversed(units(_NAMES_ONLY)))
    names = [f"{unit.name}.service" for unit in services]
    steps: list[Step] = [
        # Drains this host, and stops its workers, before the others go.
        Run(("systemctl", "stop", *names), may_fail=True),
        Run(("systemctl", "disable", *names), may_fail=True),
        *(RemovePath(unit.path) for unit in services),
        Run(("systemctl", "daemon-reload")),
        RemovePath(_RUNTIME),
        RemoveAccount(_ACCOUNT.name),
    ]
    if purge:
        steps += [RemovePath(_CONFIG), RemovePath(_CERTIFICATES), RemovePath(_STATE), RemovePath(_LOGS)]
    return steps


def _write_jobs(arguments: argparse.Namespace) -> int:
    def plan() -> list[Step]:
        config, bundle = _configuration(arguments)
        place = Place(
            program("fleet-supervisor"), program("fleet-agent"), _CONFIG, config.runtime_dir, config.log_dir, None
        )
        written = jobs(place, arguments.upstart.absolute())
        return [*_files(config, bundle), *(File(path, text.encode()) for path, text in written.items())]

    return conclude("fleet-agent", plan, dry_run=arguments.dry_run, needs_systemd=False)


def _address_towards(controller: str) -> str:
    """The address of this host from which that controller is reached; nothing is sent. Raises InstallError."""
    host, _, port = controller.rpartition(":")
    host = host.strip("[]")
    with contextlib.suppress(OSError):
        family, kind, _, _, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    raise InstallError(f"there is no route to the controller {controller}: name this host's address with --address")


def _ports(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not dash or not first.isdigit() or not last.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST-LAST, for example 20000-29999")
    return int(first), int(last)


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value
