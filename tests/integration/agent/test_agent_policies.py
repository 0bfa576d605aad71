"""What an app's spec asks of a host: variables, readiness, limits, rest, a shared socket, seen from the controller."""

import asyncio
import os
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from fleet.v1 import agent_pb2, types_pb2
from fleet_core.spec import AppSpec
from tests.integration.agent.fake_controller import FakeController, target
from tests.integration.agent.running import RunningHost
from tests.integration.supervisor.running import alive

WORKER = ("job", 1, 1)
MIB = 1024 * 1024


def app(folder: Path, source: str, **fields: object) -> AppSpec:
    (folder / "job.py").write_text(source)
    fixed = {"name": "job", "argv": [sys.executable, "-u", "job.py"], "cwd": str(folder), "listen_mode": "none"}
    return AppSpec.model_validate({**fixed, **fields})


WAIT = "import time; time.sleep(600)"


async def test_a_missing_env_file_fails_the_worker_until_it_is_there(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    source = f"import os; print(os.environ['COLOUR'], os.environ.get('SHAPE')); {WAIT}"
    spec = app(app_folder, source, env_files=[".env"], worker_env={1: {"SHAPE": "round"}})
    controller.assign(target(spec, 1), specs=(spec,))
    failed = await controller.until_state(WORKER, "FAILED")
    assert failed.reason == f"env file {app_folder}/.env: No such file or directory"
    (app_folder / ".env").write_text("export COLOUR='blue'\nSHAPE=square\n")
    await controller.until_state(WORKER, "READY")
    controller.send(log_request=agent_pb2.LogRequest(request_id="one", app="job", lines=10))
    await controller.until(lambda: controller.chunks and controller.chunks[-1].done)
    assert [line.text for chunk in controller.chunks for line in chunk.lines] == [b"blue round"]


async def test_a_command_decides_and_what_a_worker_printed_last_is_reported(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    source = f"import sys; print('begun'); print('trouble', file=sys.stderr); {WAIT}"
    ready = {"method": "command", "command": ["test", "-e", "well"], "interval_seconds": 0.1, "unready_threshold": 2}
    spec = app(app_folder, source, ready=ready, restart={"max_restarts": 0})
    controller.assign(target(spec, 1), specs=(spec,))
    await controller.until_state(WORKER, "STARTING")
    (app_folder / "well").touch()
    ready_worker = await controller.until_state(WORKER, "READY")
    (app_folder / "well").unlink()
    unready = await controller.until_state(WORKER, "UNREADY")
    await controller.until(lambda: controller.workers[WORKER].reason == "test exited with 1")
    (app_folder / "well").touch()
    await controller.until_state(WORKER, "READY")
    await controller.until(lambda: controller.workers[WORKER].reason == "")
    assert unready.pid == ready_worker.pid
    os.kill(ready_worker.pid, signal.SIGKILL)
    await controller.until_state(WORKER, "FAILED")
    await controller.until(lambda: list(controller.workers[WORKER].last_lines) == ["begun", "trouble"])


async def test_a_worker_that_never_says_it_is_ready_has_failed_to_start(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    says = "import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
    says += "s.connect(os.environ['NOTIFY_SOCKET']); s.send(b'READY=1\\nSTATUS=warm'); "
    ready = {"method": "notify", "start_timeout_seconds": 5}
    spec = app(app_folder, says + WAIT, ready=ready)
    controller.assign(target(spec, 1), specs=(spec,))
    worker = await controller.until_state(WORKER, "READY")
    await controller.until(lambda: controller.workers[WORKER].status_text == "warm")
    silent = app(
        app_folder, WAIT, ready={**ready, "start_timeout_seconds": 0.5}, restart={"max_restarts": 0}, name="mute"
    )
    controller.assign(target(spec, 1), target(silent, 1), specs=(silent,))
    failed = await controller.until_state(("mute", 1, 1), "FAILED")
    assert failed.reason.startswith("not ready within 0.5 s: it did not send READY=1")
    assert alive(worker.pid)


async def test_a_worker_above_its_memory_limit_is_asked_to_be_replaced_until_it_is_gone(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    spec = app(app_folder, f"x = b'x' * {60 * MIB}; {WAIT}", limits={"memory_restart_bytes": 30 * MIB})
    controller.assign(target(spec, 1), specs=(spec,))
    await controller.until(lambda: len(controller.demands) >= 2)
    demand = controller.demands[0]
    assert (demand.worker.app, demand.worker.slot, demand.pid) == ("job", 1, controller.workers[WORKER].pid)
    assert demand.reason.startswith("memory: ")
    controller.assign(target(spec, 1, phase="PHASE_STOP"))
    await controller.until_state(WORKER, "EXITED")


@pytest.mark.parametrize(("exit_code", "state"), [(0, "EXITED"), (3, "FAILED")])
async def test_a_job_that_ended_rests_also_when_the_agent_restarts(
    controller: FakeController, host: RunningHost, app_folder: Path, exit_code: int, state: str
) -> None:
    """Whether it is done or failed, `never` runs it once."""
    source = f"open('ran', 'a').write('x'); raise SystemExit({exit_code})"
    spec = app(app_folder, source, restart={"mode": "never"}, env_files=[str(app_folder / "env")])
    (app_folder / "env").write_text("A=1")
    controller.assign(target(spec, 1), specs=(spec,))
    ended = await controller.until_state(WORKER, state)
    assert (ended.phase, ended.reason) == (types_pb2.PHASE_RUN, f"exit code {exit_code}")
    (app_folder / "env").write_text("A=2")
    await host.end_agent()
    await host.start_agent()
    await controller.until_session()
    controller.assign(target(spec, 1), target(spec, 2))
    await controller.until_state(("job", 2, 1), state)
    assert controller.state(WORKER) == f"WORKER_STATE_{state}"
    assert (app_folder / "ran").read_text() == "xx"


async def test_workers_of_a_socket_app_share_one_port_over_generations(
    controller: FakeController, host: RunningHost, app_folder: Path
) -> None:
    source = """
import http.server, os, socket
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ['FLEET_GENERATION'].encode())
server = http.server.HTTPServer(('', 0), Answer, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.socket.setblocking(True)
server.serve_forever()
"""
    spec = app(app_folder, source, listen_mode="socket", ready={"http_path": "/", "min_uptime_seconds": 0.3})
    controller.assign(target(spec, 1), target(spec, 2), specs=(spec,))
    first = await controller.until_state(WORKER, "READY")
    second = await controller.until_state(("job", 2, 1), "READY")
    assert first.port == second.port > 0
    controller.assign(target(spec, 1, 2))
    third = await controller.until_state(("job", 1, 2), "READY")
    assert third.port == first.port
    await controller.until(lambda: set(controller.workers) == {("job", 1, 2)})

    def get() -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{third.port}/", timeout=5) as answer:
            return bytes(answer.read())

    assert await asyncio.to_thread(get) == b"2"
