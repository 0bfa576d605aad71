"""`host`: the hosts, what each may take, its labels, and forgetting one. `host drain` lies beside this."""

from collections.abc import Iterable
from typing import Any

import click
from rich.text import Text

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.command import fleet_command
from fleetctl.connection import Connection
from fleetctl.drain import drain
from fleetctl.event_loop import run
from fleetctl.names import complete_hosts, complete_labels
from fleetctl.operation import new_request_id
from fleetctl.output import Column, Output, state
from fleetctl.settings import Settings
from fleetctl.wording import count, duration

_COLUMNS = (
    Column("HOST"),
    Column("STATE"),
    Column("SCHEDULING"),
    Column("CPUS", right=True, rank=2),
    Column("WORKERS", right=True),
    Column("ADDRESS", rank=1),
    Column("AGENT", rank=4),
    Column("LABELS", rank=3),
)


class _LabelType(click.ParamType[tuple[str, str | None]]):
    """KEY=VALUE, or KEY- for (KEY, None)."""

    name = "K=V"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str | None]:
        if isinstance(value, tuple):
            return value
        key, equals, content = value.partition("=")
        if equals and key and content:
            return key, content
        if equals or not key.endswith("-") or key == "-":
            self.fail(f"{value!r} is neither KEY=VALUE nor KEY-, which takes it away", param, ctx)
        return key[:-1], None


@click.group("host")
def host() -> None:
    """The hosts: list them, drain one, label one."""


@fleet_command("ls")
def ls(settings: Settings) -> None:
    """List the hosts."""
    output = Output(settings)
    hosts = sorted(run(_fetch(settings)), key=lambda host: host.name)
    if settings.structured:
        output.document([views.host_view(host) for host in hosts])
    elif settings.quiet:
        output.names(host.name for host in hosts)
    elif not hosts:
        output.line("no hosts yet: fleetctl up --hosts 3 starts a fleet on this machine")
    else:
        output.table(_COLUMNS, [_row(host) for host in hosts])
        for shown in hosts:
            for notice in shown.notices:
                output.paragraph(f"! {shown.name}: {notice}", indent=0, style="yellow")


@fleet_command("cordon")
@click.argument("host", shell_complete=complete_hosts)
def cordon(settings: Settings, host: str) -> None:
    """Place nothing new on a host; what runs there goes on."""
    changed = _cordon(settings, host, cordoned=True)
    if changed is None:
        return
    output = Output(settings)
    if changed.scheduling == control_pb2.HOST_SCHEDULING_DRAINING:
        output.line(
            (host, "bold"), f" is being drained, so it takes nothing new: `fleetctl host uncordon {host}` calls it off"
        )
    else:
        output.line(
            (host, "bold"),
            f" cordoned: its {count(changed.workers, 'worker')} run on; `fleetctl host uncordon {host}` opens it again",
        )


@fleet_command("uncordon")
@click.argument("host", shell_complete=complete_hosts)
def uncordon(settings: Settings, host: str) -> None:
    """Let a host take new workers again; calls a drain off.

    What moved away stays where it is. For each app of which others have at least two workers more than this host, the command is
    shown that spreads it evenly again: `fleetctl set-size` with the size it has.
    """
    opened = _cordon(settings, host, cordoned=False)
    if opened is None:
        return
    output = Output(settings)
    output.line((host, "bold"), " open: it takes new workers again")
    for app in uneven(run(_fetch_apps(settings)), opened):
        output.line(f"  {app.name} would be more even: `fleetctl set-size {app.name} {app.size}` spreads it again")


