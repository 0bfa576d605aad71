"""Stopping everything, in an order that lets work in progress end, and making sure that nothing is left."""

import asyncio
import os
import signal
from collections.abc import Iterable
from typing import Protocol

from fleetctl.up import process
from fleetctl.up.layout import balancer_names, host_names
from fleetctl.up.manager import Manager
from fleetctl.up.process import Daemon
from fleetctl.up.services import Service
from fleetctl.up.topology import Topology, supervisor_of

_DAEMON_GRACE_SECONDS = 10.0
_COMMAND_SECONDS = 90.0
"""The commands have deadlines of their own, which are shorter."""
_HASTY_SECONDS = 15.0
_RETRY_SECONDS = 15.0
"""A supervisor that died meanwhile is started again, and can then stop what it adopted."""
_RETRY_PAUSE_SECONDS = 0.3
_SWEEP_SECONDS = 5.0


class _StopCommand(Protocol):
    def __call__(self, name: str, /, *, hasty: bool) -> tuple[str, ...]: ...


class Shutdown:
    """One orderly end. `hasten` is set when the user lost patience.

    `interrupted`: an earlier `up` was killed here, so what it started may run even where this one's daemons never did.
    """

    def __init__(
        self,
        topology: Topology,
        manager: Manager,
        hasten: asyncio.Event,
        *,
        interrupted: bool,
    ) -> None:
        self._topology = topology
        self._manager = manager
        self._hasten = hasten
        self._interrupted = interrupted

    async def run(self) -> list[str]:
        """Agents first, since they would start stopped workers again; supervisors are kept alive until their workers have
        stopped, HAProxy until nothing is behind it; etcd last. Returns what could not be stopped, in words."""
        topology = self._topology
        hosts = [name for name in host_names(topology.settings.hosts) if self._did_work(supervisor_of(name))]
        balancers = [name for name in balancer_names(topology.settings.balancers) if self._did_work(name)]
        await self._stop(topology.agents)
        failures = await asyncio.gather(
            *(self._run(f"workers of {name}", topology.stop_workers, name) for name in hosts)
        )
        await self._stop(topology.balancers)
        failures += await asyncio.gather(*(self._run(name, topology.stop_balancer, name) for name in balancers))
        await self._stop([*topology.supervisors, *topology.controllers])
        for member in topology.etcd:
            # One by one: the leader hands over before it ends, and waits seconds for a member that is ending too.
            await self._stop([member])
        return [failure for failure in failures if failure] + await _sweep(topology.settings.fleet_id)

    def _did_work(self, service: str) -> bool:
        return self._interrupted or self._manager.was_ever_ready(service)

    async def _stop(self, services: Iterable[Service]) -> None:
        await self._manager.stop([service.name for service in services], _DAEMON_GRACE_SECONDS, self._hasten)

    async def _run(self, what: str, command: "_StopCommand", name: str) -> str:
        """Returns what went wrong; empty: nothing."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _RETRY_SECONDS
        while True:
            hasty = self._hasten.is_set()
            argv = command(name, hasty=hasty)
            if hasty:
                error = await self._manager.run_command(argv, _HASTY_SECONDS)
            else:
                error = await self._manager.run_command(argv, _COMMAND_SECONDS, self._hasten)
            if error == "":
                return ""
            if error is None and not hasty and self._hasten.is_set():
                deadline = loop.time() + _RETRY_SECONDS
                continue
            if loop.time() >= deadline:
                return f"{what} could not be stopped: {error or 'it takes too long'}"
            await asyncio.sleep(_RETRY_PAUSE_SECONDS)


async def _sweep(fleet_id: str) -> list[str]:
    """Kill whatever still carries the fleet's mark; returns what survives even that."""
    deadline = asyncio.get_running_loop().time() + _SWEEP_SECONDS
    while True:
        left = [daemon for daemon in process.find_marked(fleet_id) if daemon.pid != os.getpid()]
        try:
            pids = [daemon.pid for daemon in left]
            if not pids:
                return []
            if asyncio.get_running_loop().time() > deadline:
                return [f"process {pid} could not be killed" for pid in pids]
            _kill(left)
        finally:
            for daemon in left:
                daemon.close()
        await asyncio.sleep(0.05)


def _kill(daemons: Iterable[Daemon]) -> None:
    for daemon in daemons:
        daemon.signal(signal.SIGKILL)
