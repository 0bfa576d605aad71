"""`start`: an app from a script, a file or a command; or a stopped app again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fleet.v1 import control_pb2, types_pb2
from fleet_core.ids import check_name
from fleet_core.spec import ListenMode
from fleetctl.app_options import LISTENING, SpecOption, spec_options
from fleetctl.client.changing import workers_to_start
from fleetctl.command import SectionOption, fleet_command
from fleetctl.connection import Connection
from fleetctl.errors import CliError, ExitCode
from fleetctl.names import complete_hosts, complete_targets
from fleetctl.operation import carry_out, new_request_id
from fleetctl.output import Output
from fleetctl.rollout_options import Way, rollout_options
from fleetctl.settings import Settings
from fleetctl.size import Size, SizeType
from fleetctl.start_file import StartCommand
from fleetctl.target import is_path, resolve
from fleetctl.wish import Wish


@fleet_command("start", cls=StartCommand)
@click.argument("target", shell_complete=complete_targets)
@click.argument("arguments", nargs=-1)
@click.option("-n", "--name", default="", help="The app's name; default: the script's, or its folder's.")
@click.option("-i", "--size", type=SizeType(), metavar="SIZE", help="Workers in all: 8, or cpu for one per core.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST",
    shell_complete=complete_hosts,
    help="Run on these hosts only; may be repeated.",
)
@spec_options
@click.option(
    "--no-port",
    cls=SectionOption,
    section=LISTENING,
    is_flag=True,
    help="The same as --listen none: it serves nothing.",
)
@rollout_options
def start(
    settings: Settings,
    target: str,
    arguments: tuple[str, ...],
    name: str,
    size: Size | None,
    hosts: tuple[str, ...],
    no_port: bool,  # noqa: FBT001
    way: Way,
    **given: Any,
) -> None:
    """Create and start an app, or start a stopped one again.

    TARGET is the name of an app that exists, a script (.js, .mjs, .cjs, .py, or with #!), an executable file, or a command
    on PATH. ./TARGET is always a file. What follows -- is passed on.

    \b
    fleetctl start ./server.js -n my-app -i 4 --http :8080
    fleetctl start npm -n shop --http :8080 -- start
    fleetctl start gunicorn --http :8080 -- -b 127.0.0.1:8000 shop:app
    fleetctl start ecosystem.config.js --env production    (PM2's file, or a fleet file: as apply)
    """
    context = click.get_current_context()
    if size is not None and not size.absolute and size != Size():
        raise CliError(ExitCode.USAGE, "the size to start with is at least 1: write -i 8 or -i cpu")
    if no_port:
        if given["listen_mode"] not in (None, ListenMode.NONE):
            raise CliError(ExitCode.USAGE, f"--no-port and --listen {given['listen_mode']} exclude each other")
        given["listen_mode"] = ListenMode.NONE.value
    if name:
        try:
            check_name("app", name)
        except ValueError as error:
            raise CliError(ExitCode.USAGE, f"--name: {error}") from error
    options = [option for option in context.command.params if isinstance(option, SpecOption)]
    newcomer = _Newcomer(name, arguments, Wish.of(options, given))
    # A path can be judged without the fleet; a bare word may be an app.
    spec = newcomer.spec(target) if is_path(target) else None
    request = control_pb2.StartAppRequest(request_id=new_request_id(), hosts=hosts, options=way.options)

    async def begin(connection: Connection) -> control_pb2.Rollout:
        request.spec.CopyFrom(spec or await _meant(connection, target, newcomer))
        request.size = await workers_to_start(connection, size, hosts)
        return (await connection.call(lambda stub: stub.StartApp, request, mutation=True)).rollout

    carry_out(settings, Output(settings), spec.name if spec else target, begin, no_wait=way.no_wait)


@dataclass(frozen=True, slots=True)
class _Newcomer:
    """An app to be made of a target, should it name none that exists."""

    name: str
    arguments: tuple[str, ...]
    wish: Wish

    @property
    def described(self) -> bool:
        return bool(self.name or self.arguments or self.wish)

    def spec(self, target: str) -> types_pb2.AppSpec:
        """Raises CliError."""
        command = resolve(target, self.arguments, Path.cwd())
        name = self.name or command.default_name
        if not name:
            raise CliError(ExitCode.USAGE, "no name can be made from that: give one with -n NAME")
        return self.wish.spec(name, command).to_proto()


async def _meant(connection: Connection, target: str, newcomer: _Newcomer) -> types_pb2.AppSpec:
    """The spec of what a bare word names: an app the controller knows, before a file or command. Raises CliError."""
    response = await connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest())
    if all(app.name != target for app in response.apps):
        return newcomer.spec(target)
    if newcomer.described:
        raise CliError(
            ExitCode.USAGE,
            f"{target} is an app that exists already, and starts as it was: only --size and --host can be given",
            f"./{target} forces a file",
        )
    return types_pb2.AppSpec(name=target)
