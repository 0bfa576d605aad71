"""`start`: an app from a script, a file or a command; or a stopped app again."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from fleet.v1 import control_pb2, types_pb2
from fleet_core.ids import check_name
from fleet_core.spec import AppSpec, ListenMode, ReadyPolicy, RolloutPolicy, RoutePolicy, Runtime, StopPolicy
from fleetctl.command import DURATION, NO_WAIT, fleet_command
from fleetctl.connection import Connection
from fleetctl.errors import CliError, ExitCode
from fleetctl.operation import carry_out, new_request_id
from fleetctl.output import Output
from fleetctl.settings import Settings
from fleetctl.size import Size, SizeType
from fleetctl.target import Command, is_path, resolve


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the command line says of a new app; None: the default of the spec."""

    name: str = ""
    http: str = ""
    env: dict[str, str] = field(default_factory=dict)
    port: int | None = None
    cwd: Path | None = None
    ready_path: str = ""
    grace: float | None = None
    min_ready: float | None = None
    drain_timeout: float | None = None
    max_surge: int | None = None
    no_port: bool = False
    arguments: tuple[str, ...] = ()

    @property
    def given(self) -> bool:
        """It says anything, so it cannot be meant for an app that exists."""
        return self != _Wish()

    def spec(self, command: Command) -> types_pb2.AppSpec:
        """Raises CliError."""
        name = self.name or command.default_name
        if not name:
            raise CliError(ExitCode.USAGE, "no name can be made from that: give one with -n NAME")
        surge: dict[str, Any] = {"max_surge": self.max_surge} if self.max_surge is not None else {}
        if self.max_surge == 0:
            # Stop first, then start: one worker at a time is missing.
            surge["max_unavailable"] = 1
        try:
            return AppSpec(
                name=name,
                argv=command.argv,
                cwd=str(self.cwd or Path.cwd()),
                env=self.env,
                runtime=Runtime.NODE if command.node else Runtime.PROGRAM,
                listen_mode=ListenMode.NONE if self.no_port else ListenMode.PORT,
                declared_port=self.port or 0,
                ready=ReadyPolicy(http_path=self.ready_path),
                stop=StopPolicy(**_known(grace_seconds=self.grace)),
                rollout=RolloutPolicy(
                    **_known(min_ready_seconds=self.min_ready, drain_timeout_seconds=self.drain_timeout), **surge
                ),
                route=RoutePolicy(http=self.http),
            ).to_proto()
        except ValidationError as error:
            raise CliError(ExitCode.USAGE, _first_complaint(error)) from error


class _EnvironmentType(click.ParamType[tuple[str, str]]):
    name = "K=V"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, content = value.partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        return key, content


@fleet_command("start")
@click.argument("target")
@click.argument("arguments", nargs=-1)
@click.option("-n", "--name", default="", help="The app's name; default: the script's, or its folder's.")
@click.option("-i", "--size", type=SizeType(), metavar="SIZE", help="Workers in all: 8, or cpu for one per core.")
@click.option("--http", default="", metavar="ADDR", help="Where the balancers listen for it: 127.0.0.1:8080 or :8080.")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="Run on these hosts only; may be repeated.")
@click.option("-e", "--env", multiple=True, type=_EnvironmentType(), metavar="K=V", help="Add to its environment.")
@click.option(
    "--port", type=click.IntRange(1, 65_535), metavar="N", help="The port in its source; default: its first listen."
)
@click.option("--no-port", is_flag=True, help="It serves nothing: no port, no endpoint.")
@click.option(
    "--cwd",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Its working directory; default: this one.",
)
@click.option("--ready-path", default="", metavar="PATH", help="Ready when a GET of it answers 200 to 399.")
@click.option("--grace", type=DURATION, metavar="TIME", help="Between the stop signal and SIGKILL; default: 10s.")
@click.option("--min-ready", type=DURATION, metavar="TIME", help="A new worker must stay ready this long; default: 0s.")
@click.option(
    "--drain-timeout", type=DURATION, metavar="TIME", help="Longest wait for requests in flight; default: 30s."
)
@click.option(
    "--max-surge",
    type=click.IntRange(0, 1000),
    metavar="N",
    help="Extra workers per host while replacing; 0: stop first.",
)
@NO_WAIT
def start(
    settings: Settings,
    target: str,
    size: Size | None,
    hosts: tuple[str, ...],
    env: tuple[tuple[str, str], ...],
    no_wait: bool,  # noqa: FBT001
    **wished: Any,
) -> None:
    """Create and start an app, or start a stopped one again.

    TARGET is the name of an app that exists, a script (.js, .mjs, .cjs, .py, or with #!), an executable file, or a command
    on PATH. ./TARGET is always a file. What follows -- is passed on.

    \b
    fleetctl start ./server.js -n my-app -i 4 --http :8080
    fleetctl start npm -n shop --http :8080 -- start
    fleetctl start gunicorn --http :8080 -- -b 127.0.0.1:8000 shop:app
    """
    context = click.get_current_context()
    if size is not None and not size.absolute and size != Size():
        raise CliError(ExitCode.USAGE, "the size to start with is at least 1: write -i 8 or -i cpu")
    if wished["no_port"] and wished["port"]:
        raise click.UsageError("--port and --no-port exclude each other", context)
    wish = _Wish(env=dict(env), **wished)
    if wish.name:
        try:
            check_name("app", wish.name)
        except ValueError as error:
            raise CliError(ExitCode.USAGE, str(error)) from error
    # A path can be judged without the fleet; a bare word may be an app.
    command = resolve(target, wish.arguments, Path.cwd()) if is_path(target) else None
    spec = wish.spec(command) if command else None
    request = control_pb2.StartAppRequest(request_id=new_request_id(), hosts=hosts)

    async def begin(connection: Connection) -> control_pb2.Rollout:
        request.spec.CopyFrom(spec or await _meant(connection, target, wish))
        request.size = await _workers(connection, size, hosts)
        return (await connection.call(lambda stub: stub.StartApp, request, mutation=True)).rollout

    carry_out(settings, Output(settings), spec.name if spec else target, begin, no_wait=no_wait)


async def _meant(connection: Connection, target: str, wish: _Wish) -> types_pb2.AppSpec:
    """The spec of what a bare word names: an app the controller knows, before a file or command. Raises CliError."""
    response = await connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest())
    if all(app.name != target for app in response.apps):
        return wish.spec(resolve(target, wish.arguments, Path.cwd()))
    if wish.given:
        raise CliError(
            ExitCode.USAGE,
            f"{target} is an app that exists already, and starts as it was: only --size and --host can be given",
            f"./{target} forces a file",
        )
    return types_pb2.AppSpec(name=target)


async def _workers(connection: Connection, size: Size | None, hosts: tuple[str, ...]) -> int:
    """0 lets the controller choose. Raises CliError."""
    if size is None:
        return 0
    if size.absolute:
        return size.absolute
    response = await connection.call(lambda stub: stub.ListHosts, control_pb2.ListHostsRequest())
    cpus = sum(
        host.cpus
        for host in response.hosts
        if host.state == control_pb2.HOST_STATE_ONLINE and (not hosts or host.name in hosts)
    )
    if not cpus:
        raise CliError(
            ExitCode.REFUSED, "no such host is online, so there are no cores to count", "`fleetctl host ls` shows them"
        )
    return cpus


def _known(**fields: float | None) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _first_complaint(error: ValidationError) -> str:
    """The first broken rule, as the spec words it, or with the field in front where pydantic words it."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    return f"{'.'.join(str(part) for part in first['loc'])}: {message}"
