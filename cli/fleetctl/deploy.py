"""`deploy`: code from a folder, a commit or an archive, to every host that runs the app; a new app begins with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fleet.v1 import control_pb2, types_pb2
from fleet_core.checked import CheckError
from fleet_core.ids import check_name
from fleet_core.spec import AppSpec
from fleetctl.app_options import SpecOption, spec_options
from fleetctl.client.changing import workers_to_start
from fleetctl.code_spec import build_policy, check_same_place, command_of, folder_within, moved_into
from fleetctl.code_spec import words as words_of
from fleetctl.command import POSITIVE_DURATION, FleetCommand, fleet_command
from fleetctl.connection import Connection
from fleetctl.deployed_spec import new_spec
from fleetctl.errors import CliError, ExitCode
from fleetctl.names import complete_apps, complete_hosts
from fleetctl.operation import carry_out, new_request_id
from fleetctl.output import Output
from fleetctl.packing import Archive, open_archive, pack_folder, pack_npm, pack_ref
from fleetctl.rollout_options import Way, rollout_options
from fleetctl.sending import send
from fleetctl.settings import Settings
from fleetctl.size import Size, SizeType
from fleetctl.wish import Wish

_COMMAND = "fleetctl.deploy.command"


class DeployCommand(FleetCommand):
    """What follows -- is the command to run, whether PATH is given or not."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words, dashes, command = args, "", list[str]()
        if "--" in args:
            at = args.index("--")
            words, dashes, command = args[:at], args[at], args[at + 1 :]
        if dashes and not command and not ctx.resilient_parsing:
            raise CliError(ExitCode.USAGE, "nothing follows --: name a program and its arguments")
        ctx.meta[_COMMAND] = tuple(command)
        return super().parse_args(ctx, words)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND…]"]


@fleet_command("deploy", cls=DeployCommand)
@click.argument("app", shell_complete=complete_apps)
@click.argument("path", default=".", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--ref", metavar="COMMIT", help="What git has in this commit, branch or tag, instead of the files as they are."
)
@click.option("--npm-pack", is_flag=True, help="What `npm pack` would publish, and package-lock.json.")
@click.option(
    "--build",
    metavar="COMMAND",
    help="Run this on each host, in the folder; default: npm ci, pip install -r, as the code asks for.",
)
@click.option("--no-build", is_flag=True, help="Run the code as it is.")
@click.option(
    "--build-timeout", type=POSITIVE_DURATION, metavar="TIME", help="A build may take this long; default: 5m."
)
@click.option("--run", metavar="COMMAND", help="The same as -- COMMAND…, in one word.")
@click.option("-i", "--size", type=SizeType(), metavar="SIZE", help="Of a new app: workers in all, 8 or cpu.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST",
    shell_complete=complete_hosts,
    help="Of a new app: run on these hosts only; may be repeated.",
)
@spec_options
@rollout_options
def deploy(
    settings: Settings,
    app: str,
    path: Path,
    ref: str | None,
    npm_pack: bool,  # noqa: FBT001
    build: str | None,
    no_build: bool,  # noqa: FBT001
    build_timeout: float | None,
    run: str | None,
    size: Size | None,
    hosts: tuple[str, ...],
    way: Way,
    **given: Any,
) -> None:
    """Send code to an app's hosts and roll it out.

    An app that does not exist yet begins with it. It is built on each host before any worker is replaced, and is a new revision,
    which `fleetctl rollback` takes back. PATH is a folder, without what its .gitignore or .npmignore leaves out and without
    node_modules, or a .tar or .tar.gz. A new app needs the command to run in it, after --; else the app's command stays, and
    what it names inside PATH becomes relative to it. The options that describe an app are `fleetctl start`'s, and hold from now
    on. The same again changes nothing.

    \b
    fleetctl deploy my-app . -i 4 --http :8080 -- node server.js
    fleetctl deploy my-app
    fleetctl deploy my-app ./service --ref v2.1
    fleetctl deploy my-app --build 'npm run release'
    """
    context = click.get_current_context()
    if no_build and build:
        raise CliError(ExitCode.USAGE, "--build and --no-build exclude each other")
    if npm_pack and (ref is not None or not path.is_dir()):
        raise CliError(ExitCode.USAGE, "--npm-pack takes a folder as it is: no archive and no --ref")
    if ref is not None and not path.is_dir():
        raise CliError(ExitCode.USAGE, f"--ref needs a folder of a git repository, and {path} is none")
    words: tuple[str, ...] = context.meta[_COMMAND]
    if run is not None:
        if words:
            raise CliError(ExitCode.USAGE, "--run and what follows -- exclude each other")
        words = tuple(words_of("--run", run))
    if size is not None and not size.absolute and size != Size():
        raise CliError(ExitCode.USAGE, "the size to start with is at least 1: write -i 8 or -i cpu")
    cwd, given["cwd"] = given["cwd"], None
    options = [option for option in context.command.params if isinstance(option, SpecOption)]
    folder = path.absolute() if path.is_dir() else None
    wanted = _Wanted(
        app=app,
        folder=folder,
        words=words,
        cwd=None if cwd is None else Path(cwd),
        wish=Wish.of(options, given),
        policy=build_policy(build, no_build=no_build, seconds=build_timeout),
        size=size,
        hosts=hosts,
    )
    output = Output(settings)
    archive = _packed(path, folder, ref, npm_pack=npm_pack)
    request_id, cause = new_request_id(), f"deploy {ref or path.resolve().name}"

    async def begin(connection: Connection) -> control_pb2.Rollout:
        known = await _known(connection, app)
        if known is None:
            starting = await wanted.start(connection)
            starting.request_id, starting.cause, starting.artifact_digest = request_id, cause, archive.digest
            starting.options.CopyFrom(way.options)
            await send(connection, archive, output)
            return (await connection.call(lambda stub: stub.StartApp, starting, mutation=True)).rollout
        request = wanted.update(known)
        request.request_id, request.cause, request.artifact_digest = request_id, cause, archive.digest
        request.options.CopyFrom(way.options)
        await send(connection, archive, output)
        return (await connection.call(lambda stub: stub.UpdateApp, request, mutation=True)).rollout

    with archive.stream:
        carry_out(settings, output, app, begin, no_wait=way.no_wait, request_id=request_id)


