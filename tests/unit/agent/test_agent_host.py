"""What the agent makes of its supervisor's records."""

import asyncio
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.v1 import types_pb2
from fleet_agent.host import Host
from fleet_agent.launch import HostContext
from fleet_agent.sockets import ListenerTable
from fleet_agent.supervisor.protocol import Key, Launch, Worker
from fleet_core.config import PortRange

_KEY = Key("shop", 1, 1)
_STATES = {
    "starting": types_pb2.WORKER_STATE_STARTING,
    "backoff": types_pb2.WORKER_STATE_BACKOFF,
    "failed": types_pb2.WORKER_STATE_FAILED,
}


@pytest.mark.parametrize("state", sorted(_STATES))
def test_a_crash_is_to_be_reported_at_once_and_planned_for_afterwards(tmp_path: Path, state: str) -> None:
    async def crash() -> None:
        context = HostContext("host1", "127.0.0.1", {}, "")
        with closing(Host(context, tmp_path, tmp_path, PortRange(first=20_000, last=20_010), ListenerTable())) as host:
            launch = Launch(argv=["true"], cwd="/", env={}, port=20_001)
            running = Worker(_KEY, launch, "running", pid=41, start_ticks=7, ever_ready=True)
            host.take_all([running])
            planned = asyncio.Event()
            host.on_refresh = planned.set
            host.changed.clear()
            host.take(replace(running, state=state, pid=0, restarts=1, reason="killed by SIGKILL", ever_ready=False))
            reported = host.statuses[_KEY]
            assert host.changed.is_set()
            assert not planned.is_set()
            assert (reported.state, reported.pid, reported.restarts) == (_STATES[state], 0, 1)
            assert (reported.reason, reported.port) == ("killed by SIGKILL", 20_001)
            async with asyncio.timeout(10):
                await planned.wait()
            assert host.statuses[_KEY] == reported

    asyncio.run(crash())
