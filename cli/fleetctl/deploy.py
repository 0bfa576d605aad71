"""`deploy`: code from a folder, a commit or an archive, to every host that runs the app."""

from pathlib import Path

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from fleet.v1 import control_pb2
from fleetctl.code_spec import build_policy, moved_into
from fleetctl.command import POSITIVE_DURATION, fleet_command
from fleetctl.connection import Connection
from fleetctl.errors import CliError, ExitCode
from fleetctl.names import complete_apps
from fleetctl.operation import carry_out, new_request_id
from fleetctl.output import Output
from fleetctl.packing import Archive, open_archive, pack_folder, pack_ref
from fleetctl.rollout_options import Way, rollout_options
from fleetctl.settings import Settings
from fleetctl.upload import upload
from fleetctl.wording import size


@fleet_command("deploy")
@click.argument("app", shell_complete=complete_apps)
@click.argument("path", default=".", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--ref", metavar="COMMIT", help="What git has in this commit, branch or tag, instead of the files as they are."
)
@click.option(
    "--build",
    metavar="COMMAND",
    help="Run this on each host, in the folder; default: npm ci, pip install -r, as the code asks for.",
)
@click.option("--no-build", is_flag=True, help="Run the code as it is.")
@click.option(
    "--build-timeout", type=POSITIVE_DURATION, metavar="TIME", help="A build may take this long; default: 5m."
)
@click.option("--run", metavar="COMMAND", help="What to run in the folder from now on; default: what the app runs.")
@rollout_options
def deploy(
    settings: Settings,
    app: str,
    path: Path,
    ref: str | None,
    build: str | None,
    no_build: bool,  # noqa: FBT001
    build_timeout: float | None,
    run: str | None,
    way: Way,
) -> None:
    """Send code to an app's hosts and roll it out.

    It is built on each host, and is a new revision, which `fleetctl rollback` takes back. PATH is a folder, without what its
    .gitignore or .npmignore leaves out and without node_modules, or a .tar or .tar.gz. The app's command stays; what it names
    inside PATH becomes relative to it. The same code again changes nothing.

    \b
    fleetctl deploy my-app
    fleetctl deploy my-app ./service --ref v2.1
    fleetctl deploy my-app --build 'npm run release'
    """
    if no_build and build:
        raise CliError(ExitCode.USAGE, "--build and --no-build exclude each other")
    if ref is not None and not path.is_dir():
        raise CliError(ExitCode.USAGE, f"--ref needs a folder of a git repository, and {path} is none")
    policy = build_policy(build, no_build=no_build, seconds=build_timeout)
    output = Output(settings)
    folder = path.absolute() if path.is_dir() else None
    archive = open_archive(path) if folder is None else pack_folder(folder) if ref is None else pack_ref(folder, ref)
    request = control_pb2.UpdateAppRequest(
        request_id=new_request_id(),
        app=app,
        artifact_digest=archive.digest,
        cause=f"deploy {ref or path.resolve().name}",
        options=way.options,
    )

    async def begin(connection: Connection) -> control_pb2.Rollout:
        known = await _app(connection, app)
        request.spec.CopyFrom(moved_into(known.spec, folder, run))
        if policy is not None:
            request.spec.build.CopyFrom(policy)
        request.expected_revision = known.revision
        await _send(connection, archive, output)
        return (await connection.call(lambda stub: stub.UpdateApp, request, mutation=True)).rollout

    with archive.stream:
        carry_out(settings, output, app, begin, no_wait=way.no_wait, request_id=request.request_id)


async def _app(connection: Connection, app: str) -> control_pb2.App:
    """Raises CliError."""
    response = await connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest(app=app))
    for known in response.apps:
        if known.name == app:
            return known
    raise CliError(ExitCode.NOT_FOUND, f"no app is named {app}", "`fleetctl ls` shows the apps")


async def _send(connection: Connection, archive: Archive, output: Output) -> None:
    """Raises CliError."""
    console = output.errors
    shown = console.is_terminal and not output.settings.quiet
    columns = (TextColumn("sending"), BarColumn(24), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task("", total=archive.size)
        sent = await upload(connection, archive, lambda bytes_there: progress.update(task, completed=bytes_there))
    if not output.settings.quiet and not output.settings.structured:
        what = f"{archive.files} files, {size(archive.size)}" if archive.files else size(archive.size)
        output.line(f"code {archive.digest[:12]} ({what}) {'sent' if sent else 'is there already'}")
