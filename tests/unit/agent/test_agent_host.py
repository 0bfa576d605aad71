"""What the agent makes of its supervisor's records."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.v1 import agent_pb2, types_pb2
from fleet_agent.assignment import HeldAssignment
from fleet_agent.host import Host
from fleet_agent.launch import HostContext
from fleet_agent.reconcile import Forget, Run, Stop
from fleet_agent.sockets import ListenerTable
from fleet_agent.supervisor.protocol import Key, Launch, Worker
from fleet_core.config import PortRange
from fleet_core.ids import Epoch
from fleet_core.spec import AppSpec, spec_digest

_KEY = Key("shop", 1, 1)
_STATES = {
    "starting": types_pb2.WORKER_STATE_STARTING,
    "backoff": types_pb2.WORKER_STATE_BACKOFF,
    "failed": types_pb2.WORKER_STATE_FAILED,
}
_RUNNING = Worker(
    _KEY, Launch(argv=["true"], cwd="/", env={}, port=20_001), "running", pid=41, start_ticks=7, ever_ready=True
)


@contextmanager
def a_host(folder: Path) -> Iterator[Host]:
    context = HostContext("host1", "127.0.0.1", {}, "")
    with closing(Host(context, folder, folder, PortRange(first=20_000, last=20_010), ListenerTable())) as host:
        yield host


async def planned_anew(host: Host) -> None:
    planned = asyncio.Event()
    host.on_refresh = planned.set
    async with asyncio.timeout(10):
        await planned.wait()


@pytest.mark.parametrize("state", sorted(_STATES))
async def test_a_crash_is_to_be_reported_at_once_and_planned_for_afterwards(tmp_path: Path, state: str) -> None:
    with a_host(tmp_path) as host:
        host.take_all([_RUNNING])
        planning = asyncio.create_task(planned_anew(host))
        await asyncio.sleep(0)
        host.changed.clear()
        host.take(replace(_RUNNING, state=state, pid=0, restarts=1, reason="killed by SIGKILL", ever_ready=False))
        reported = host.statuses[_KEY]
        assert host.changed.is_set()
        assert not planning.done()
        assert (reported.state, reported.pid, reported.restarts) == (_STATES[state], 0, 1)
        assert (reported.reason, reported.port) == ("killed by SIGKILL", 20_001)
        await planning
        assert host.statuses[_KEY] == reported


async def test_the_end_of_a_process_is_reported_before_its_supervisor_tells_of_it(tmp_path: Path) -> None:
    """Guards invariant 7."""
    with a_host(tmp_path) as host:
        host.take_all([_RUNNING])
        host.changed.clear()
        host.process_ended(_KEY, 41)
        assert host.changed.is_set()
        reported = host.statuses[_KEY]
        assert (reported.state, reported.pid) == (types_pb2.WORKER_STATE_STARTING, 0)
        await planned_anew(host)
        assert host.statuses[_KEY] == reported, "also while the supervisor is away"


async def test_what_follows_from_an_end_is_what_the_supervisor_says(tmp_path: Path) -> None:
    with a_host(tmp_path) as host:
        host.take_all([_RUNNING])
        host.process_ended(_KEY, 41)
        await planned_anew(host)
        host.changed.clear()
        host.take(replace(_RUNNING, state="failed", pid=0, restarts=3, reason="exit code 1"))
        assert not host.changed.is_set(), "it was reported that it ended"
        await planned_anew(host)
        told = host.statuses[_KEY]
        assert (told.state, told.restarts, told.reason) == (types_pb2.WORKER_STATE_FAILED, 3, "exit code 1")


async def test_the_end_of_a_process_before_does_not_hide_the_next(tmp_path: Path) -> None:
    with a_host(tmp_path) as host:
        host.take_all([_RUNNING])
        host.process_ended(_KEY, 41)
        host.take(replace(_RUNNING, pid=42, restarts=1))
        host.process_ended(_KEY, 41)
        await planned_anew(host)
        assert (host.statuses[_KEY].state, host.statuses[_KEY].pid) == (types_pb2.WORKER_STATE_READY, 42)


_SPEC = AppSpec.model_validate({"name": "shop", "argv": ["serve"], "cwd": "/"}).to_proto()


def _assignment(sequence: int, *phases: str) -> HeldAssignment:
    """Of one worker in that phase, or of none."""
    digest = spec_digest(_SPEC)
    targets = tuple(
        agent_pb2.Target(
            app="shop", slot=1, generation=1, revision=1, phase=types_pb2.Phase.Value(phase), spec_digest=digest
        )
        for phase in phases
    )
    return HeldAssignment(epoch=Epoch(1, 1), sequence=sequence, targets=targets, specs={digest: _SPEC})


async def test_a_worker_that_is_on_its_way_is_not_reported_as_exited_before_it_was_stopped(tmp_path: Path) -> None:
    """Told to run, and then to stop before the supervisor said a word: what is not there yet is not gone.

    The controller would take an exited worker's target back, learn of a process that nobody wants, and run it again.
    """
    with a_host(tmp_path) as host:
        host.take_all([])
        await host.hold(_assignment(1, "PHASE_RUN"))
        (run,) = host.giving()
        assert isinstance(run, Run)
        await host.hold(_assignment(2, "PHASE_STOP"))
        assert host.statuses[_KEY].state == types_pb2.WORKER_STATE_STOPPING
        host.acknowledged(run)
        await host.hold(_assignment(3))
        assert host.statuses[_KEY].state == types_pb2.WORKER_STATE_STOPPING
        assert host.statuses[_KEY].port == run.launch.port, "nobody else is given it"
        assert host.giving() == []

        async def take(tell: Callable[[], None]) -> None:
            planning = asyncio.create_task(planned_anew(host))
            await asyncio.sleep(0)
            tell()
            await planning

        async def shown(state: str, pid: int) -> None:
            await take(lambda: host.take(Worker(_KEY, run.launch, state, pid=pid, start_ticks=7)))

        await shown("starting", 41)
        (stop,) = host.giving()
        assert isinstance(stop, Stop)
        host.acknowledged(stop)
        await shown("exited", 0)
        assert host.giving() == [Forget(_KEY)]
        await take(lambda: host.take_removed(_KEY))
        assert host.statuses == {}


async def test_what_was_not_told_or_was_refused_is_not_on_its_way(tmp_path: Path) -> None:
    with a_host(tmp_path) as host:
        for end in (lambda run: host.refused(run, "no"), host.withheld, lambda _run: host.take_all([])):
            host.take_all([])
            await host.hold(_assignment(host.held.sequence + 1, "PHASE_RUN"))
            (run,) = host.giving()
            end(run)
            await host.hold(_assignment(host.held.sequence + 1, "PHASE_STOP"))
            assert host.statuses[_KEY].state == types_pb2.WORKER_STATE_EXITED
