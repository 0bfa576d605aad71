"""Unmodified Node programs with the preload: messages below `npm start`, and one listening socket for all workers of an app."""

import asyncio
import http.client
import os
import shutil
import signal
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.integration.node_versions import VERSIONS
from tests.integration.supervisor.node_programs import answer, answered_by, program, sharing
from tests.integration.supervisor.running import KEY, RunningSupervisor, eventually
from tests.ports import free_port

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="needs node and npm on PATH")
OTHER = KEY._replace(slot=2)
HELLO = "require('http').createServer((q, r) => r.end(String(process.pid))).listen(3000);"
MODULE = """
    import { createServer } from 'node:http';
    createServer((q, r) => r.end(String(process.pid))).listen({ port: 3000, host: '::' });
"""
MESSAGES = """
    const fs = require('fs');
    process.send('ready', (error) => fs.writeFileSync('sent', String(error)));
    process.on('message', (message) => { fs.writeFileSync('heard', message); process.exit(0); });
"""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("argv", [("node", "app.js"), ("npm", "start")], ids=" ".join)
async def test_messages_pass_both_ways(
    host: RunningSupervisor, tmp_path: Path, version: str, argv: tuple[str, ...]
) -> None:
    messaging = program(
        MESSAGES, tmp_path / "app", *argv, version=version, channel=True, ready_by="message", shutdown_message=True
    )
    await host.run(messaging)
    await host.until(lambda worker: worker.state == "running")
    sent = tmp_path / "app/sent"
    await eventually(lambda: sent.exists() and sent.read_text() == "null", "send() called back without an error")
    await host.client.stop(KEY, signal.SIGTERM, 60)
    assert (await host.until(lambda worker: worker.state == "exited")).reason == "exit code 0"
    assert (tmp_path / "app/heard").read_text() == "shutdown"


async def test_below_npm_too_a_message_said_while_no_supervisor_lives_arrives(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    """Guards invariant 3."""
    source = """
        const fs = require('fs');
        process.on('disconnect', () => fs.writeFileSync('disconnected', ''));
        const wait = setInterval(() => {
          if (!fs.existsSync('go')) return;
          clearInterval(wait);
          process.send('ready', () => fs.writeFileSync('sent', ''));
          setInterval(() => process.send({ later: 1 }), 10);
        }, 10);
        process.on('message', () => process.exit(3));
        fs.writeFileSync('up', '');
    """
    folder = tmp_path / "app"
    worker = await host.run(
        program(source, folder, "npm", "start", channel=True, ready_by="message", shutdown_message=True)
    )
    await eventually((folder / "up").exists, "the program runs")
    await host.kill()
    (folder / "go").touch()
    await eventually((folder / "sent").exists, "send() does not wait")
    await host.start()
    assert (await host.until(lambda worker: worker.state == "running")).pid == worker.pid
    await host.client.stop(KEY, signal.SIGTERM, 60)
    await host.until(lambda worker: worker.state == "exited")
    assert not (folder / "disconnected").exists()


async def test_a_program_without_use_for_messages_ends_by_itself(host: RunningSupervisor, tmp_path: Path) -> None:
    quiet = program(
        "if (process.send) process.send('hello');", tmp_path / "app", "npm", "start", channel=True, max_restarts=0
    )
    await host.client.run(KEY, quiet)
    assert (await host.until(lambda worker: worker.state == "failed")).reason.startswith("exit code 0")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("source", "name", "argv"),
    [
        (HELLO, "app.js", ("node", "app.js")),
        (MODULE, "app.mjs", ("node", "app.mjs")),
        (HELLO, "app.js", ("npm", "start")),
    ],
    ids=["CommonJS", "ES module", "npm start"],
)
async def test_workers_share_the_socket_instead_of_the_port_in_their_source(
    host: RunningSupervisor, tmp_path: Path, version: str, source: str, name: str, argv: tuple[str, ...]
) -> None:
    port = free_port()
    for key in (KEY, OTHER):
        await host.run(sharing(source, tmp_path / "app", port, *argv, version=version, name=name), key)
        await host.until(lambda worker: worker.state == "running", key)
    pids = [host.workers[key].pid for key in (KEY, OTHER)]
    if argv == ("npm", "start"):
        pids = [_below(pid) for pid in pids]
    await answered_by(port, *pids)


def _below(pid: int) -> int:
    """The process below npm and its shell."""
    while True:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            return pid
        pid = int(children[0])


