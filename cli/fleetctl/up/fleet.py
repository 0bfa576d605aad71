"""One run of `fleetctl up`, from the folder's lock to the last process's end."""

import asyncio
import os
import signal
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

from fleet_core.contexts import Context, ContextError, load_contexts, save_context
from fleet_core.tls import Role, TlsFiles
from fleetctl.errors import ExitCode
from fleetctl.up.cgroups import make_host_cgroups, remove_host_cgroups
from fleetctl.up.claims import PortClaims, port_is_free
from fleetctl.up.configs import OPERATOR, Certificates, write_configs
from fleetctl.up.display import Display
from fleetctl.up.errors import UpError
from fleetctl.up.folder import LockedFolder, remove_runtime, runtime_folder
from fleetctl.up.layout import Layout, context_name, host_names, runtime_root
from fleetctl.up.manager import Manager
from fleetctl.up.plan import settle, usual_data_dir
from fleetctl.up.readiness import POLL_SECONDS, Lacking
from fleetctl.up.settings import Settings, Wanted, cgroup_of, resolve
from fleetctl.up.shutdown import Shutdown
from fleetctl.up.topology import ETCD, Programs, Topology

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WITHDRAW_GRACE_SECONDS = 10.0


class Probe(Protocol):
    """Whether the fleet as a whole works; `readiness.FleetProbe` is the real one."""

    async def lacking(self) -> Lacking | None: ...

    async def close(self) -> None: ...


class ProbeMaker(Protocol):
    def __call__(self, settings: Settings, operator: TlsFiles) -> Probe: ...


