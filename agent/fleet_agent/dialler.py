"""Finds the leading controller and keeps a session with it: each address in turn, a named leader first, with jittered pauses."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from fleet.v1 import agent_pb2
from fleet_agent.agent_service import AgentServiceClient
from fleet_agent.host import Host
from fleet_agent.session import Session, SessionEndedError, leader_of
from fleet_agent.upkeep import UsageSampler
from fleet_core.controller_link.calls import CallError, ControllerConnection
from fleet_core.ids import Epoch
from fleet_core.leader_search import LeaderSearch

_LOG = logging.getLogger(__name__)
_SPREAD_SECONDS = 1.0
"""A dead leader's lease lasts longer; a fleet of a thousand hosts then dials a thousand times a second, not at once."""

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
        self._search = LeaderSearch(controllers, _SPREAD_SECONDS)
        self._connect = connect
        self._host = host
        self._sampler = sampler
        self._log_dir = log_dir
        self._make_hello = make_hello
        self._said = ""

    async def run(self) -> None:
        """Until cancelled."""
        await self._host.supervisor_known.wait()
        while True:
            address = self._search.address
            try:
                await self._converse(address)
            except SessionEndedError as error:
                reason, leader = str(error), error.leader
            except CallError as error:
                reason, leader = str(error), leader_of(error.metadata)
            except OSError as error:
                reason, leader = str(error), ""
            self._say(f"controller {address}: {reason}")
            await asyncio.sleep(self._search.ended(leader))

    async def _converse(self, address: str) -> None:
        def welcomed(epoch: Epoch) -> None:
            self._search.welcomed()
            self._said = ""
            self._host.session_began()
            self._host.artifacts.serve_from(service)
            _LOG.info("session with controller %s, epoch %s", address, epoch)

        connection = await self._connect(address)
        try:
            service = AgentServiceClient(connection)
            call = service.session(self._search.metadata)
            session = Session(call, self._host, self._sampler, self._log_dir, self._make_hello())
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
