"""What the install and uninstall commands of all daemons have in common: their options, and how they end."""

import argparse
import os
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fleet_core.config import ConfigError, DaemonConfig, read_toml
from fleet_core.install.carry_out import InstallError, carry_out
from fleet_core.install.certificates import Bundle, read_bundle, tls_config
from fleet_core.install.steps import Step, described
from fleet_core.tls import Role

CONFIG_FOLDER = Path("/etc/fleet")
STATE_FOLDER = Path("/var/lib/fleet")
AUTHORITY_FOLDER = CONFIG_FOLDER / "authority"
_SYSTEMD_RUNS = Path("/run/systemd/system")
"""sd_booted(3)."""

_Config = TypeVar("_Config", bound=DaemonConfig)


def addresses(text: str) -> list[str]:
    """ADDR[,ADDR], each "host:port"; an argparse type."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    for address in found:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65_536:
            raise argparse.ArgumentTypeError(f"{address!r} is not HOST:PORT, for example 10.0.0.1:7400")
    if not found:
        raise argparse.ArgumentTypeError("it is empty: write HOST:PORT[,HOST:PORT]")
    return found


def add_install_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="take this configuration file (TOML) as it is")
    parser.add_argument(
        "--cert",
        type=Path,
        metavar="DIR",
        help="the folder that `fleetctl cert issue` made; copied, and needed only once",
    )
    parser.add_argument("--name", help="default: the certificate's")
    parser.add_argument("--metrics", metavar="ADDR:PORT", help="answer GET /metrics there")
    parser.add_argument("--dry-run", action="store_true", help="print every file and command, and change nothing")


def add_uninstall(commands: Any, what_stays: str) -> None:
    parser = commands.add_parser("uninstall", help="take the services and their users away")
    parser.add_argument("--purge", action="store_true", help=f"take {what_stays} away too")
    parser.add_argument("--dry-run", action="store_true", help="print every command, and change nothing")


def program(name: str) -> Path:
    """The console script beside this interpreter. Raises InstallError."""
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise InstallError(f"{path} is not there: install the package of {name} into this environment")
    return path


def configuration(
    kind: type[_Config], role: Role, arguments: argparse.Namespace, settings: dict[str, Any]
) -> tuple[_Config, Bundle | None]:
    """The configuration to be written, and the certificate files to be copied.

    `--config` as it is; else what is installed, with what the options say in its place. `settings` are those of the daemon alone;
    None stands for "not given". Raises InstallError, ConfigError.
    """
    installed = CONFIG_FOLDER / f"{role}.toml"
    if arguments.config is not None:
        return kind.load(arguments.config), read_bundle(arguments.cert, role) if arguments.cert else None
    table = read_toml(installed) if installed.exists() else {}
    bundle = None
    if arguments.cert is not None:
        bundle = read_bundle(arguments.cert, role)
        table["tls"] = tls_config(CONFIG_FOLDER / str(role)).plain()
        table["name"] = bundle.identity.name
    elif not table:
        raise InstallError(f"--cert DIR is missing: `fleetctl cert issue {role} NAME` makes that folder")
    if arguments.name and bundle is not None and arguments.name != bundle.identity.name:
        raise InstallError(f"--name {arguments.name}: the certificate is that of {bundle.identity.name}")
    given = {"name": arguments.name, "metrics": arguments.metrics, **settings}
    table.update({key: value for key, value in given.items() if value is not None})
    return kind.checked(table, installed), bundle


def conclude(name: str, plan: Callable[[], Sequence[Step]], *, dry_run: bool, needs_systemd: bool = True) -> int:
    """Print or carry out what `plan` returns. Returns the exit status: 0 done, 1 failed, and why on standard error."""
    try:
        steps = plan()
        if dry_run:
            sys.stdout.write(described(steps))
            return 0
        _require_root(needs_systemd=needs_systemd)
        carry_out(steps, lambda line: print(line, flush=True))
    except (InstallError, ConfigError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


def _require_root(*, needs_systemd: bool) -> None:
    if os.geteuid() != 0:
        raise InstallError("only root can do this; --dry-run shows what would be done")
    if needs_systemd and not _SYSTEMD_RUNS.is_dir():
        raise InstallError("no systemd runs here; --dry-run shows the files and commands")
