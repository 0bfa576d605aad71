"""What a spec says of memory, environment, readiness and restarts, seen from outside a whole fleet."""

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.integration.fleet.harness import Fleet, load_on, wait_for
from tests.integration.fleet.judge import assert_none_failed
from tests.ports import free_address

_GROWING = """
const http = require('node:http');
let kept = [];
http.createServer((request, response) => {
  if (request.url === '/grow') kept.push(Buffer.alloc(200 * 1024 * 1024, 1));
  const body = [];
  request.on('data', (chunk) => body.push(chunk));
  request.on('end', () => setTimeout(() => {
    response.setHeader('Content-Type', 'application/json');
    response.end(request.method === 'POST' ? Buffer.concat(body) : JSON.stringify({ pid: process.pid, env: process.env }));
  }, 20));
}).listen(3000);
"""


@pytest.fixture(scope="module")
def script(fleet: Fleet) -> Path:
    path = fleet.folder / "growing.js"
    path.write_text(_GROWING)
    return path


def _answer(address: str, path: str = "/") -> dict[str, object]:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as response:
        answer = json.load(response)
    assert isinstance(answer, dict)
    return answer


def test_a_worker_above_its_memory_limit_is_replaced_start_first(fleet: Fleet, script: Path) -> None:
    """Guards invariants 1 and 7: the replacement is a rollout like any other."""
    address = free_address()
    fleet.do("start", str(script), "-n", "grows", "-i", "3", "--http", address, "--max-memory", "180M")
    before = {worker["pid"]: worker for worker in fleet.workers("grows")}
    with load_on(address, fleet.folder) as load:
        grown = _answer(address, "/grow")["pid"]
        wait_for(lambda: len(fleet.pids("grows")) == 3 and grown not in fleet.pids("grows"), "it is replaced", 60)
        load.wait_for_more(100)
        summary = load.stop()

    assert_none_failed(summary)
    after = {worker["id"]: worker for worker in fleet.workers("grows")}
    assert isinstance(grown, int)
    replaced = after[before.pop(grown)["id"]]
    assert replaced["generation"] == 2
    assert replaced["restarts"] == 0
    assert {worker["pid"] for worker in before.values()} < {worker["pid"] for worker in after.values()}
    assert "memory" in fleet.ask("rollout", "status", "grows")["cause"]
    fleet.do("remove", "grows", "-y")


def test_a_worker_sees_its_files_its_app_and_its_own_variables_and_no_others(fleet: Fleet, script: Path) -> None:
    (fleet.folder / "app.env").write_text("# shared\nexport FROM_FILE='in the file'\nOVERRIDDEN=file\n")
    address = free_address()
    fleet.do(
        *("start", str(script), "-n", "envs", "-i", "1", "--http", address, "--env-file", "app.env"),
        *("-e", "OVERRIDDEN=app", "--worker-env", "1:ONLY=mine"),
    )
    env = _answer(address)["env"]
    assert isinstance(env, dict)
    assert (env["FROM_FILE"], env["OVERRIDDEN"], env["ONLY"]) == ("in the file", "app", "mine")
    assert env["NODE_ENV"] == "production"
    assert "FLEET_CONFIG" not in env

    (fleet.folder / "app.env").write_text("OVERRIDDEN=file\n")
    fleet.do("soft-restart", "envs")
    env = _answer(address)["env"]
    assert isinstance(env, dict)
    assert "FROM_FILE" not in env
    fleet.do("remove", "envs", "-y")


def test_an_app_that_never_says_it_is_ready_fails_to_start_and_tells_why(fleet: Fleet, script: Path) -> None:
    """Guards invariant 10."""
    arguments = ("start", str(script), "-n", "mute", "-i", "1", "--http", free_address())
    result = fleet.run(*arguments, "--ready", "notify", "--start-timeout", "2")
    assert result.code == 1
    assert "mute" in result.errors
    assert "Traceback" not in result.errors + result.output
    fleet.do("remove", "mute", "-y")


def test_a_worker_that_may_rest_is_not_started_again(fleet: Fleet) -> None:
    command = ("start", "sh", "-n", "rests", "-i", "1", "--no-port", "--restart", "on-failure", "--min-uptime", "0.1")
    fleet.do(*command, "--", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
    (worker,) = fleet.workers("rests")
    os.kill(worker["pid"], signal.SIGTERM)
    wait_for(lambda: fleet.ask("ps", "rests")[0]["state"] == "exited", "the worker rests")
    os.kill(fleet.daemon("agent", worker["host"])[1], signal.SIGKILL)
    wait_for(lambda: fleet.ask("host", "ls")[int(worker["host"][4:]) - 1]["state"] == "online", "the agent is back")
    assert fleet.ask("ps", "rests")[0]["state"] == "exited"
    fleet.do("remove", "rests", "-y")


@pytest.mark.parametrize(("exit_code", "expected"), [(0, 0), (3, 1)])
def test_a_job_that_may_run_once_is_started_when_it_is_done_and_failed_when_it_broke(
    fleet: Fleet, exit_code: int, expected: int
) -> None:
    """Guards invariant 10."""
    script = f"echo last words; exit {exit_code}"
    result = fleet.run(
        "start", "-n", "job", "-i", "1", "--listen", "none", "--restart", "never", "--", "sh", "-c", script
    )
    try:
        assert result.code == expected, result.errors
        if expected:
            assert f"exit code {exit_code}" in result.errors
            assert "last words" in result.errors
    finally:
        fleet.do("remove", "job", "-y")
