"""Stopping everything, in an order that lets work in progress end, and making sure that nothing is left."""

import asyncio
import os
import signal
from collections.abc import Iterable, Mapping

from fleetctl.up import process
from fleetctl.up.manager import Manager
from fleetctl.up.process import Daemon
from fleetctl.up.services import Service
from fleetctl.up.topology import Topology

_DAEMON_GRACE_SECONDS = 10.0
_WORKERS_GRACE_SECONDS = 600.0
"""A worker's own grace may be minutes, and the supervisor ends it; a second Ctrl-C ends it sooner."""
_BALANCER_GRACE_SECONDS = 30.0
_HASTY_SECONDS = 15.0
_SWEEP_SECONDS = 5.0
_OUTPUT_BYTES = 2000


class Shutdown:
    """One orderly end. `hasten` is set when the user lost patience."""

    def __init__(
        self,
        topology: Topology,
        manager: Manager,
        environment: Mapping[str, str],
        hasten: asyncio.Event,
    ) -> None:
        self._topology = topology
        self._manager = manager
        self._environment = {**environment, process.FLEET_MARK: topology.settings.fleet_id}
        self._hasten = hasten

    async def run(self) -> list[str]:
        """Agents first, since they would start stopped workers again; supervisors are kept alive until their workers have
        stopped, HAProxy until nothing is behind it; etcd last. Returns what could not be stopped, in words."""
        topology = self._topology
        await self._stop(topology.agents)
        failures = await self._run_all(topology.stop_workers(), _WORKERS_GRACE_SECONDS, "--now")
        await self._stop(topology.balancers)
        failures += await self._run_all(topology.stop_balancers(), _BALANCER_GRACE_SECONDS)
        await self._stop([*topology.supervisors, *topology.controllers])
        await self._stop([topology.etcd])
        swept = await _sweep(topology.settings.fleet_id)
        return failures + swept

    async def _stop(self, services: Iterable[Service]) -> None:
        await self._manager.stop([service.name for service in services], _DAEMON_GRACE_SECONDS, self._hasten)

    async def _run_all(
        self, commands: Mapping[str, tuple[str, ...]], grace: float, hasty_option: str = ""
    ) -> list[str]:
        results = await asyncio.gather(
            *(self._run_one(name, argv, grace, hasty_option) for name, argv in commands.items())
        )
        return [result for result in results if result]

    async def _run_one(self, name: str, argv: tuple[str, ...], grace: float, hasty_option: str) -> str:
        """Returns what went wrong; empty: nothing."""
        hasty = (*argv, hasty_option) if hasty_option else argv
        if not self._hasten.is_set():
            result = await self._command(name, argv, grace, interruptible=True)
            if result is not None:
                return result
        result = await self._command(name, hasty, _HASTY_SECONDS, interruptible=False)
        return f"{name} could not be stopped in {_HASTY_SECONDS:.0f} s" if result is None else result

    async def _command(self, name: str, argv: tuple[str, ...], timeout: float, *, interruptible: bool) -> str | None:
        """What went wrong, empty for nothing; None: it was interrupted, or took longer than `timeout` seconds."""
        try:
            running = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            return f"{name} could not be stopped: {argv[0]}: {error.strerror}"
        talking = asyncio.ensure_future(running.communicate())
        waiting: set[asyncio.Future[object]] = {talking}  # type: ignore[arg-type]
        impatience = asyncio.ensure_future(self._hasten.wait())
        if interruptible:
            waiting.add(impatience)  # type: ignore[arg-type]
        try:
            await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not talking.done():
                running.kill()
                await talking
                return None
            _, errors = talking.result()
        finally:
            impatience.cancel()
        if running.returncode == 0:
            return ""
        lines = errors[-_OUTPUT_BYTES:].decode(errors="replace").strip().splitlines()
        return f"{name} was not stopped: {lines[-1] if lines else f'exit code {running.returncode}'}"


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