async def test_a_cluster_and_helper_processes_work_beside_the_shared_socket(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    port, metrics = free_port(), free_port()
    source = """
        const cluster = require('cluster'), http = require('http'), childProcess = require('child_process');
        if (cluster.isPrimary) {
          childProcess.fork('helper.js');
          for (let i = 0; i < 2; i++) cluster.fork();
        } else {
          http.createServer((q, r) => r.end('1')).listen(3000);
        }
    """
    (tmp_path / "app").mkdir()
    (tmp_path / "app/helper.js").write_text(f"""
        const up = () => require('fs').writeFileSync('helper', '');
        require('http').createServer((q, r) => r.end('2')).listen({metrics}, '127.0.0.1', up);
    """)
    await host.run(sharing(source, tmp_path / "app", port))
    await host.until(lambda worker: worker.state == "running")
    await answered_by(port, 1)
    await eventually((tmp_path / "app/helper").exists, "the helper listens")
    await answered_by(metrics, 2)


async def test_a_program_that_never_listens_is_never_ready(host: RunningSupervisor, tmp_path: Path) -> None:
    """The socket accepts for it meanwhile, so no probe could tell."""
    source = "require('fs').writeFileSync('up', ''); setInterval(() => {}, 1000);"
    await host.run(sharing(source, tmp_path / "app", free_port()))
    await eventually((tmp_path / "app/up").exists, "the program runs")
    await asyncio.sleep(0.3)
    assert host.workers[KEY].state == "starting"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("argv", [("node", "app.js"), ("npm", "start")], ids=" ".join)
async def test_a_worker_that_shares_its_socket_drains_before_it_ends(
    host: RunningSupervisor, tmp_path: Path, version: str, argv: tuple[str, ...]
) -> None:
    port = free_port()
    source = """
        const fs = require('fs');
        require('http').createServer((request, response) => {
          if (request.url === '/slow') {
            fs.writeFileSync('slow', '');
            const wait = setInterval(() => {
              if (fs.existsSync('go')) { clearInterval(wait); response.end('slow'); }
            }, 10);
          } else {
            response.end(process.env.FLEET_GENERATION);
          }
        }).listen(3000);
    """
    folder = tmp_path / "app"
    old, new = (
        sharing(source, folder, port, *argv, version=version, shutdown_message=True, grace_seconds=60) for _ in range(2)
    )
    old.env["FLEET_GENERATION"], new.env["FLEET_GENERATION"] = "1", "2"
    await host.run(old)
    await host.until(lambda worker: worker.state == "running")
    with ExitStack() as connections:
        kept, slow = (
            connections.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)))
            for _ in range(2)
        )
        kept.request("GET", "/")
        assert kept.getresponse().read() == b"1"
        slow.request("GET", "/slow")
        await eventually((folder / "slow").exists, "the request is in flight")
        await host.run(new, KEY._replace(generation=2))
        await host.until(lambda worker: worker.state == "running", KEY._replace(generation=2))
        await host.client.stop(KEY, signal.SIGTERM, 60)
        await eventually(lambda: {answer(port) for _ in range(20)} == {"2"}, "only the new one accepts")
        (folder / "go").touch()
        assert slow.getresponse().read() == b"slow"
        ended = await host.until(lambda worker: worker.state == "exited")
    assert ended.reason in ("killed by SIGTERM", "exit code 143", "exit code 1"), "as the signal would have ended it"


async def test_a_program_that_listens_to_messages_drains_as_it_sees_fit(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    port = free_port()
    source = """
        const server = require('http').createServer((q, r) => r.end('1')).listen(3000);
        process.on('message', (message) => {
          if (message === 'shutdown') server.close((error) => process.exit(error ? 1 : 9));
        });
    """
    await host.run(sharing(source, tmp_path / "app", port, shutdown_message=True))
    await host.until(lambda worker: worker.state == "running")
    await host.client.stop(KEY, signal.SIGTERM, 60)
    assert (await host.until(lambda worker: worker.state == "exited")).reason == "exit code 9"


async def test_a_crash_in_the_middle_of_a_busy_shared_socket_refuses_no_connection(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    port = free_port()
    worker = await host.run(sharing(HELLO, tmp_path / "app", port))
    for _ in range(5):
        await answered_by(port, worker.pid)
        os.kill(worker.pid, signal.SIGKILL)
        worker = await host.until(lambda again, before=worker.pid: again.pid not in (0, before))
