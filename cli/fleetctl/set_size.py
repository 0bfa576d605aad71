"""`set-size`: the plan first, then the change; at once where nobody is to be asked."""

import click
from rich.text import Text

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.command import FleetCommand, fleet_command
from fleetctl.connection import Connection
from fleetctl.errors import CliError, ExitCode
from fleetctl.event_loop import run
from fleetctl.names import complete_apps, complete_hosts
from fleetctl.operation import carry_out, new_request_id
from fleetctl.output import Column, Output
from fleetctl.rollout_options import Way, rollout_options
from fleetctl.settings import Settings
from fleetctl.size import Size, SizeType
from fleetctl.wording import count

_PLAN_COLUMNS = (
    Column("HOST"),
    Column("BEFORE", right=True),
    Column("AFTER", right=True),
    Column("CHANGE", right=True),
)


class _SetSizeCommand(FleetCommand):
    """Takes `-1` for a bad size, not for an option nobody knows."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # The parser consumes `args`, and names only the first character of what it does not know.
        bad = next((arg for arg in args if arg[:1] == "-" and arg[1:2].isdigit()), "")
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if bad.startswith(error.option_name):
                SizeType().convert(bad, None, ctx)
            raise


@fleet_command("set-size", cls=_SetSizeCommand)
@click.argument("app", shell_complete=complete_apps)
@click.argument("size", type=SizeType())
@click.option(
    "--host",
    metavar="HOST",
    shell_complete=complete_hosts,
    default="",
    help="Only on this host; the app's other hosts keep what they have.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
@rollout_options
def set_size(settings: Settings, app: str, size: Size, host: str, dry_run: bool, way: Way) -> None:  # noqa: FBT001
    """Change how many workers an app has.

    SIZE is 8 (in all), +2 (two more) or cpu (one per core). Without --host the workers are spread evenly over the hosts; with
    it, the present spread is kept and only that host changes.
    """
    output = Output(settings)
    request = control_pb2.SetSizeRequest(app=app, change=size.to_proto(), host=host, dry_run=True, options=way.options)
    request.request_id = new_request_id()
    shows = not settings.structured and not settings.quiet
    allowed = settings.yes
    if dry_run or not settings.yes:
        plan = run(_ask(settings, request))
        if dry_run:
            if settings.structured:
                output.document(views.size_plan_view(app, plan))
            else:
                _show_plan(output, plan)
            return
        if shows:
            _show_plan(output, plan)
        if plan.shrinking_others:
            _confirm_shrinking(output, list(plan.shrinking_others))
            allowed = True
        request.request_id = new_request_id()
    request.dry_run = False
    request.allow_shrinking_others = allowed

    async def begin(connection: Connection) -> control_pb2.Rollout:
        answer = await connection.call(lambda stub: stub.SetSize, request, mutation=True)
        if settings.yes and shows and answer.plan:
            _show_plan(output, answer)
        return answer.rollout

    carry_out(settings, output, app, begin, no_wait=way.no_wait)


def _confirm_shrinking(output: Output, hosts: list[str]) -> None:
    named = ", ".join(hosts)
    if not output.interactive:
        raise CliError(
            ExitCode.REFUSED,
            f"this would shrink hosts that were not named: {named}. Nothing was changed: say --yes to go on",
        )
    output.confirm(f"This shrinks hosts that were not named: {named}. Go on?")


def _show_plan(output: Output, plan: control_pb2.SetSizeResponse) -> None:
    rows: list[list[str | Text]] = []
    for host in sorted(plan.plan, key=lambda planned: planned.host):
        change = host.after - host.before
        cell = Text(f"{change:+d}", "green" if change > 0 else "yellow") if change else Text("-", "dim")
        rows.append([host.host, str(host.before), str(host.after), cell])
    before, after = sum(host.before for host in plan.plan), sum(host.after for host in plan.plan)
    if len(rows) > 1:
        rows.append(
            [Text("in all", "bold"), str(before), str(after), f"{after - before:+d}" if after != before else "-"]
        )
    output.table(_PLAN_COLUMNS, rows)
    if not plan.plan:
        output.line(count(after, "worker"))


async def _ask(settings: Settings, request: control_pb2.SetSizeRequest) -> control_pb2.SetSizeResponse:
    async with Connection.open(settings) as connection:
        return await connection.call(lambda stub: stub.SetSize, request)
