"""Calls that change nothing."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Literal

from fleet.v1 import control_pb2
from fleet_core.spec import AppSpec
from fleetctl import views
from fleetctl.client.base import Part
from fleetctl.client.errors import NotFound, StillRunning, UnavailableError, UsageError
from fleetctl.client.handles import AsyncRollout, deadline_in, trouble, until
from fleetctl.client.log_stream import MOST_LINES, UNFOLLOWED_SECONDS, USUAL_LINES, log_stream
from fleetctl.client.overview import overview, overview_view, snapshot_of
from fleetctl.client.rollouts import newest_rollout
from fleetctl.client.spec import known_spec, slot_of
from fleetctl.client.values import (
    App,
    Balancer,
    History,
    Host,
    Info,
    LogLine,
    Sample,
    Status,
    Upstream,
    Worker,
    from_view,
)
from fleetctl.usage import Order, by_name, snapshot_view
from fleetctl.wording import count, duration

_SHORTEST_SECONDS = 0.1


class Looking(Part):
    async def info(self) -> Info:
        """The controller that leads, and etcd behind it."""
        answer = await self._connection.call(lambda stub: stub.GetInfo, control_pb2.GetInfoRequest())
        return from_view(views.info_view(answer), Info)

    async def apps(self) -> tuple[App, ...]:
        """All apps, by name."""
        answer = await self._connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest())
        return tuple(from_view(views.app_view(app), App) for app in sorted(answer.apps, key=lambda app: app.name))

    async def app(self, name: str) -> App:
        """One app. Raises NotFound."""
        return from_view(views.app_view(await self._app(name)), App)

    async def spec(self, app: str) -> AppSpec:
        """Everything that makes the app's workers what they are, of its present revision. Raises NotFound."""
        return known_spec((await self._app(app)).spec)

    async def status(self, app: str = "") -> Status:
        """The fleet, or one app of it, with its workers and what to do next. Raises NotFound."""
        return from_view(overview_view(await overview(self._connection, app)), Status)

    async def workers(self, app: str = "") -> tuple[Worker, ...]:
        """All workers, or those of one app, by name. Raises NotFound."""
        request = control_pb2.ListWorkersRequest(app=app)
        answer = await self._connection.call(lambda stub: stub.ListWorkers, request)
        return tuple(from_view(views.worker_view(worker), Worker) for worker in by_name(answer.workers))

    async def hosts(self) -> tuple[Host, ...]:
        """All hosts, by name."""
        answer = await self._connection.call(lambda stub: stub.ListHosts, control_pb2.ListHostsRequest())
        return tuple(
            from_view(views.host_view(host), Host) for host in sorted(answer.hosts, key=lambda host: host.name)
        )

    async def host(self, name: str) -> Host:
        """One host. Raises NotFound."""
        for host in await self.hosts():
            if host.name == name:
                return host
        raise NotFound(f"no host is named {name}", "`fleetctl host ls` shows the hosts")

    async def balancers(self) -> tuple[Balancer, ...]:
        """All balancers, by name."""
        answer = await self._connection.call(lambda stub: stub.ListBalancers, control_pb2.ListBalancersRequest())
        known = sorted(answer.balancers, key=lambda balancer: balancer.name)
        return tuple(from_view(views.balancer_view(balancer), Balancer) for balancer in known)

    async def upstreams(self, app: str = "") -> tuple[Upstream, ...]:
        """Where the balancers send requests, and who has applied it."""
        request = control_pb2.ListUpstreamsRequest(app=app)
        answer = await self._connection.call(lambda stub: stub.ListUpstreams, request)
        known = sorted(answer.upstreams, key=lambda upstream: upstream.pool)
        return tuple(from_view(views.upstream_view(upstream), Upstream) for upstream in known)

    async def env_get(self, app: str) -> Mapping[str, str]:
        """The variables an app sets; not those of env files, hosts and single workers. Raises NotFound."""
        return dict(sorted((await self._app(app)).spec.env.items()))

    async def history(self, app: str) -> History:
        """An app's revisions and rollouts, the oldest first. Raises NotFound."""
        answer = await self._connection.call(lambda stub: stub.GetHistory, control_pb2.GetHistoryRequest(app=app))
        view = {
            "app": app,
            "revisions": [views.revision_view(summary) for summary in answer.revisions],
            "rollouts": [views.rollout_view(rollout) for rollout in answer.rollouts],
        }
        return from_view(view, History)

    async def rollout(self, app: str) -> AsyncRollout:
        """The app's newest rollout, to be followed or steered. Raises NotFound, also where there was none."""
        return AsyncRollout(self._connection, await newest_rollout(self._connection, app))

    async def sample(
        self, app: str = "", *, sort: Literal["cpu", "memory", "uptime", "restarts", "name"] = "cpu"
    ) -> Sample:
        """Who uses what, now: `top`, once."""
        snapshot = await snapshot_of(self._connection, app)
        return from_view(snapshot_view(snapshot, Order[sort.upper()]), Sample)

    async def samples(
        self,
        app: str = "",
        *,
        interval: float = 2.0,
        sort: Literal["cpu", "memory", "uptime", "restarts", "name"] = "cpu",
    ) -> AsyncGenerator[Sample, None]:
        """Who uses what, every `interval` seconds, until you stop; a controller that is lost meanwhile is awaited."""
        if not interval >= _SHORTEST_SECONDS:
            raise UsageError(f"interval {interval!r} is too short: give 0.1 or more")
        yield await self.sample(app, sort=sort)
        tell = trouble()
        while True:
            await asyncio.sleep(interval)
            try:
                sample = await self.sample(app, sort=sort)
            except UnavailableError as error:
                tell(f"{error.message.partition(';')[0]}: no samples until one is back")
            else:
                yield sample

    async def logs(
        self,
        app: str = "",
        *,
        follow: bool = False,
        lines: int | None = None,
        since: float | None = None,
        host: str = "",
        worker: str = "",
        timeout: float | None = None,
    ) -> AsyncGenerator[LogLine, None]:
        """What workers printed, merged as it comes.

        `lines`: the last so many of each worker's streams (default: 20, or all with `since`); `since`: printed in the last so
        many seconds; `worker`: "my-app/prod1/3" alone. With `follow` it goes on until you stop, or `timeout` seconds have
        passed, which is no error then; else what there is must be here within `timeout` (60), or StillRunning is raised.
        Hosts that cannot be asked, and a controller that is away, are warned of in the log "fleetctl".
        """
        async for batch in self._log_batches(
            app, follow=follow, lines=lines, since=since, host=host, worker=worker, timeout=timeout
        ):
            for line in batch:
                yield line

    async def _log_batches(
        self,
        app: str,
        *,
        follow: bool,
        lines: int | None,
        since: float | None,
        host: str,
        worker: str,
        timeout: float | None,
    ) -> AsyncGenerator[tuple[LogLine, ...], None]:
        if lines is None:
            lines = MOST_LINES if since else USUAL_LINES
        if not 0 <= lines <= MOST_LINES:
            raise UsageError(f"lines {lines} is not valid: give 0 to {MOST_LINES}")
        if since is not None and not since > 0:
            raise UsageError(f"since {since} is not valid: give a number of seconds above 0")
        request = control_pb2.StreamLogsRequest(
            app=app, host=host, lines=lines, follow=follow, since_seconds=since or 0
        )
        if worker:
            slot = slot_of(worker, app)
            if host and host != slot.host:
                raise UsageError(f"worker {worker} is not on {host}")
            request.app, request.host, request.slot = slot.app, slot.host, slot.slot
        limit = timeout if timeout is not None else None if follow else UNFOLLOWED_SECONDS
        tell, missed = trouble(), set[str]()
        responses = log_stream(self._connection, request, tell)
        try:
            async with aclosing(responses if limit is None else until(deadline_in(limit), responses)) as stream:
                async for response in stream:
                    new = set(response.unreachable_hosts) - missed
                    if new:
                        missed |= new
                        tell(f"{count(len(new), 'host')} could not be asked: {', '.join(sorted(new))}")
                    yield tuple(from_view(views.log_view(entry), LogLine) for entry in response.entries)
        except TimeoutError:
            if not follow:
                text = f"the hosts did not send all lines within {duration(limit or 0)}: ask for fewer"
                raise StillRunning(text) from None
