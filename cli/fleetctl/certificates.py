"""`cert issue` and `cert use`: certificate files for the machines and people of a fleet. No controller is asked."""

import ipaddress
import re
from pathlib import Path

import click

from fleet_core.contexts import Context, ContextError, save_context
from fleet_core.ids import check_name
from fleet_core.install.carry_out import InstallError
from fleet_core.install.certificates import files_in, read_bundle
from fleet_core.install.command import AUTHORITY_FOLDER
from fleet_core.tls import Identity, Role
from fleetctl.command import fleet_command
from fleetctl.errors import CliError, ExitCode
from fleetctl.output import Output
from fleetctl.settings import Settings

_ROLES = [str(role) for role in Role]
_DNS_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


@click.group("cert")
def cert() -> None:
    """Certificates: who is who in the fleet."""


@fleet_command("issue")
@click.argument("role", type=click.Choice(_ROLES))
@click.argument("name")
@click.option(
    "--address", "addresses", multiple=True, metavar="ADDR", help="A server's address or DNS name; repeatable."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Default: ./ROLE-NAME.")
@click.option(
    "--authority",
    type=click.Path(path_type=Path),
    default=AUTHORITY_FOLDER,
    metavar="DIR",
    help=f"What `fleet-controller init` made; default {AUTHORITY_FOLDER}.",
)
def issue(
    settings: Settings, role: str, name: str, addresses: tuple[str, ...], out: Path | None, authority: Path
) -> None:
    """Make a folder with certificate, key and authority for one daemon or person.

    It is signed by the authority on this machine, and lasts 825 days. Copy the folder to where it is needed, over a safe way, and
    give it to `fleet-agent install --cert`, or to `fleetctl cert use`.
    """
    from fleet_core.authority import issue_into

    for address in addresses:
        _check_address(address)
    folder = out or Path(f"{role}-{name}")
    if folder.exists() and any(folder.iterdir()):
        raise CliError(
            ExitCode.REFUSED, f"{folder} is there already", "name another folder with --out, or remove this one"
        )
    try:
        identity = Identity(Role(role), check_name(role, name))
        issue_into(authority, files_in(folder), identity, addresses)
    except OSError as error:
        hint = "" if (authority / "ca.pem").exists() else "make the authority first, with `fleet-controller init`"
        raise CliError(ExitCode.FAILED, f"{error.filename}: {error.strerror}", hint) from error
    except ValueError as error:
        raise CliError(ExitCode.USAGE if "name" in str(error) else ExitCode.FAILED, str(error)) from error
    output = Output(settings)
    if settings.structured:
        output.document({"role": role, "name": name, "folder": str(folder)})
    else:
        output.line(str(folder))


@fleet_command("use")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def use(settings: Settings, folder: Path) -> None:
    """Be the operator of this certificate: save it as a context, the current one from now on.

    \b
    fleetctl cert use ./operator-ada -C 10.0.0.1:7400,10.0.0.2:7400 --context production
    """
    if not settings.controllers:
        raise CliError(ExitCode.USAGE, "where is the fleet? name its controllers with -C ADDR[,ADDR]")
    name = settings.context or "default"
    try:
        bundle = read_bundle(folder, Role.OPERATOR)
        files = files_in(folder.absolute())
        save_context(
            name, Context(settings.controllers, files.authority, files.certificate, files.key), make_current=True
        )
    except (InstallError, ContextError) as error:
        raise CliError(ExitCode.FAILED, str(error)) from error
    Output(settings).line(f"context {name}: operator {bundle.identity.name} at {', '.join(settings.controllers)}")


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not _DNS_NAME.fullmatch(text):
            raise CliError(ExitCode.USAGE, f"--address {text!r} is neither an address nor a DNS name") from None


cert.add_command(issue)
cert.add_command(use)