def _packed(path: Path, folder: Path | None, ref: str | None, *, npm_pack: bool) -> Archive:
    """Raises CliError."""
    if folder is None:
        return open_archive(path)
    if npm_pack:
        return pack_npm(folder)
    return pack_folder(folder) if ref is None else pack_ref(folder, ref)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the command line says of the app, beside its code."""

    app: str
    folder: Path | None
    words: tuple[str, ...]
    cwd: Path | None
    wish: Wish
    policy: types_pb2.BuildPolicy | None
    size: Size | None
    hosts: tuple[str, ...]

    async def start(self, connection: Connection) -> control_pb2.StartAppRequest:
        """Of an app that is not there yet. Raises CliError."""
        try:
            check_name("app", self.app)
        except ValueError as error:
            raise CliError(ExitCode.USAGE, str(error)) from error
        request = control_pb2.StartAppRequest(hosts=self.hosts)
        request.spec.CopyFrom(new_spec(self.app, self.wish, self.words, self.cwd, self.folder))
        if self.policy is not None:
            request.spec.build.CopyFrom(self.policy)
        request.size = await workers_to_start(connection, self.size, self.hosts)
        return request

    def update(self, known: control_pb2.App) -> control_pb2.UpdateAppRequest:
        """Of an app that is there. Raises CliError."""
        check_same_place(known, self.size, self.hosts)
        spec = types_pb2.AppSpec()
        spec.CopyFrom(known.spec)
        if self.wish:
            try:
                before = AppSpec.from_proto(known.spec)
            except CheckError as error:
                text = f"{self.app} is described in a way this fleetctl does not know: {error}"
                raise CliError(ExitCode.FAILED, text, "use the fleetctl of the controller's version") from error
            spec = self.wish.onto(before).to_proto()
        command = command_of(self.words, self.folder) if self.words else None
        moved = moved_into(spec, self.folder, command)
        if self.cwd is not None:
            moved.cwd = folder_within(self.cwd, self.folder)
        if self.policy is not None:
            moved.build.CopyFrom(self.policy)
        return control_pb2.UpdateAppRequest(app=self.app, spec=moved, expected_revision=known.revision)


async def _known(connection: Connection, app: str) -> control_pb2.App | None:
    """None: there is no such app. Raises CliError."""
    response = await connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest())
    return next((known for known in response.apps if known.name == app), None)
