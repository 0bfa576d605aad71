"""The link to fleet-supervisor: its records in, commands and findings out. It outlives every connection.

While the connection is down the host keeps each worker's last known state: the workers run on.
"""

import asyncio
import logging
import random
from pathlib import Path

from fleet_agent.ends import EndWatch
from fleet_agent.host import Host
from fleet_agent.probes import Probes
from fleet_agent.readiness import Failed, Ready, Unready, Verdict
from fleet_agent.reconcile import Command, Run, Stop
from fleet_agent.sockets import ListenerTable
from fleet_agent.supervisor.protocol import Key
from fleet_agent.supervisor_client import (
    Event,
    RemovedEvent,
    SupervisorClient,
    SupervisorRefusedError,
    SupervisorUnavailable,
)

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


class SupervisorLink:
    """Owns the connection and the checks whose findings go over it."""

    def __init__(self, host: Host, socket_path: Path, listeners: ListenerTable) -> None:
        self._host = host
        self._socket_path = socket_path
        self._client: SupervisorClient | None = None
        self._findings: set[asyncio.Task[None]] = set()
        self._probes = Probes(listeners, self._on_verdict)
        self._ends = EndWatch(host.process_ended)
        host.on_refresh = self._watch

    async def run(self) -> None:
        """Until cancelled."""
        probing = asyncio.create_task(self._probes.run(), name="probes")
        pause = _FIRST_PAUSE_SECONDS
        said = ""
        try:
            while True:
                client = SupervisorClient()
                try:
                    await client.connect(self._socket_path)
                    hello = await client.hello()
                    _LOG.info("fleet-supervisor (pid %d) holds %d workers", hello.pid, len(hello.workers))
                    self._probes.restart()
                    self._host.take_all(hello.workers)
                    self._client = client
                    pause, said = _FIRST_PAUSE_SECONDS, ""
                    await self._serve(client)
                except (SupervisorUnavailable, SupervisorRefusedError) as error:
                    if str(error) != said:
                        said = str(error)
                        _LOG.warning("%s; workers run on, trying again", said)
                finally:
                    self._client = None
                    await client.close()
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads retries, guards no secret
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        finally:
            tasks = [probing, *self._findings]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._ends.close()

    @property
    def connected(self) -> bool:
        return self._client is not None

    def fail(self, key: Key, pid: int, reason: str) -> None:
        """Ask that the process be ended as one that failed; without a connection nothing happens."""
        self._on_verdict(key, pid, Failed(reason))

    async def _serve(self, client: SupervisorClient) -> None:
        """Raises SupervisorUnavailable when the connection ended."""
        commanding = asyncio.create_task(self._command(client), name="supervisor-commands")
        try:
            await client.hand_events_to(self._take)
        finally:
            commanding.cancel()
            await asyncio.gather(commanding, return_exceptions=True)

    def _take(self, event: Event) -> None:
        if isinstance(event, RemovedEvent):
            self._host.take_removed(event.key)
        else:
            self._host.take(event.worker)

    def _watch(self) -> None:
        self._probes.watch(self._host.workers, self._host.rules())
        self._ends.watch(self._host.workers)

    async def _command(self, client: SupervisorClient) -> None:
        """Give the plan's commands as they come up. A broken connection is closed here, which ends `_serve`."""
        waiting = self._host.commands_waiting
        try:
            while True:
                await waiting.wait()
                waiting.clear()
                commands = self._host.giving()
                try:
                    await self._host.keep_ports()
                except OSError as error:
                    _LOG.error("cannot write the table of ports: %s; no worker is started until it can", error)
                    for command in commands:
                        if isinstance(command, Run):
                            self._host.withheld(command)
                    commands = [command for command in commands if not isinstance(command, Run)]
                    asyncio.get_running_loop().call_later(_LONGEST_PAUSE_SECONDS, waiting.set)
                await asyncio.gather(*(self._give(client, command) for command in commands))
        except SupervisorUnavailable as error:
            _LOG.warning("%s", error)
            await client.close()

    async def _give(self, client: SupervisorClient, command: Command) -> None:
        try:
            if isinstance(command, Run):
                await client.run(command.key, command.launch)
            elif isinstance(command, Stop):
                await client.stop(command.key, command.stop_signal, command.grace_seconds)
            else:
                await client.forget(command.key)
        except SupervisorRefusedError as error:
            self._host.refused(command, str(error))
        else:
            self._host.acknowledged(command)

    def _on_verdict(self, key: Key, pid: int, verdict: Verdict) -> None:
        if isinstance(verdict, Unready):
            self._host.found_unready(key, pid, verdict.seen)
        client = self._client
        if client is None:
            return  # checked again from the start on the next connection
        finding = asyncio.create_task(self._tell(client, key, pid, verdict), name=f"finding {key}")
        self._findings.add(finding)
        finding.add_done_callback(self._findings.discard)

    async def _tell(self, client: SupervisorClient, key: Key, pid: int, verdict: Verdict) -> None:
        name = f"{key.app}/{self._host.context.name}/{key.slot}@{key.generation}"
        try:
            match verdict:
                case Ready():
                    _LOG.info("%s (pid %d) is ready", name, pid)
                    await client.note(key, pid, True)
                case Unready(seen):
                    _LOG.warning("%s (pid %d) is not ready any more: %s", name, pid, seen)
                    await client.note(key, pid, False)
                case Failed(reason):
                    _LOG.warning("%s (pid %d): %s", name, pid, reason)
                    await client.fail(key, pid, reason)
        except SupervisorRefusedError as error:
            _LOG.warning("%s: fleet-supervisor refused a finding: %s", name, error)
        except SupervisorUnavailable as error:
            _LOG.warning("%s: finding not delivered: %s", name, error)
            await client.close()
