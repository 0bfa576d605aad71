"""Completion of names in a shell: apps, hosts, workers and what they have, as the controller knows them.

A shell waits while this runs: whatever does not answer at once completes to nothing, without a word.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import click
from click.shell_completion import CompletionItem

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.command import GLOBAL_NAMES
from fleetctl.connection import Connection
from fleetctl.errors import FleetError
from fleetctl.settings import Settings

_PATIENCE_SECONDS = 0.5

Ask = Callable[[Connection], Awaitable[Iterable[str]]]


def complete_apps(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _known(ctx, incomplete, _apps)


def complete_hosts(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _known(ctx, incomplete, _hosts)


def complete_workers(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _known(ctx, incomplete, _workers)


def complete_controllers(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _known(ctx, incomplete, _controllers)


def complete_balancers(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _known(ctx, incomplete, _balancers)


def complete_revisions(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Of the app named before."""
    return _known(ctx, incomplete, partial(_revisions, ctx.params.get("app") or ""))


def complete_variables(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What the app named before sets in its environment."""
    return _known(ctx, incomplete, partial(_variables, ctx.params.get("app") or ""))


def complete_settings(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The same variables, up to where their new value is typed."""
    return [CompletionItem(f"{item.value}=") for item in complete_variables(ctx, _param, incomplete)]


def complete_labels(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Labels of the host named before: KEY= to change one, KEY- to take it away."""
    return _known(ctx, incomplete, partial(_labels, ctx.params.get("host") or ""))


def complete_targets(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A file, or an app that can be started again."""
    return [CompletionItem(incomplete, type="file"), *complete_apps(ctx, _param, incomplete)]


async def _apps(connection: Connection) -> Iterable[str]:
    response = await connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest())
    return (app.name for app in response.apps)


async def _hosts(connection: Connection) -> Iterable[str]:
    response = await connection.call(lambda stub: stub.ListHosts, control_pb2.ListHostsRequest())
    return (host.name for host in response.hosts)


async def _workers(connection: Connection) -> Iterable[str]:
    response = await connection.call(lambda stub: stub.ListWorkers, control_pb2.ListWorkersRequest())
    return (views.worker_name(worker.id) for worker in response.workers)


async def _controllers(connection: Connection) -> Iterable[str]:
    response = await connection.call(lambda stub: stub.ListControllers, control_pb2.ListControllersRequest())
    return (controller.name for controller in response.registered)


async def _balancers(connection: Connection) -> Iterable[str]:
    response = await connection.call(lambda stub: stub.ListBalancers, control_pb2.ListBalancersRequest())
    return (balancer.name for balancer in response.balancers)


async def _revisions(app: str, connection: Connection) -> Iterable[str]:
    response = await connection.call(lambda stub: stub.GetHistory, control_pb2.GetHistoryRequest(app=app))
    return (str(summary.revision.number) for summary in response.revisions if not summary.current)


async def _variables(app: str, connection: Connection) -> Iterable[str]:
    response = await connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest(app=app))
    return (name for known in response.apps if known.name == app for name in known.spec.env)


async def _labels(name: str, connection: Connection) -> Iterable[str]:
    response = await connection.call(lambda stub: stub.ListHosts, control_pb2.ListHostsRequest())
    labels = (key for host in response.hosts if host.name == name for key in host.labels)
    return (f"{key}{sign}" for key in labels for sign in "=-")


def _known(ctx: click.Context, incomplete: str, ask: Ask) -> list[CompletionItem]:
    settings = Settings()
    for given in (ctx.find_root().params, ctx.params):
        settings = settings.overridden({name: given.get(name) for name in GLOBAL_NAMES})
    try:
        names = asyncio.run(_answer(settings, ask))
    except (FleetError, TimeoutError):
        return []
    return [CompletionItem(name) for name in sorted(set(names)) if name.startswith(incomplete)]


async def _answer(settings: Settings, ask: Ask) -> list[str]:
    async with asyncio.timeout(_PATIENCE_SECONDS), Connection.open(settings) as connection:
        return list(await ask(connection))