class Fleet:
    """The daemons of one data folder, and this process's hold on them."""

    def __init__(self, data_dir: Path, programs: Programs, make_probe: ProbeMaker, display: Display) -> None:
        self._data_dir = data_dir
        self._programs = programs
        self._make_probe = make_probe
        self._display = display
        self._stop = asyncio.Event()
        self._hasten = asyncio.Event()
        self._former_context = ""

    async def run(self, wanted: Wanted, start_timeout: float) -> None:
        """Until it is told to stop by SIGINT, SIGTERM or SIGHUP. Raises UpError."""
        with ExitStack() as held:
            folder = held.enter_context(closing(LockedFolder(self._data_dir)))
            claims = held.enter_context(PortClaims())
            before = folder.read_settings()
            if cgroup := cgroup_of(wanted, before):
                hosts = host_names(resolve(wanted, before)[0])
                make_host_cgroups(Path(cgroup), hosts)
                held.callback(remove_host_cgroups, Path(cgroup), hosts)
            settings = settle(folder, wanted, claims)
            root = runtime_root(self._data_dir, settings.fleet_id, os.getuid(), settings.memory)
            layout = Layout(self._data_dir, root)
            held.enter_context(runtime_folder(layout))
            try:
                certificates = Certificates(layout.certificates)
                topology = Topology(layout, settings, self._programs, certificates.get(Role.ETCD, ETCD))
                operator = certificates.get(Role.OPERATOR, OPERATOR)
                changed = write_configs(layout, settings, certificates)
                if before is not None and before.cgroup != settings.cgroup:
                    changed |= {service.name for service in topology.supervisors}
                manager = Manager(
                    topology.services, layout.notify_socket, settings.fleet_id, os.environ, self._display.event
                )
                held.callback(manager.close)
                manager.open()
            except OSError as error:
                raise UpError(f"{error.filename or self._data_dir}: {error.strerror or error}") from error
            except ValueError as error:
                raise UpError(f"{layout.certificates} is damaged ({error}): use another --data-dir") from error
            self._obey_signals()
            await self._keep(folder, topology, manager, operator, changed, start_timeout)

    def _obey_signals(self) -> None:
        def obey() -> None:
            if self._stop.is_set():
                self._hasten.set()
            self._stop.set()

        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            # nohup(1) asks for that: the terminal's end is none of ours.
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            loop.add_signal_handler(number, obey)

    async def _keep(
        self,
        folder: LockedFolder,
        topology: Topology,
        manager: Manager,
        operator: TlsFiles,
        changed: set[str],
        start_timeout: float,
    ) -> None:
        interrupted = folder.was_interrupted()
        adopted = manager.adopt()
        try:
            self._refuse_taken_ports(topology, manager)
        except UpError:
            if not interrupted:
                remove_runtime(topology.layout)
            raise
        folder.mark_running()
        starting = asyncio.ensure_future(self._bring_up(topology, manager, operator, adopted, changed, start_timeout))
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if starting.done() and (error := starting.exception()) is not None:
            if interrupted:
                await self._withdraw(topology, manager, adopted)
            else:
                for what in await self._end(folder, topology, manager, interrupted=interrupted):
                    self._display.event(what)
            raise error
        if starting.done():
            self._display.ready(topology.settings, self._data_dir, adopted, self._context_name(topology.settings))
        else:
            starting.cancel()
            await asyncio.wait({starting})
        await self._stop.wait()
        left = await self._end(folder, topology, manager, interrupted=interrupted)
        self._restore_context(topology.settings)
        if left:
            raise UpError("; ".join(left), ExitCode.FAILED)
        self._display.stopped()

    def _refuse_taken_ports(self, topology: Topology, manager: Manager) -> None:
        for service in topology.services:
            for port in service.ports:
                if not manager.is_running(service.name) and not port_is_free(port):
                    raise UpError(
                        f"port {port} of {service.name} is taken by another program: "
                        f"end that (`ss -ltnp sport = :{port}` names it), or use another --data-dir"
                    )

    async def _bring_up(
        self,
        topology: Topology,
        manager: Manager,
        operator: TlsFiles,
        adopted: list[str],
        changed: set[str],
        timeout: float,
    ) -> None:
        settings = topology.settings
        deadline = asyncio.get_running_loop().time() + timeout
        if adopted:
            self._display.step(f"adopted {len(adopted)} daemons of the last run: {', '.join(sorted(adopted))}")
        missing = [service.name for service in topology.services if service.name not in adopted]
        if missing:
            self._display.step(f"starting {', '.join(missing)}")
        members = [service.name for service in topology.etcd]
        for name in members:
            if name in missing:
                manager.start(name)
        # A member is ready once its cluster has a leader.
        await manager.wait_ready(members, timeout)
        for name in missing:
            manager.start(name)
        for name in sorted(changed.intersection(adopted)):
            manager.restart(name)
        names = [service.name for service in topology.services]
        await manager.wait_ready(names, deadline - asyncio.get_running_loop().time())
        await self._await_fleet(manager, self._make_probe(settings, operator), deadline)
        self._offer_context(settings, operator)

    def _offer_context(self, settings: Settings, operator: TlsFiles) -> None:
        """Make this fleet the one fleetctl talks to. Raises UpError."""
        name = self._context_name(settings)
        context = Context(tuple(settings.controller_addresses), operator.authority, operator.certificate, operator.key)
        try:
            self._former_context = load_contexts().current
            save_context(name, context, make_current=True)
        except ContextError as error:
            raise UpError(str(error), ExitCode.FAILED) from error

    def _restore_context(self, settings: Settings) -> None:
        """The fleet that was current before is current again, unless somebody chose another one meanwhile."""
        try:
            contexts = load_contexts()
            former = contexts.by_name.get(self._former_context)
            if former is not None and contexts.current == self._context_name(settings):
                save_context(self._former_context, former, make_current=True)
        except ContextError as error:
            self._display.event(f"the former context is not current again: {error}")

    def _context_name(self, settings: Settings) -> str:
        return context_name(settings.fleet_id, is_default=self._data_dir == usual_data_dir())

    async def _await_fleet(self, manager: Manager, probe: Probe, deadline: float) -> None:
        try:
            while (lacking := await probe.lacking()) is not None:
                if (hopeless := manager.hopeless()) is not None:
                    raise manager.failure(hopeless, "does not stay up")
                if asyncio.get_running_loop().time() > deadline:
                    raise manager.failure(lacking.service, lacking.what)
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await probe.close()

    async def _withdraw(self, topology: Topology, manager: Manager, adopted: list[str]) -> None:
        """Stop what this run started, and nothing that an earlier one left: its workers may be serving."""
        self._display.step("what ran before runs on; `fleetctl up` on this folder tries again")
        started = [service.name for service in topology.services if service.name not in adopted]
        await manager.stop(started, _WITHDRAW_GRACE_SECONDS, self._hasten)

    async def _end(self, folder: LockedFolder, topology: Topology, manager: Manager, *, interrupted: bool) -> list[str]:
        """Stop everything; returns what could not be stopped, in words."""
        self._display.step("stopping; press Ctrl-C again to stop without waiting for workers to finish")
        left = await Shutdown(topology, manager, self._hasten, interrupted=interrupted).run()
        manager.close()
        if not left:
            remove_runtime(topology.layout)
            folder.mark_ended()
        return left


async def run_fleet(
    data_dir: Path,
    wanted: Wanted,
    programs: Programs,
    make_probe: ProbeMaker,
    display: Display,
    start_timeout: float,
) -> None:
    """Run a fleet until it is told to stop. Raises UpError."""
    await Fleet(data_dir, programs, make_probe, display).run(wanted, start_timeout)
