"""`Client`: the calls of the command line, for programs without an event loop.

Written by scripts/sync_client.py from the asynchronous calls: `make sync-client`.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Literal, Self, Unpack

from fleet_core.spec import AppSpec
from fleetctl.client.calls import CALL_SECONDS, AsyncClient
from fleetctl.client.controller_values import Backup, Controller, Restored
from fleetctl.client.handles import AsyncDrain, AsyncRollout
from fleetctl.client.portal import Portal, PortalOwner
from fleetctl.client.rollouts import (
    WAIT_SECONDS,
)
from fleetctl.client.spec import (
    DeployFields,
    Names,
    SpecFields,
)
from fleetctl.client.values import (
    App,
    Applied,
    Balancer,
    Difference,
    DrainStatus,
    History,
    Host,
    Info,
    LogLine,
    RolloutStatus,
    Sample,
    SizePlan,
    Status,
    Upstream,
    Worker,
)


class Rollout:
    """A rollout of an app, as an operation began it. Dropping it changes nothing: the rollout goes on."""

    def __init__(self, portal: Portal, wrapped: AsyncRollout) -> None:
        self._portal = portal
        self._wrapped = wrapped

    def __repr__(self) -> str:
        return repr(self._wrapped).replace("AsyncRollout", type(self).__name__)

    @property
    def id(self) -> str:
        return self._wrapped.id

    @property
    def app(self) -> str:
        return self._wrapped.app

    @property
    def status(self) -> RolloutStatus:
        """How far it was when something was last heard of it; asks nobody."""
        return self._wrapped.status

    @property
    def changed(self) -> bool:
        """False: the app was as asked already, and `status` is that of an older rollout."""
        return self._wrapped.changed

    def refresh(self) -> RolloutStatus:
        """Ask how far it is."""
        return self._portal.call(self._wrapped.refresh())

    def wait(self, timeout: float = WAIT_SECONDS) -> RolloutStatus:
        """Return when what was asked for is true.

        Raises RolloutFailed when it ends otherwise, RolloutTimeout after `timeout` seconds; the rollout goes on then. A
        controller that is lost meanwhile is awaited.
        """
        return self._portal.call(self._wrapped.wait(timeout))

    def events(self, timeout: float = WAIT_SECONDS) -> Generator[RolloutStatus, None, None]:
        """Its present state, then each change up to its end, whatever that is. Raises RolloutTimeout after `timeout` seconds."""
        return self._portal.iterate(self._wrapped.events(timeout))

    def pause(self) -> RolloutStatus:
        """Begin no further step; steps under way end."""
        return self._portal.call(self._wrapped.pause())

    def resume(self) -> RolloutStatus:
        """Go on; a worker at which it stopped gets a successor."""
        return self._portal.call(self._wrapped.resume())

    def promote(self) -> RolloutStatus:
        """The canaries are good: go on."""
        return self._portal.call(self._wrapped.promote())

    def abort(self) -> RolloutStatus:
        """Go back to what ran before; `wait` returns from now on when that runs again."""
        return self._portal.call(self._wrapped.abort())


class Drain:
    """A host whose workers are being moved away. Dropping it changes nothing: the drain goes on."""

    def __init__(self, portal: Portal, wrapped: AsyncDrain) -> None:
        self._portal = portal
        self._wrapped = wrapped

    def __repr__(self) -> str:
        return repr(self._wrapped).replace("AsyncDrain", type(self).__name__)

    @property
    def host(self) -> str:
        return self._wrapped.host

    @property
    def status(self) -> DrainStatus:
        """How far it was when something was last heard of it; asks nobody."""
        return self._wrapped.status

    def wait(self, timeout: float = WAIT_SECONDS) -> DrainStatus:
        """Return when no worker is left there. Raises DrainFailed when it is called off, StillRunning after `timeout` seconds."""
        return self._portal.call(self._wrapped.wait(timeout))

    def events(self, timeout: float = WAIT_SECONDS) -> Generator[DrainStatus, None, None]:
        """Its present state, then each change until nothing is left or it is called off. Raises StillRunning after `timeout`
        seconds.
        """
        return self._portal.iterate(self._wrapped.events(timeout))


class Client(PortalOwner):
    """A fleet. Use it as a context manager, from any number of threads; it connects when the first call is made.

    Its calls run in an event loop in a thread of its own, which `close` ends; so it works beside a running loop, too. Calls find
    the controller that leads, ask for another while none does for some seconds, and have a deadline of `call_timeout` seconds.
    They raise FleetError: NotFound, Refused, Unreachable, UsageError, RolloutFailed, RolloutTimeout, …
    """

    def __init__(
        self,
        controllers: str | Iterable[str] = (),
        *,
        context: str | None = None,
        certificates: str | Path | None = None,
        call_timeout: float = CALL_SECONDS,
    ) -> None:
        """Without arguments, the fleet that fleetctl talks to.

        `controllers`: "HOST:PORT[,HOST:PORT]", or a list; `certificates`: the folder that `fleetctl cert issue operator NAME`
        made; `context`: a fleet that fleetctl knows, instead of the current one.
        """
        self._wrapped = AsyncClient(controllers, context=context, certificates=certificates, call_timeout=call_timeout)
        super().__init__(self._wrapped.aclose)

    @classmethod
    def from_context(cls, name: str, *, call_timeout: float = CALL_SECONDS) -> Self:
        """The fleet that fleetctl knows by this name."""
        return cls(context=name, call_timeout=call_timeout)

    def info(self) -> Info:
        """The controller that leads, and etcd behind it."""
        return self._portal.call(self._wrapped.info())

    def apps(self) -> tuple[App, ...]:
        """All apps, by name."""
        return self._portal.call(self._wrapped.apps())

    def app(self, name: str) -> App:
        """One app. Raises NotFound."""
        return self._portal.call(self._wrapped.app(name))

    def spec(self, app: str) -> AppSpec:
        """Everything that makes the app's workers what they are, of its present revision. Raises NotFound."""
        return self._portal.call(self._wrapped.spec(app))

    def status(self, app: str = "") -> Status:
        """The fleet, or one app of it, with its workers and what to do next. Raises NotFound."""
        return self._portal.call(self._wrapped.status(app))

    def workers(self, app: str = "") -> tuple[Worker, ...]:
        """All workers, or those of one app, by name. Raises NotFound."""
        return self._portal.call(self._wrapped.workers(app))

    def hosts(self) -> tuple[Host, ...]:
        """All hosts, by name."""
        return self._portal.call(self._wrapped.hosts())

    def host(self, name: str) -> Host:
        """One host. Raises NotFound."""
        return self._portal.call(self._wrapped.host(name))

    def balancers(self) -> tuple[Balancer, ...]:
        """All balancers, by name."""
        return self._portal.call(self._wrapped.balancers())

    def upstreams(self, app: str = "") -> tuple[Upstream, ...]:
        """Where the balancers send requests, and who has applied it."""
        return self._portal.call(self._wrapped.upstreams(app))

    def env_get(self, app: str) -> Mapping[str, str]:
        """The variables an app sets; not those of env files, hosts and single workers. Raises NotFound."""
        return self._portal.call(self._wrapped.env_get(app))

    def history(self, app: str) -> History:
        """An app's revisions and rollouts, the oldest first. Raises NotFound."""
        return self._portal.call(self._wrapped.history(app))

    def rollout(self, app: str) -> Rollout:
        """The app's newest rollout, to be followed or steered. Raises NotFound, also where there was none."""
        return Rollout(self._portal, self._portal.call(self._wrapped.rollout(app)))

    def sample(self, app: str = "", *, sort: Literal["cpu", "memory", "uptime", "restarts", "name"] = "cpu") -> Sample:
        """Who uses what, now: `top`, once."""
        return self._portal.call(self._wrapped.sample(app, sort=sort))

    def samples(
        self,
        app: str = "",
        *,
        interval: float = 2.0,
        sort: Literal["cpu", "memory", "uptime", "restarts", "name"] = "cpu",
    ) -> Generator[Sample, None, None]:
        """Who uses what, every `interval` seconds, until you stop; a controller that is lost meanwhile is awaited."""
        return self._portal.iterate(self._wrapped.samples(app, interval=interval, sort=sort))

    def logs(
        self,
        app: str = "",
        *,
        follow: bool = False,
        lines: int | None = None,
        since: float | None = None,
        host: str = "",
        worker: str = "",
        timeout: float | None = None,
    ) -> Generator[LogLine, None, None]:
        """What workers printed, merged as it comes.

        `lines`: the last so many of each worker's streams (default: 20, or all with `since`); `since`: printed in the last so
        many seconds; `worker`: "my-app/prod1/3" alone. With `follow` it goes on until you stop, or `timeout` seconds have
        passed, which is no error then; else what there is must be here within `timeout` (60), or StillRunning is raised.
        Hosts that cannot be asked, and a controller that is away, are warned of in the log "fleetctl".
        """
        return self._portal.iterate_batches(
            self._wrapped._log_batches(
                app, follow=follow, lines=lines, since=since, host=host, worker=worker, timeout=timeout
            )
        )

    def start(
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
    ) -> Rollout:
        """Create and start an app, or start a stopped one again.

        `start("my-app")` starts an app that exists; `start("my-app", ["node", "server.js"], http=":8080", cwd="/srv/app")` makes
        one as `fleetctl start` does, from a script or a command of this machine; `start(AppSpec(…))` takes all as it is.
        `size`: workers in all, or "cpu" for one per core; `hosts`: on these only. Raises InvalidSpec.
        """
        return Rollout(
            self._portal,
            self._portal.call(
                self._wrapped.start(
                    app,
                    argv,
                    size=size,
                    hosts=hosts,
                    http=http,
                    supersede=supersede,
                    ignore_balancers=ignore_balancers,
                    **fields,
                )
            ),
        )

    def set_size(
        self,
        app: str,
        size: int | str,
        *,
        host: str = "",
        allow_shrinking_others: bool = False,
        supersede: bool = False,
        ignore_balancers: Names = (),
    ) -> Rollout:
        """Change how many workers an app has: 8 in all, "+2", or "cpu" for one per core.

        With `host` only that host changes, which pins the app's workers to their hosts. Without, they are spread evenly; where
        that takes workers from hosts of a pinned app, it is Refused unless `allow_shrinking_others`.
        """
        return Rollout(
            self._portal,
            self._portal.call(
                self._wrapped.set_size(
                    app,
                    size,
                    host=host,
                    allow_shrinking_others=allow_shrinking_others,
                    supersede=supersede,
                    ignore_balancers=ignore_balancers,
                )
            ),
        )

    def plan_size(self, app: str, size: int | str, *, host: str = "") -> SizePlan:
        """What `set_size` would do; changes nothing."""
        return self._portal.call(self._wrapped.plan_size(app, size, host=host))

    def soft_restart(
        self, app: str, *, worker: str = "", supersede: bool = False, ignore_balancers: Names = ()
    ) -> Rollout:
        """Replace an app's workers one by one, losing no request; with `worker` ("my-app/prod1/3") that one alone."""
        return Rollout(
            self._portal,
            self._portal.call(
                self._wrapped.soft_restart(app, worker=worker, supersede=supersede, ignore_balancers=ignore_balancers)
            ),
        )

    def restart(
        self, app: str, *, now: bool = False, worker: str = "", supersede: bool = False, ignore_balancers: Names = ()
    ) -> Rollout:
        """Restart an app, softly; with `now` all at once, failing the requests in flight."""
        return Rollout(
            self._portal,
            self._portal.call(
                self._wrapped.restart(
                    app, now=now, worker=worker, supersede=supersede, ignore_balancers=ignore_balancers
                )
            ),
        )

    def stop(self, app: str, *, now: bool = False, supersede: bool = False, ignore_balancers: Names = ()) -> Rollout:
        """Drain and stop an app's workers; the app and its size stay. `now` skips draining."""
        return Rollout(
            self._portal,
            self._portal.call(self._wrapped.stop(app, now=now, supersede=supersede, ignore_balancers=ignore_balancers)),
        )

    def remove(self, app: str, *, now: bool = False, supersede: bool = False, ignore_balancers: Names = ()) -> Rollout:
        """Stop an app and forget it. `now` skips draining."""
        return Rollout(
            self._portal,
            self._portal.call(
                self._wrapped.remove(app, now=now, supersede=supersede, ignore_balancers=ignore_balancers)
            ),
        )

    def env_set(
        self, app: str, variables: Mapping[str, str], *, supersede: bool = False, ignore_balancers: Names = ()
    ) -> Rollout:
        """Set variables of an app: a new revision, rolled out. Other variables stay."""
        return Rollout(
            self._portal,
            self._portal.call(
                self._wrapped.env_set(app, variables, supersede=supersede, ignore_balancers=ignore_balancers)
            ),
        )

    def env_unset(self, app: str, names: Names, *, supersede: bool = False, ignore_balancers: Names = ()) -> Rollout:
        """Take variables of an app away: a new revision, rolled out."""
        return Rollout(
            self._portal,
            self._portal.call(
                self._wrapped.env_unset(app, names, supersede=supersede, ignore_balancers=ignore_balancers)
            ),
        )

    def update(
        self,
        spec: AppSpec,
        *,
        expected_revision: int = 0,
        cause: str = "",
        supersede: bool = False,
        ignore_balancers: Names = (),
    ) -> Rollout:
        """Give an app another spec: a new revision, rolled out. Raises InvalidSpec.

        `expected_revision`: Refused unless the app is at it; `cause` is told by `history`. To change a field of what there is:
        `update(msgspec.structs.replace(client.spec("my-app"), cron_restart="0 3 * * *"))`.
        """
        return Rollout(
            self._portal,
            self._portal.call(
                self._wrapped.update(
                    spec,
                    expected_revision=expected_revision,
                    cause=cause,
                    supersede=supersede,
                    ignore_balancers=ignore_balancers,
                )
            ),
        )

    def rollback(
        self, app: str, revision: int = 0, *, supersede: bool = False, ignore_balancers: Names = ()
    ) -> Rollout:
        """Roll an earlier revision out again; 0: the last good one before the present one."""
        return Rollout(
            self._portal,
            self._portal.call(
                self._wrapped.rollback(app, revision, supersede=supersede, ignore_balancers=ignore_balancers)
            ),
        )

    def cordon(self, host: str) -> Host:
        """Place nothing new on a host; what runs there goes on."""
        return self._portal.call(self._wrapped.cordon(host))

    def uncordon(self, host: str) -> Host:
        """Let a host take new workers again; calls a drain off."""
        return self._portal.call(self._wrapped.uncordon(host))

    def drain(self, host: str, *, allow_stopping_pinned: bool = False) -> Drain:
        """Move a host's workers to others, start-first; it takes nothing new until `uncordon`. Returns at once.

        Refused where workers of apps that are pinned to it would stop, unless `allow_stopping_pinned`.
        """
        return Drain(
            self._portal, self._portal.call(self._wrapped.drain(host, allow_stopping_pinned=allow_stopping_pinned))
        )

    def label(self, host: str, labels: Mapping[str, str | None]) -> Host:
        """Set labels of a host; None takes one away."""
        return self._portal.call(self._wrapped.label(host, labels))

    def remove_host(self, host: str) -> None:
        """Forget a host that is gone. Refused while its agent is connected, or where an app is pinned to it."""
        self._portal.call(self._wrapped.remove_host(host))

    def remove_balancer(self, balancer: str) -> None:
        """Forget a balancer that is gone for good: rollouts wait for it no more. Refused while it is connected."""
        self._portal.call(self._wrapped.remove_balancer(balancer))

    def controllers(self) -> tuple[Controller, ...]:
        """All controllers that are named to this client or registered, by name, each asked itself, also while none leads.

        Raises Unreachable where none of them answers.
        """
        return self._portal.call(self._wrapped.controllers())

    def remove_controller(self, controller: str) -> None:
        """Forget a controller that is gone for good; one that runs comes back with its next start."""
        self._portal.call(self._wrapped.remove_controller(controller))

    def backup(self, path: str | Path) -> Backup:
        """Write what etcd holds of the fleet into a file, in whose place it comes; its owner alone may read it.

        Certificates, keys and deployed code are not inside.
        """
        return self._portal.call(self._wrapped.backup(path))

    def restore(self, path: str | Path, *, another_fleet: bool = False) -> Restored:
        """Put a backup in the place of everything that etcd holds, and wait until a controller leads in the new era.

        No worker is stopped or restarted; rollouts that were under way when it was taken are paused. `another_fleet`: also where
        etcd holds the records of another fleet, which is Refused otherwise.
        """
        return self._portal.call(self._wrapped.restore(path, another_fleet=another_fleet))

    def diff(self, path: str | Path, *, env_name: str = "", only: Names = ()) -> tuple[Difference, ...]:
        """How the apps of a fleet file, or of PM2's ecosystem file, differ from what runs; changes nothing."""
        return self._portal.call(self._wrapped.diff(path, env_name=env_name, only=only))

    def apply(
        self,
        path: str | Path,
        *,
        env_name: str = "",
        only: Names = (),
        prune: bool = False,
        supersede: bool = False,
        timeout: float = WAIT_SECONDS,
    ) -> tuple[Applied, ...]:
        """Make the apps of a file what it says, one after the other, and wait for each; `timeout` seconds in all.

        What is as the file says is left alone. `env_name`: PM2's --env; `only`: these apps of the file; `prune`: remove the apps
        that are not in it. Raises ApplyFailed, whose `apps` say what became of each.
        """
        return self._portal.call(
            self._wrapped.apply(path, env_name=env_name, only=only, prune=prune, supersede=supersede, timeout=timeout)
        )

    def export(self, apps: Names = ()) -> str:
        """A fleet file, in YAML, of the apps that run, or of those named; to apply it changes nothing. Raises NotFound."""
        return self._portal.call(self._wrapped.export(apps))

    def deploy(
        self,
        app: str,
        path: str | Path = ".",
        argv: Names = (),
        *,
        ref: str | None = None,
        npm_pack: bool = False,
        build: Names | None = None,
        no_build: bool = False,
        build_timeout: float | None = None,
        run: Names | None = None,
        size: int | str | None = None,
        hosts: Names = (),
        http: str = "",
        progress: Callable[[int, int], None] | None = None,
        supersede: bool = False,
        ignore_balancers: Names = (),
        **fields: Unpack[DeployFields],
    ) -> Rollout:
        """Send code to an app's hosts, and begin to roll it out as a new revision; returns when it is sent.

        `path`: a folder, without what its .gitignore or .npmignore leaves out, or a .tar or .tar.gz; `ref`: what git has in this
        commit instead; `npm_pack`: what `npm pack` would publish. `build`: the command that builds it on each host (default: as
        the code asks for). An app that does not exist begins with the code: `argv` is what to run in it, `size`, `hosts`, `http`
        and the fields of AppSpec are `start`'s. Of one that does, `argv` (or `run`) and fields hold from now on, variables are
        added, and `size` and `hosts` are `set_size`'s. `progress` is called with the bytes that are there, and with those there
        are, from the thread of the event loop. The same code again changes nothing.
        """
        return Rollout(
            self._portal,
            self._portal.call(
                self._wrapped.deploy(
                    app,
                    path,
                    argv,
                    ref=ref,
                    npm_pack=npm_pack,
                    build=build,
                    no_build=no_build,
                    build_timeout=build_timeout,
                    run=run,
                    size=size,
                    hosts=hosts,
                    http=http,
                    progress=progress,
                    supersede=supersede,
                    ignore_balancers=ignore_balancers,
                    **fields,
                )
            ),
        )
