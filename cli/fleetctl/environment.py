"""`env-get`, `env-set` and `env-unset`: an app's own variables; a change is a new revision."""

import asyncio
from pathlib import Path

import click

from fleet.v1 import control_pb2
from fleet_core.env_lines import EnvLinesError, parse_env_lines
from fleetctl.command import fleet_command
from fleetctl.connection import Connection
from fleetctl.errors import CliError, ExitCode
from fleetctl.names import complete_apps, complete_settings, complete_variables
from fleetctl.operation import carry_out, new_request_id
from fleetctl.option_types import PairType
from fleetctl.output import Output
from fleetctl.rollout_options import Way, rollout_options
from fleetctl.settings import Settings
from fleetctl.wording import printable

_MOST_BYTES = 1024 * 1024


@fleet_command("env-get")
@click.argument("app", shell_complete=complete_apps)
@click.argument("keys", metavar="[KEY]...", nargs=-1, shell_complete=complete_variables)
def env_get(settings: Settings, app: str, keys: tuple[str, ...]) -> None:
    """Show the variables an app sets, with their values.

    Not those of its env files, which are read on the hosts, nor those its hosts and single workers have.
    """
    output = Output(settings)
    environment = asyncio.run(_fetch(settings, app))
    missing = [key for key in keys if key not in environment]
    if missing:
        raise CliError(
            ExitCode.NOT_FOUND,
            f"{app} does not set {', '.join(missing)}",
            f"`fleetctl env-get {app}` shows what it sets",
        )
    shown = {key: environment[key] for key in (keys or sorted(environment))}
    if settings.structured:
        output.document(shown)
    elif settings.quiet:
        output.names(shown)
    elif not shown:
        output.line(f"{app} sets no variables: fleetctl env-set {app} KEY=VALUE")
    else:
        clean = output.console.is_terminal
        for key, value in shown.items():
            output.line((key, "bold"), f"={printable(value) if clean else value}")


@fleet_command("env-set")
@click.argument("app", shell_complete=complete_apps)
@click.argument("variables", metavar="[KEY=VALUE]...", nargs=-1, type=PairType(), shell_complete=complete_settings)
@click.option(
    "--env-file",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Set what the K=V lines of this file, on this machine, say now; KEY=VALUE wins. Repeatable.",
)
@rollout_options
def env_set(
    settings: Settings, app: str, variables: tuple[tuple[str, str], ...], files: tuple[Path, ...], way: Way
) -> None:
    """Set variables of an app: a new revision, rolled out.

    Other variables stay. The first worker of the new revision must prove itself before any old one is touched.
    """
    to_set: dict[str, str] = {}
    for file in files:
        to_set |= _read(file)
    to_set |= dict(variables)
    if not to_set:
        raise click.UsageError("say what to set: KEY=VALUE, or --env-file FILE", click.get_current_context())
    change = control_pb2.EnvironmentChange(set=to_set)
    _change(settings, app, change, f"env-set {' '.join(sorted(to_set))}", way)


@fleet_command("env-unset")
@click.argument("app", shell_complete=complete_apps)
@click.argument("keys", metavar="KEY...", nargs=-1, required=True, shell_complete=complete_variables)
@rollout_options
def env_unset(settings: Settings, app: str, keys: tuple[str, ...], way: Way) -> None:
    """Take variables of an app away: a new revision, rolled out."""
    change = control_pb2.EnvironmentChange(unset=dict.fromkeys(keys))
    _change(settings, app, change, f"env-unset {' '.join(sorted(set(keys)))}", way)


def _change(settings: Settings, app: str, change: control_pb2.EnvironmentChange, cause: str, way: Way) -> None:
    request = control_pb2.UpdateAppRequest(
        request_id=new_request_id(), app=app, environment=change, cause=cause, options=way.options
    )

    async def begin(connection: Connection) -> control_pb2.Rollout:
        return (await connection.call(lambda stub: stub.UpdateApp, request, mutation=True)).rollout

    carry_out(settings, Output(settings), app, begin, no_wait=way.no_wait, request_id=request.request_id)


def _read(file: Path) -> dict[str, str]:
    """Raises CliError."""
    try:
        with file.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise CliError(ExitCode.USAGE, f"--env-file {file}: is longer than {_MOST_BYTES} bytes")
        return parse_env_lines(content.decode())
    except OSError as error:
        raise CliError(ExitCode.USAGE, f"--env-file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CliError(ExitCode.USAGE, f"--env-file {file}: is not UTF-8") from error
    except EnvLinesError as error:
        raise CliError(ExitCode.USAGE, f"--env-file {file}: {error}") from error


async def _fetch(settings: Settings, app: str) -> dict[str, str]:
    async with Connection.open(settings) as connection:
        response = await connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest(app=app))
    for known in response.apps:
        if known.name == app:
            return dict(known.spec.env)
    raise CliError(ExitCode.NOT_FOUND, f"no app is named {app}", "`fleetctl ls` shows the apps")
