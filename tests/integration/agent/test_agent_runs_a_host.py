"""fleet-agent and fleet-supervisor as processes, Node as the app, a controller that says what a test wants."""

import asyncio
import os
import shutil
import signal
import urllib.request
from pathlib import Path

import pytest

from fleet.v1 import agent_pb2, types_pb2
from fleet_agent.supervisor.protocol import Key
from fleet_core.ids import Epoch
from fleet_core.spec import AppSpec, Runtime
from tests.integration.agent.fake_controller import FakeController, target
from tests.integration.agent.running import RunningHost
from tests.integration.supervisor.running import alive

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node on PATH")

SERVER = """
const http = require('http');
http.createServer((request, response) => response.end(String(process.pid))).listen(3000, () => console.log('up'));
"""


def node_app(folder: Path, source: str = SERVER, **changes: object) -> AppSpec:
    (folder / "server.js").write_text(source)
    fields = {"name": "shop", "argv": ["node", "server.js"], "cwd": str(folder), "runtime": Runtime.NODE, **changes}
    return AppSpec.model_validate(fields)


async def get(port: int, path: str = "/") -> str:
    def fetch() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(fetch)


async def test_a_controller_that_pings_hears_of_usage_and_else_of_nothing_but_news(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    assert controller.hellos[0].answers_pings
    spec = node_app(app_folder)
    controller.assign(target(spec, 1), specs=(spec,))
    ready = await controller.until_state(("shop", 1, 1), "READY")
    await controller.until(lambda: [usage.pid for usage in controller.heartbeats[-1].usage] == [ready.pid])
    heard = len(controller.heartbeats)
    await asyncio.sleep(10 * controller.heartbeat_seconds)
    assert len(controller.heartbeats) <= heard + 1, "one more sample, at most"
    assert controller.in_session


async def test_a_controller_that_does_not_ping_is_sent_heartbeats(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    """One of an older version."""
    controller.pings = False
    await controller.stop()
    await controller.start(controller.address)
    await controller.until_session()
    spec = node_app(app_folder)
    controller.assign(target(spec, 1), specs=(spec,))
    ready = await controller.until_state(("shop", 1, 1), "READY")
    await controller.until(
        lambda: any(usage.pid == ready.pid for beat in controller.heartbeats for usage in beat.usage)
    )
    heard = len(controller.heartbeats)
    await controller.until(lambda: len(controller.heartbeats) > heard + 3)


async def test_unmodified_servers_with_one_hard_coded_port_become_ready_on_ports_of_their_own(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    spec = node_app(app_folder)
    controller.assign(target(spec, 1), target(spec, 2), specs=(spec,))
    first = await controller.until_state(("shop", 1, 1), "READY")
    second = await controller.until_state(("shop", 2, 1), "READY")
    assert first.port != second.port
    assert await get(first.port) == str(first.pid)
    assert await get(second.port) == str(second.pid)
    assert (first.address, first.revision, first.phase) == ("127.0.0.1", 1, types_pb2.PHASE_RUN)
    await controller.until(lambda: controller.heartbeats and len(controller.heartbeats[-1].usage) == 2)
    assert all(usage.rss_bytes > 5_000_000 and usage.uptime_seconds > 0 for usage in controller.heartbeats[-1].usage)
    hello = controller.hellos[0]
    assert (hello.host_name, hello.labels["zone"], hello.address) == ("host1", "a", "127.0.0.1")
    assert hello.cpus >= 1
    assert hello.host_uid
    assert hello.boot_id


async def test_a_crash_is_reported_before_the_next_process_is_ready_and_keeps_the_port(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    spec = node_app(app_folder)
    controller.assign(target(spec, 1), specs=(spec,))
    before = await controller.until_state(("shop", 1, 1), "READY")
    controller.history.clear()
    os.kill(before.pid, signal.SIGKILL)
    await controller.until(lambda: controller.workers["shop", 1, 1].pid not in (0, before.pid))
    after = await controller.until_state(("shop", 1, 1), "READY")
    told = [status.state for _, status in controller.history if status.pid != after.pid]
    assert set(told) - {types_pb2.WORKER_STATE_READY}, "its death is told by itself, not with its successor"
    assert (after.port, after.restarts, after.id.generation) == (before.port, 1, 1)
    assert "SIGKILL" in after.reason


async def test_killing_and_restarting_the_agent_touches_no_worker_and_no_readiness(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    """Guards invariant 3."""
    spec = node_app(app_folder)
    controller.assign(target(spec, 1), target(spec, 2), specs=(spec,))
    pids = [(await controller.until_state(("shop", slot, 1), "READY")).pid for slot in (1, 2)]
    controller.history.clear()
    await host.end_agent(signal.SIGKILL)
    await host.start_agent()
    await controller.until_session()
    await asyncio.sleep(1)  # a flap would come now
    assert [controller.workers["shop", slot, 1].pid for slot in (1, 2)] == pids
    assert {status.state for _, status in controller.history} == {types_pb2.WORKER_STATE_READY}
    assert all(alive(pid) for pid in pids)
    assert controller.hellos[0].host_uid == controller.hellos[1].host_uid


async def test_ending_the_agent_leaves_its_workers_and_exits_with_0(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    spec = node_app(app_folder)
    controller.assign(target(spec, 1), specs=(spec,))
    worker = await controller.until_state(("shop", 1, 1), "READY")
    assert await host.end_agent(signal.SIGTERM) == 0
    assert alive(worker.pid)


async def test_without_a_controller_a_restarted_agent_runs_the_assignment_it_holds(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    spec = node_app(app_folder)
    controller.assign(target(spec, 1), specs=(spec,))
    before = await controller.until_state(("shop", 1, 1), "READY")
    await controller.stop()
    await host.end_agent(signal.SIGKILL)
    await host.supervisor.client.stop_all(1.0)
    assert not alive(before.pid)
    await host.supervisor.until(lambda worker: worker.state == "exited", Key("shop", 1, 1))
    await host.start_agent()
    after = await host.supervisor.until(lambda worker: worker.state == "running", Key("shop", 1, 1))
    assert await get(before.port) == str(after.pid)


async def test_a_killed_supervisor_is_found_again_and_no_worker_was_reported_gone(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    """Guards invariant 3."""
    spec = node_app(app_folder)
    controller.assign(target(spec, 1), specs=(spec,))
    before = await controller.until_state(("shop", 1, 1), "READY")
    controller.history.clear()
    await host.supervisor.kill()
    await host.supervisor.start()
    controller.assign(target(spec, 1), target(spec, 2), specs=(spec,))
    await controller.until_state(("shop", 2, 1), "READY")
    states = {status.state for _, status in controller.history if status.id.slot == 1}
    assert states <= {types_pb2.WORKER_STATE_READY}
    assert controller.workers["shop", 1, 1].pid == before.pid


async def test_a_replacement_listens_beside_the_old_worker_which_then_stops_and_is_forgotten(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    spec = node_app(app_folder)
    controller.assign(target(spec, 1), specs=(spec,))
    old = await controller.until_state(("shop", 1, 1), "READY")
    controller.assign(target(spec, 1), target(spec, 1, 2))
    new = await controller.until_state(("shop", 1, 2), "READY")
    assert new.port != old.port
    assert alive(old.pid)
    controller.assign(target(spec, 1, 1, "PHASE_STOP"), target(spec, 1, 2))
    await controller.until_state(("shop", 1, 1), "EXITED")
    assert not alive(old.pid)
    controller.assign(target(spec, 1, 2))
    await controller.until(lambda: ("shop", 1, 1) not in controller.workers)
    assert controller.state(("shop", 1, 2)) == "WORKER_STATE_READY"


async def test_a_worker_that_never_listens_fails_with_what_was_seen(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    spec = node_app(
        app_folder,
        "setInterval(() => {}, 1000)",
        ready={"start_timeout_seconds": 0.5},
        restart={"max_restarts": 0},
    )
    controller.assign(target(spec, 1), specs=(spec,))
    failed = await controller.until_state(("shop", 1, 1), "FAILED")
    assert failed.reason.startswith(f"not ready within 0.5 s: nothing listens on port {failed.port}")
    assert not any(status.state == types_pb2.WORKER_STATE_READY for _, status in controller.history)


async def test_an_http_health_path_decides_and_a_worker_that_turns_sick_is_unready_until_it_is_well(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    sick = app_folder / "sick"
    source = f"""
    const sick = () => require('fs').existsSync({str(sick)!r});
    require('http').createServer((q, r) => {{ r.statusCode = sick() ? 503 : 200; r.end(); }}).listen(3000);
    """
    ready = {"http_path": "/health", "interval_seconds": 0.1, "unready_threshold": 2}
    spec = node_app(app_folder, source, ready=ready)
    sick.touch()
    controller.assign(target(spec, 1), specs=(spec,))
    await controller.until_state(("shop", 1, 1), "STARTING")
    sick.unlink()
    await controller.until_state(("shop", 1, 1), "READY")
    sick.touch()
    await controller.until_state(("shop", 1, 1), "UNREADY")
    sick.unlink()
    await controller.until_state(("shop", 1, 1), "READY")


async def test_lower_epochs_old_sequences_and_unasked_emptiness_change_nothing(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    """Guards invariant 4."""
    spec = node_app(app_folder)
    controller.assign(target(spec, 1), specs=(spec,), sequence=5)
    ready = await controller.until_state(("shop", 1, 1), "READY")
    controller.assign(target(spec, 1, 1, "PHASE_STOP"), sequence=4)
    controller.assign(sequence=6)
    controller.assign(target(spec, 1), target(spec, 2), sequence=7)
    await controller.until_state(("shop", 2, 1), "READY")
    assert controller.state(("shop", 1, 1)) == "WORKER_STATE_READY"
    sessions = len(controller.hellos)
    controller.assign(target(spec, 1, 1, "PHASE_STOP"), sequence=99, epoch=Epoch(1, 9))
    await controller.until(lambda: len(controller.hellos) > sessions)  # refused: the session was ended
    assert alive(ready.pid)
    controller.assign(sequence=8, allow_empty=True)
    await controller.until(lambda: not controller.workers)
    assert not alive(ready.pid)


async def test_the_agent_follows_to_the_leader_a_controller_names(
    tmp_path: Path, controller: FakeController, host: RunningHost
) -> None:
    leader = FakeController(controller.folder, Epoch(1, 20))
    await leader.start()
    try:
        controller.leader = leader.address
        old_address = controller.address
        await controller.stop()
        await controller.start(old_address)
        await leader.until(leader.complete_reports)
    finally:
        await leader.stop()


async def test_log_lines_are_answered_followed_and_cancelled(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    spec = node_app(app_folder)
    controller.assign(target(spec, 1), specs=(spec,))
    worker = await controller.until_state(("shop", 1, 1), "READY")
    request = agent_pb2.LogRequest(request_id="one", app="shop", slot=1, lines=10, follow=True)
    controller.send(log_request=request)

    def lines() -> list[bytes]:
        return [line.text for chunk in controller.chunks for line in chunk.lines]

    await controller.until(lambda: lines() == [b"up"])
    os.kill(worker.pid, signal.SIGKILL)
    await controller.until(lambda: lines() == [b"up", b"up"])
    controller.send(log_cancel=agent_pb2.LogCancel(request_id="one"))
    await controller.until(lambda: controller.chunks[-1].done)
    line = next(line for chunk in controller.chunks for line in chunk.lines)
    assert (line.app, line.host, line.slot, line.stream) == ("shop", "host1", 1, "stdout")


async def test_log_requests_cancelled_in_the_middle_of_a_flood_leave_the_session_as_it_is(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    flood = SERVER + "setInterval(() => console.log(('x'.repeat(99) + '\\n').repeat(200)), 5);"
    spec = node_app(app_folder, flood)
    controller.assign(target(spec, 1), specs=(spec,))
    await controller.until_state(("shop", 1, 1), "READY")
    for number in range(20):
        name = f"request-{number}"
        request = agent_pb2.LogRequest(request_id=name, app="shop", lines=1_000, follow=True)
        controller.send(log_request=request)
        await controller.until(lambda name=name: any(chunk.request_id == name for chunk in controller.chunks))  # type: ignore[misc]
        controller.send(log_cancel=agent_pb2.LogCancel(request_id=name))
        await controller.until(
            lambda name=name: any(chunk.request_id == name and chunk.done for chunk in controller.chunks)  # type: ignore[misc]
        )
    assert len(controller.hellos) == 1
