"""A host of real parts: fleet-supervisor and fleet-agent in processes of their own."""

import asyncio
import random
import signal
import sys
from pathlib import Path
from typing import IO

from fleet_core.authority import create_authority, issue
from fleet_core.tls import Identity, Role
from tests.integration.supervisor.running import RunningSupervisor

DEADLINE_SECONDS = 20.0
PORTS_EACH = 40


class RunningHost:
    def __init__(self, folder: Path, authority: Path, *controllers: str) -> None:
        self.folder = folder
        self.supervisor = RunningSupervisor(folder)
        self.state_dir = folder / "state"
        self.log_dir = self.supervisor.log_dir
        self.agent: asyncio.subprocess.Process | None = None
        create_authority(authority)
        files = issue(authority, Identity(Role.AGENT, "host1"))
        first = random.randrange(20_000, 32_000 - PORTS_EACH)
        self.config = folder / "agent.toml"
        self.config.write_text(
            f"""
            name = "host1"
            state_dir = "{self.state_dir}"
            controllers = {list(controllers)}
            address = "127.0.0.1"
            ports = {{ first = {first}, last = {first + PORTS_EACH - 1} }}
            runtime_dir = "{self.supervisor.runtime_dir}"
            log_dir = "{self.log_dir}"
            labels = {{ zone = "a" }}
            tls = {{ authority = "{files.authority}", certificate = "{files.certificate}", key = "{files.key}" }}
            """
        )

    async def start(self) -> None:
        await self.supervisor.start()
        await self.start_agent()

    async def start_agent(self, log: IO[bytes] | None = None) -> None:
        """`log`: what it says goes there, not to the test's own standard error."""
        self.agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fleet_agent.main", "run", "--config", str(self.config)), stderr=log
        )

    async def end_agent(self, number: int = signal.SIGTERM) -> int:
        assert self.agent is not None
        agent, self.agent = self.agent, None
        if agent.returncode is None:
            agent.send_signal(number)
        return await asyncio.wait_for(agent.wait(), DEADLINE_SECONDS)

    async def drain(self) -> asyncio.subprocess.Process:
        """`fleet-agent drain`, running."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fleet_agent.main", "drain", "--config", str(self.config))
        )

    async def clean_up(self) -> None:
        if self.agent is not None:
            await self.end_agent(signal.SIGKILL)
        await self.supervisor.clean_up()