@fleet_command("label")
@click.argument("host", shell_complete=complete_hosts)
@click.argument(
    "labels", metavar="KEY=VALUE|KEY-...", nargs=-1, required=True, type=_LabelType(), shell_complete=complete_labels
)
def label(settings: Settings, host: str, labels: tuple[tuple[str, str | None], ...]) -> None:
    """Set labels of a host, or take them away with KEY-.

    They win over those of the agent's configuration. `fleetctl start --host-label KEY=VALUE` places an app by them.
    """
    to_set = {key: value for key, value in labels if value is not None}
    unset = dict.fromkeys(key for key, value in labels if value is None)
    both = sorted({*to_set} & {*unset})
    if both:
        raise click.UsageError(f"{', '.join(both)}: set it or take it away, not both", click.get_current_context())
    request = control_pb2.LabelHostRequest(request_id=new_request_id(), host=host, set=to_set, unset=unset)

    async def change() -> control_pb2.Host:
        async with Connection.open(settings) as connection:
            return (await connection.call(lambda stub: stub.LabelHost, request, mutation=True)).host

    changed = _tell_structured(settings, run(change()))
    if changed is not None:
        Output(settings).line(
            (host, "bold"), f" is labelled {_labels(changed)}" if changed.labels else " has no labels"
        )


@fleet_command("remove")
@click.argument("host", shell_complete=complete_hosts)
def remove(settings: Settings, host: str) -> None:
    """Forget a host that is gone.

    Drain it and stop its agent first. An agent that connects again registers it anew.
    """
    output = Output(settings)
    output.confirm(f"Forget {host}, its labels and its cordon?")
    request = control_pb2.RemoveHostRequest(request_id=new_request_id(), host=host)

    async def forget() -> None:
        async with Connection.open(settings) as connection:
            await connection.call(lambda stub: stub.RemoveHost, request, mutation=True)

    run(forget())
    if settings.structured:
        output.document({"host": host, "state": "removed"})
    elif not settings.quiet:
        output.line((host, "bold"), " removed")


for _command in (ls, cordon, uncordon, drain, label, remove):
    host.add_command(_command)


def uneven(apps: Iterable[control_pb2.App], host: control_pb2.Host) -> list[control_pb2.App]:
    """Floating apps that `host` may run, and of which it has fewer workers than an even spread would give it."""
    return [
        app
        for app in sorted(apps, key=lambda app: app.name)
        if app.state == control_pb2.APP_STATE_RUNNING
        and app.size_mode == control_pb2.SIZE_MODE_FLOATING
        and all(host.labels.get(key) == value for key, value in app.spec.placement.labels.items())
        and max(app.placement.values(), default=0) - app.placement.get(host.name, 0) > 1
    ]


def _row(host: control_pb2.Host) -> list[str | Text]:
    word = views.host_state(host)
    away = f" for {duration(int(host.unheard_seconds))}" if host.unheard_seconds >= 1 else ""
    return [
        host.name,
        Text(f"{word}{away}", "red") if away else state(word),
        state(views.scheduling(host)),
        str(host.cpus),
        str(host.workers),
        host.address or "-",
        host.agent_version or "-",
        _labels(host) or "-",
    ]


def _labels(host: control_pb2.Host) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(host.labels.items()))


def _cordon(settings: Settings, host: str, *, cordoned: bool) -> control_pb2.Host | None:
    request = control_pb2.CordonHostRequest(request_id=new_request_id(), host=host, cordoned=cordoned)

    async def change() -> control_pb2.Host:
        async with Connection.open(settings) as connection:
            return (await connection.call(lambda stub: stub.CordonHost, request, mutation=True)).host

    return _tell_structured(settings, run(change()))


def _tell_structured(settings: Settings, changed: control_pb2.Host) -> control_pb2.Host | None:
    """The host, where people want to be told about it."""
    if settings.structured:
        Output(settings).document(views.host_view(changed))
        return None
    return None if settings.quiet else changed


async def _fetch_apps(settings: Settings) -> list[control_pb2.App]:
    async with Connection.open(settings) as connection:
        return list((await connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest())).apps)


async def _fetch(settings: Settings) -> list[control_pb2.Host]:
    async with Connection.open(settings) as connection:
        return list((await connection.call(lambda stub: stub.ListHosts, control_pb2.ListHostsRequest())).hosts)
