"""`fleet-agent drain`: a host says that it leaves, waits for the controller's word, and stops its workers."""

import asyncio
import signal
import sys
from pathlib import Path

from fleet.v1 import agent_pb2
from fleet_core.spec import AppSpec, ListenMode
from tests.integration.agent.fake_controller import DEADLINE_SECONDS, FakeController, target
from tests.integration.agent.running import RunningHost
from tests.integration.supervisor.running import alive

ONE, TWO = ("sleeper", 1, 1), ("sleeper", 2, 1)


def sleeper(folder: Path) -> AppSpec:
    fields = {"name": "sleeper", "argv": ["sleep", "1000"], "cwd": str(folder), "listen_mode": ListenMode.NONE}
    return AppSpec.model_validate(fields)


async def exit_status(process: asyncio.subprocess.Process) -> int:
    return await asyncio.wait_for(process.wait(), DEADLINE_SECONDS)


async def test_workers_are_stopped_only_after_the_controller_said_that_they_are_drained(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    """Guards invariant 7."""
    spec = sleeper(app_folder)
    controller.assign(target(spec, 1), specs=(spec,))
    worker = await controller.until_state(ONE, "READY")
    draining = await host.drain()
    await controller.until(lambda: controller.departures == [True])
    assert alive(worker.pid)
    assert draining.returncode is None
    controller.send(drained=agent_pb2.HostDrained())
    await controller.until_state(ONE, "EXITED")
    assert await exit_status(draining) == 0
    assert not alive(worker.pid)


async def test_a_host_that_left_starts_nothing_until_its_agent_is_started_again(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    spec = sleeper(app_folder)
    controller.assign(target(spec, 1), specs=(spec,))
    await controller.until_state(ONE, "READY")
    draining = await host.drain()
    await controller.until(lambda: controller.departures == [True])
    controller.send(drained=agent_pb2.HostDrained())
    assert await exit_status(draining) == 0
    controller.assign(target(spec, 1), target(spec, 2))
    assert (await controller.until_state(TWO, "PENDING")).pid == 0
    await host.end_agent()
    assert "STARTING" not in {controller.state(ONE), controller.state(TWO)}
    await host.start_agent()
    await controller.until_state(ONE, "READY")
    await controller.until_state(TWO, "READY")


async def test_a_drain_that_is_given_up_leaves_the_host_in_service(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    spec = sleeper(app_folder)
    controller.assign(target(spec, 1), specs=(spec,))
    worker = await controller.until_state(ONE, "READY")
    draining = await host.drain()
    await controller.until(lambda: controller.departures == [True])
    controller.assign(target(spec, 1), target(spec, 2))
    await controller.until_state(TWO, "PENDING")
    draining.send_signal(signal.SIGINT)
    await exit_status(draining)
    await controller.until(lambda: controller.departures == [True, False])
    await controller.until_state(TWO, "READY")
    assert alive(worker.pid)


async def test_a_new_session_is_told_that_the_host_leaves(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    spec = sleeper(app_folder)
    controller.assign(target(spec, 1), specs=(spec,))
    await controller.until_state(ONE, "READY")
    draining = await host.drain()
    await controller.until(lambda: controller.departures == [True])
    address = controller.address
    await controller.stop()
    await controller.start(address)
    await controller.until(lambda: controller.departures == [True, True])
    controller.send(drained=agent_pb2.HostDrained())
    assert await exit_status(draining) == 0


async def test_without_a_controller_workers_are_stopped_all_the_same(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    spec = sleeper(app_folder)
    controller.assign(target(spec, 1), specs=(spec,))
    worker = await controller.until_state(ONE, "READY")
    await controller.stop()
    assert await exit_status(await host.drain()) == 0
    assert not alive(worker.pid)


async def test_without_a_supervisor_it_fails_and_says_so(host: RunningHost) -> None:
    await host.end_agent()
    await host.supervisor.kill(signal.SIGTERM)
    draining = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fleet_agent.main", "drain", "--config", str(host.config)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await draining.communicate()
    assert draining.returncode == 1
    assert said.decode().splitlines()[-1].startswith("fleet-agent: workers are not stopped: fleet-supervisor does not")
