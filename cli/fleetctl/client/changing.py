"""Calls that change apps. Each returns at once with the rollout it began; `wait` tells when what was asked for is true."""

from collections.abc import Mapping
from typing import Unpack

from fleet.v1 import control_pb2, types_pb2
from fleet_core.spec import AppSpec
from fleetctl import views
from fleetctl.client.base import Part, options, translated
from fleetctl.client.connection import Connection
from fleetctl.client.errors import Refused, UsageError
from fleetctl.client.handles import AsyncRollout
from fleetctl.client.rollouts import new_request_id
from fleetctl.client.size import Size
from fleetctl.client.spec import Names, SpecFields, checked_spec, names_of, slot_of, spec_of, texts_of
from fleetctl.client.values import SizePlan, from_view


class Changing(Part):
    async def start(
        self,
        app: AppSpec | str,
        argv: Names = (),
        *,
        size: int | str | None = None,
        hosts: Names = (),
        http: str = "",
        supersede: bool = False,
        ignore_balancers: Names = (),
        **fields: Unpack[SpecFields],
    ) -> AsyncRollout:
        """Create and start an app, or start a stopped one again.

        `start("my-app")` starts an app that exists; `start("my-app", ["node", "server.js"], http=":8080", cwd="/srv/app")` makes
        one as `fleetctl start` does, from a script or a command of this machine; `start(AppSpec(…))` takes all as it is.
        `size`: workers in all, or "cpu" for one per core; `hosts`: on these only. Raises InvalidSpec.
        """
        amount = None if size is None else size_to_start(size)
        request = control_pb2.StartAppRequest(
            request_id=new_request_id(), hosts=names_of(hosts), options=options(supersede, ignore_balancers)
        )
        with translated():
            request.spec.CopyFrom(_meant(app, argv, http, fields))
        request.size = await workers_to_start(self._connection, amount, tuple(request.hosts))
        return await self._begin(request)

    async def set_size(
        self,
        app: str,
        size: int | str,
        *,
        host: str = "",
        allow_shrinking_others: bool = False,
        supersede: bool = False,
        ignore_balancers: Names = (),
    ) -> AsyncRollout:
        """Change how many workers an app has: 8 in all, "+2", or "cpu" for one per core.

        With `host` only that host changes, which pins the app's workers to their hosts. Without, they are spread evenly; where
        that takes workers from hosts of a pinned app, it is Refused unless `allow_shrinking_others`.
        """
        request = control_pb2.SetSizeRequest(
            request_id=new_request_id(),
            app=app,
            change=_size(size).to_proto(),
            host=host,
            allow_shrinking_others=allow_shrinking_others,
            options=options(supersede, ignore_balancers),
        )
        return await self._begin(request)

    async def plan_size(self, app: str, size: int | str, *, host: str = "") -> SizePlan:
        """What `set_size` would do; changes nothing."""
        request = control_pb2.SetSizeRequest(
            request_id=new_request_id(), app=app, change=_size(size).to_proto(), host=host, dry_run=True
        )
        answer = await self._connection.call(lambda stub: stub.SetSize, request)
        return from_view(views.size_plan_view(app, answer), SizePlan)

    async def soft_restart(
        self, app: str, *, worker: str = "", supersede: bool = False, ignore_balancers: Names = ()
    ) -> AsyncRollout:
        """Replace an app's workers one by one, losing no request; with `worker` ("my-app/prod1/3") that one alone."""
        return await self.restart(app, worker=worker, supersede=supersede, ignore_balancers=ignore_balancers)

    async def restart(
        self,
        app: str,
        *,
        now: bool = False,
        worker: str = "",
        supersede: bool = False,
        ignore_balancers: Names = (),
    ) -> AsyncRollout:
        """Restart an app, softly; with `now` all at once, failing the requests in flight."""
        request = control_pb2.RestartAppRequest(
            request_id=new_request_id(), app=app, now=now, options=options(supersede, ignore_balancers)
        )
        if worker:
            slot = slot_of(worker, app)
            request.host, request.slot = slot.host, slot.slot
        return await self._begin(request)

    async def stop(
        self, app: str, *, now: bool = False, supersede: bool = False, ignore_balancers: Names = ()
    ) -> AsyncRollout:
        """Drain and stop an app's workers; the app and its size stay. `now` skips draining."""
        request = control_pb2.StopAppRequest(
            request_id=new_request_id(), app=app, now=now, options=options(supersede, ignore_balancers)
        )
        return await self._begin(request)

    async def remove(
        self, app: str, *, now: bool = False, supersede: bool = False, ignore_balancers: Names = ()
    ) -> AsyncRollout:
        """Stop an app and forget it. `now` skips draining."""
        request = control_pb2.RemoveAppRequest(
            request_id=new_request_id(), app=app, now=now, options=options(supersede, ignore_balancers)
        )
        return await self._begin(request)

    async def env_set(
        self,
        app: str,
        variables: Mapping[str, str],
        *,
        supersede: bool = False,
        ignore_balancers: Names = (),
    ) -> AsyncRollout:
        """Set variables of an app: a new revision, rolled out. Other variables stay."""
        if not variables:
            raise UsageError("say what to set: a mapping of names to values")
        change = control_pb2.EnvironmentChange(set=texts_of("variable", variables))
        return await self._environment(
            app, change, f"env-set {' '.join(sorted(variables))}", supersede, ignore_balancers
        )

    async def env_unset(
        self, app: str, names: Names, *, supersede: bool = False, ignore_balancers: Names = ()
    ) -> AsyncRollout:
        """Take variables of an app away: a new revision, rolled out."""
        change = control_pb2.EnvironmentChange(unset=dict.fromkeys(names_of(names)))
        if not change.unset:
            raise UsageError("say what to take away: names of variables")
        return await self._environment(
            app, change, f"env-unset {' '.join(sorted(change.unset))}", supersede, ignore_balancers
        )

    async def update(
        self,
        spec: AppSpec,
        *,
        expected_revision: int = 0,
        cause: str = "",
        supersede: bool = False,
        ignore_balancers: Names = (),
    ) -> AsyncRollout:
        """Give an app another spec: a new revision, rolled out. Raises InvalidSpec.

        `expected_revision`: Refused unless the app is at it; `cause` is told by `history`. To change a field of what there is:
        `update(msgspec.structs.replace(client.spec("my-app"), cron_restart="0 3 * * *"))`.
        """
        request = control_pb2.UpdateAppRequest(
            request_id=new_request_id(),
            app=spec.name,
            spec=checked_spec(spec).to_proto(),
            expected_revision=expected_revision,
            cause=cause,
            options=options(supersede, ignore_balancers),
        )
        return await self._begin(request, may_change_nothing=True)

    async def rollback(
        self, app: str, revision: int = 0, *, supersede: bool = False, ignore_balancers: Names = ()
    ) -> AsyncRollout:
        """Roll an earlier revision out again; 0: the last good one before the present one."""
        if not 0 <= revision < 2**63:
            raise UsageError(f"revision {revision} is not valid: they are numbered from 1")
        request = control_pb2.RollbackAppRequest(
            request_id=new_request_id(), app=app, revision=revision, options=options(supersede, ignore_balancers)
        )
        return await self._begin(request)

    async def _environment(
        self,
        app: str,
        change: control_pb2.EnvironmentChange,
        cause: str,
        supersede: bool,  # noqa: FBT001
        ignore_balancers: Names,
    ) -> AsyncRollout:
        request = control_pb2.UpdateAppRequest(
            request_id=new_request_id(),
            app=app,
            environment=change,
            cause=cause,
            options=options(supersede, ignore_balancers),
        )
        return await self._begin(request, may_change_nothing=True)


def _meant(app: AppSpec | str, argv: Names, http: str, fields: SpecFields) -> types_pb2.AppSpec:
    described = bool(argv or http or fields)
    if isinstance(app, AppSpec):
        if described:
            raise UsageError("an AppSpec says everything: give no argv, http or other fields beside it")
        return checked_spec(app).to_proto()
    if not described:
        return types_pb2.AppSpec(name=app)
    return spec_of(app, argv, http, fields).to_proto()


def size_to_start(size: int | str) -> Size:
    """Of a new app. Raises UsageError."""
    amount = _size(size)
    if not amount.absolute and amount != Size():
        raise UsageError(f"size {size!r} is not valid: the size to start with is at least 1, or 'cpu'")
    return amount


def _size(size: int | str) -> Size:
    """Raises UsageError."""
    try:
        return Size.parse(str(size))
    except ValueError as error:
        raise UsageError(str(error)) from error


async def workers_to_start(connection: Connection, size: Size | None, hosts: tuple[str, ...]) -> int:
    """How many that is; 0 lets the controller choose. Raises FleetError."""
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
        raise Refused("no such host is online, so there are no cores to count", "`fleetctl host ls` shows them")
    return cpus
