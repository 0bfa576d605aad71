"""`apply` and `diff`: the fleet as a file says it."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from fleetctl.apply_outcome import Outcome, difference_view, planned
from fleetctl.apply_plan import Plan, Verdict
from fleetctl.applying import Apply, present_fleet
from fleetctl.command import fleet_command
from fleetctl.errors import CliError, ExitCode, FleetError
from fleetctl.fleet_code import packed
from fleetctl.fleet_source import Source, load
from fleetctl.output import Column, Output
from fleetctl.settings import Settings
from fleetctl.wording import count

_DIFFERS = 1
_FILE = click.option(
    "-f",
    "--file",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A fleet file (YAML, TOML, JSON), or PM2's ecosystem file.",
)
_ENV = click.option("--env", "env_name", default="", metavar="NAME", help="PM2's files: take env_NAME too.")
_ONLY = click.option("--only", default="", metavar="APP[,APP]", help="Only these apps of the file.")
_COLUMNS = (Column("APP"), Column("WOULD"), Column("DIFFERENCE"))


@fleet_command("apply")
@_FILE
@_ENV
@_ONLY
@click.option("--dry-run", is_flag=True, help="Show what would be done and change nothing.")
@click.option("--prune", is_flag=True, help="Remove the apps that are not in the file; asks first.")
@click.option("--supersede", is_flag=True, help="Take the place of rollouts of these apps that are under way.")
def apply(
    settings: Settings,
    path: Path,
    env_name: str,
    only: str,
    dry_run: bool,  # noqa: FBT001
    prune: bool,  # noqa: FBT001
    supersede: bool,  # noqa: FBT001
) -> None:
    """Make the apps of a file what the file says, one after the other.

    Creates what is missing, changes what differs and starts what is stopped; what is as the file says is left alone, and so are
    apps the file does not name. docs/fleet-file.md shows what to write, docs/moving/ how to come from PM2 and others.
    """
    if prune and only:
        raise CliError(ExitCode.USAGE, "--prune removes what is not in the whole file: it does not go with --only")
    apply_file(settings, path, env_name, only, dry_run=dry_run, prune=prune, supersede=supersede)


@fleet_command("diff")
@_FILE
@_ENV
@_ONLY
def diff(settings: Settings, path: Path, env_name: str, only: str) -> int:
    """Show how the apps of a file differ from what runs.

    Exits 0 where nothing differs, 1 where something does, 2 where that cannot be found out.
    """
    output = Output(settings)
    try:
        plans = _compared(settings, _source(output, path, env_name, only))
    except FleetError as error:
        raise CliError(ExitCode.USAGE, error.message, error.hint, error.details) from error
    _show(output, plans, ())
    return ExitCode.DONE if all(plan.verdict is Verdict.SAME for plan in plans) else _DIFFERS


def _compared(settings: Settings, source: Source) -> list[Plan]:
    """Raises CliError, also where an app could not become what the file says."""
    with packed(source.content) as code:
        present = present_fleet(settings, code.unsent())
    plans = []
    for wanted in source.content.apps:
        plan = planned(wanted, present, code.digests)
        if isinstance(plan, Outcome):
            raise CliError(ExitCode.USAGE, f"{plan.app}: {plan.message}")
        plans.append(plan)
    return plans


def apply_file(
    settings: Settings,
    path: Path,
    env_name: str,
    only: str,
    *,
    dry_run: bool = False,
    prune: bool = False,
    supersede: bool = False,
) -> None:
    """Raises CliError where something is not as the file says in the end."""
    output = Output(settings)
    source = _source(output, path, env_name, only)
    with packed(source.content) as code:
        present = present_fleet(settings, code.unsent())
        named = {wanted.name for wanted in source.content.apps}
        others = sorted(app.name for app in present.apps if app.name not in named)
        plans = [planned(wanted, present, code.digests) for wanted in source.content.apps]
        if dry_run:
            _show(output, plans, others if prune else ())
            blocked = [plan for plan in plans if isinstance(plan, Outcome)]
            if blocked:
                raise CliError(blocked[0].code, f"{blocked[0].app}: {blocked[0].message}")
            return
        if prune and others:
            output.confirm(f"Remove what is not in {source.content.file}: {', '.join(others)}?")
        run = Apply(settings, output, supersede, code.archives)
        run.carry_out(plans, present.apps)
        if prune:
            run.remove(others)
        run.conclude(source.content.file, () if prune else others)


def _source(output: Output, path: Path, env_name: str, only: str) -> Source:
    """With PM2's warnings told."""
    names = tuple(name.strip() for name in only.split(",") if name.strip())
    source = load(path, env_name, names)
    for warning in source.warnings:
        output.note(f"{path.name}: {warning}")
    sys.stderr.flush()
    return source


def _show(output: Output, plans: Sequence[Plan | Outcome], removed: Sequence[str]) -> None:
    if output.settings.structured:
        output.document([*map(difference_view, plans), *({"app": app, "change": "remove"} for app in removed)])
        return
    rows: list[list[str]] = []
    for plan in plans:
        if isinstance(plan, Outcome):
            rows.append([plan.app, "fail", plan.message])
        elif plan.verdict is not Verdict.SAME:
            verb = f"{plan.verdict}, replacing its workers" if plan.replaces_workers else plan.verdict.value
            rows += [
                [plan.app if not index else "", verb if not index else "", line]
                for index, line in enumerate(plan.differences)
            ]
    rows += [[app, "remove", "not in the file"] for app in removed]
    if output.settings.quiet:
        output.names(dict.fromkeys(row[0] for row in rows if row[0]))
    elif rows:
        output.table(_COLUMNS, rows)
    else:
        output.line(f"{count(len(plans), 'app')}, nothing differs")
