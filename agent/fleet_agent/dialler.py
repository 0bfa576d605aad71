"""Finds the leading controller and keeps a session with it: each address in turn, a named leader first, with jittered pauses."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from fleet.v1 import agent_pb2
from fleet_agent.controller_link.agent_service import AgentServiceClient
from fleet_agent.controller_link.calls import CallError, ControllerConnection
from fleet_agent.host import Host
from fleet_agent.session import Session, SessionEndedError, leader_of
from fleet_agent.upkeep import UsageSampler
from fleet_core.ids import Epoch

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_MOST_REFERRALS = 3
"""Referrals followed without a pause: two controllers may name each other while the lead changes hands."""

Connect = Callable[[str], Awaitable[ControllerConnection]]
"""Address → connection, closed by the dialler. Raises OSError, also where a certificate cannot be read."""


class Dialler:
    """Runs one session after another."""

    def __init__(
        self,
        controllers: Sequence[str],
        connect: Connect,
        host: Host,
        sampler: UsageSampler,
        log_dir: Path,
        make_hello: Callable[[], agent_pb2.AgentHello],
    ) -> None:
        self._controllers = list(controllers)
        self._connect = connect
        self._host = host
        self._sampler = sampler
        self._log_dir = log_dir
        self._make_hello = make_hello
        self._pause = _FIRST_PAUSE_SECONDS
        self._said = ""

    async def run(self) -> None:
        """Until cancelled."""
        await self._host.supervisor_known.wait()
        turn = referrals = 0
        leader = ""
        while True:
            address = leader or self._controllers[turn % len(self._controllers)]
            try:
                await self._converse(address)
            except SessionEndedError as error:
                reason, next_leader = str(error), error.leader
            except CallError as error:
                reason, next_leader = str(error), leader_of(error.metadata)
            except OSError as error:
                reason, next_leader = str(error), ""
            self._say(f"controller {address}: {reason}")
            if not leader:
                turn += 1
            leader = next_leader if next_leader != address else ""
            referrals = referrals + 1 if leader else 0
            if leader and referrals <= _MOST_REFERRALS:
                continue
            await asyncio.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311 - spreads retries, guards no secret
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _converse(self, address: str) -> None:
        def welcomed(epoch: Epoch) -> None:
            self._pause, self._said = _FIRST_PAUSE_SECONDS, ""
            self._host.session_began()
            self._host.artifacts.serve_from(service)
            _LOG.info("session with controller %s, epoch %s", address, epoch)

        connection = await self._connect(address)
        try:
            service = AgentServiceClient(connection)
            session = Session(service.session(), self._host, self._sampler, self._log_dir, self._make_hello())
            await session.run(welcomed)
        finally:
            self._host.artifacts.serve_from(None)
            self._host.session_ended()
            connection.close()

    def _say(self, reason: str) -> None:
        """Once for each new reason: a controller that is away for a day fills no log."""
        if reason != self._said:
            self._said = reason
            _LOG.warning("%s; trying again", reason)
