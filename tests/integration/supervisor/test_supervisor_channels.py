"""Node programs, their channel and their shared listening sockets, through deaths of the supervisor.

What runs here are the programs as a user writes them; the preload has a part only where a test names it.
"""

import contextlib
import os
import shutil
import signal
import socket
import urllib.request
from pathlib import Path

import pytest

import fleet_agent
from fleet_agent.supervisor.protocol import Key, Launch
from tests.integration.supervisor.fd_store import FdStore
from tests.integration.supervisor.running import KEY, RunningSupervisor, alive, eventually, launch
from tests.ports import free_port

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node on PATH")
PRELOAD = Path(fleet_agent.__file__).parent / "node" / "preload.js"
OTHER = Key("shop", 2, 1)


@pytest.fixture(params=["fd store", "copies in the workers"])
async def keeping(request: pytest.FixtureRequest, folders: RunningSupervisor, tmp_path: Path) -> RunningSupervisor:
    """A supervisor that runs, with a service manager or without one."""
    if request.param == "fd store":
        folders.store = FdStore(tmp_path / "manager.sock")
    await folders.start()
    return folders


def node(source: str, folder: Path, *argv: str, preload: bool = False, **changes: object) -> Launch:
    (folder / "app.js").write_text(source)
    made = launch(*(argv or ("node", "app.js")), cwd=folder, **changes)
    env = {"HOME": str(folder), "npm_config_update_notifier": "false", **made.env}
    if preload:
        env["NODE_OPTIONS"] = f'--require "{PRELOAD}"'
    made.env.update(env)
    return made


def messaging(source: str, folder: Path, *argv: str, **changes: object) -> Launch:
    return node(source, folder, *argv, **{"channel": True, "ready_by": "message", **changes})


async def test_the_message_ready_makes_a_worker_ready(host: RunningSupervisor, tmp_path: Path) -> None:
    source = "process.send({ type: 'process:msg' }); process.send('ready'); process.on('message', () => {});"
    worker = await host.run(messaging(source, tmp_path))
    assert (await host.until(lambda worker: worker.state == "running")).pid == worker.pid


async def test_no_death_of_the_supervisor_closes_the_channel(keeping: RunningSupervisor, tmp_path: Path) -> None:
    """Guards invariant 3: a closed one ends the program at its next process.send()."""
    source = """
        const fs = require('fs');
        process.on('disconnect', () => fs.writeFileSync('disconnected', ''));
        let n = 0;
        setInterval(() => { process.send({ n: ++n, text: 'x'.repeat(1000) }); fs.appendFileSync('sent', '.'); }, 2);
        const wait = setInterval(() => {
          if (fs.existsSync('go')) { clearInterval(wait); process.send('ready'); }
        }, 10);
        process.on('message', (message) => { fs.writeFileSync('heard', message); process.exit(7); });
    """
    worker = await keeping.run(messaging(source, tmp_path, shutdown_message=True))

    def sent() -> int:
        return (tmp_path / "sent").stat().st_size if (tmp_path / "sent").exists() else 0

    await eventually(lambda: sent() > 10, "the program runs")
    for _ in range(3):
        await keeping.kill()
        before = sent()
        await eventually(lambda: sent() > before + 300, "it sends on, more than a socket holds")  # noqa: B023
        await keeping.start()
        assert keeping.workers[KEY].pid == worker.pid
    (tmp_path / "go").touch()
    await keeping.until(lambda worker: worker.state == "running")
    await keeping.client.stop(KEY, signal.SIGTERM, 10)
    ended = await keeping.until(lambda worker: worker.state == "exited")
    assert ended.reason == "exit code 7"
    assert (tmp_path / "heard").read_text() == "shutdown"
    assert not (tmp_path / "disconnected").exists()
    if keeping.store is not None:
        assert keeping.store.names == []


async def test_a_program_that_hears_no_message_gets_the_signal_after_half_the_grace(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    await host.run(messaging("setInterval(() => {}, 1000); process.send('ready');", tmp_path, shutdown_message=True))
    await host.until(lambda worker: worker.state == "running")
    await host.client.stop(KEY, signal.SIGTERM, 1.0)
    assert (await host.until(lambda worker: worker.state == "exited")).reason == "killed by SIGTERM"


async def test_a_program_that_closed_its_channel_gets_the_signal_at_once(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    source = (
        f"process.on('disconnect', () => require('fs').writeFileSync('{closed}', ''));"
        "process.send('ready', () => process.disconnect()); setInterval(() => {}, 1000);"
    )
    await host.run(messaging(source, tmp_path, shutdown_message=True))
    await host.until(lambda worker: worker.state == "running")
    await eventually(closed.exists, "the program closed its channel")
    await host.client.stop(KEY, signal.SIGTERM, 1000.0)
    assert (await host.until(lambda worker: worker.state == "exited")).reason == "killed by SIGTERM"


async def test_a_program_that_never_reads_blocks_nobody(host: RunningSupervisor, tmp_path: Path) -> None:
    await host.run(messaging("process.send('ready', () => { for (;;); });", tmp_path, shutdown_message=True))
    await host.until(lambda worker: worker.state == "running")
    other = await host.run(launch("sleep", "1000"), OTHER)
    await host.client.stop(KEY, signal.SIGTERM, 1.0)
    await host.client.stop(OTHER, signal.SIGTERM, 1.0)
    await host.until(lambda worker: worker.state == "exited", OTHER)
    assert not alive(other.pid)
    await host.until(lambda worker: worker.state == "exited")


async def test_a_crashed_program_gets_a_new_channel(host: RunningSupervisor, tmp_path: Path) -> None:
    first = await host.run(messaging("process.send('ready'); setInterval(() => {}, 1000);", tmp_path))
    await host.until(lambda worker: worker.state == "running")
    os.kill(first.pid, signal.SIGKILL)
    second = await host.until(lambda worker: worker.state == "running" and worker.pid != first.pid)
    assert second.restarts == 1


def answer(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
        return str(response.read().decode())


def refused(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


LISTENING = """
    const server = require('http').createServer((q, r) => r.end(String(process.pid)));
    server.keepAliveTimeout = 1;
    server.listen({ fd: Number(process.env.LISTEN_FDS) + 2 }, () => console.log(process.env.LISTEN_PID, process.pid));
"""


async def answered_by(port: int, *pids: int) -> None:
    """Each of them, at some time; and nobody else."""
    seen: set[int] = set()

    def all_seen() -> bool:
        seen.add(int(answer(port)))
        return seen >= set(pids)

    await eventually(all_seen, "every worker answers")
    assert seen == set(pids)


async def test_workers_share_a_listening_socket_over_generations_and_deaths_of_the_supervisor(
    keeping: RunningSupervisor, tmp_path: Path
) -> None:
    """Guards invariant 3."""
    port = free_port()
    listening = node(LISTENING, tmp_path, listen_address="127.0.0.1", listen_port=port)
    first, second = [(await keeping.run(listening, key)).pid for key in (KEY, OTHER)]
    await answered_by(port, first, second)
    await eventually(lambda: keeping.log().split() == [str(first)] * 2, "LISTEN_PID is the worker's own")
    await keeping.kill()
    await answered_by(port, first, second)
    await keeping.start()
    third = (await keeping.run(listening, KEY._replace(generation=2))).pid
    await answered_by(port, first, second, third)
    for key in (KEY, OTHER):
        await keeping.client.stop(key, signal.SIGTERM, 5)
        await keeping.until(lambda worker: worker.state == "exited", key)
    await answered_by(port, third)
    os.kill(third, signal.SIGKILL)
    fourth = await keeping.until(lambda worker: worker.pid not in (0, third), KEY._replace(generation=2))
    await answered_by(port, fourth.pid)  # a connection made meanwhile waits, it is not refused
    await keeping.client.stop(fourth.key, signal.SIGTERM, 5)
    await keeping.until(lambda worker: worker.state == "exited", fourth.key)
    assert refused(port)
    if keeping.store is not None:
        assert keeping.store.names == []


async def test_connections_wait_while_every_worker_is_down(keeping: RunningSupervisor, tmp_path: Path) -> None:
    port = free_port()
    slow = f"setTimeout(() => {{ {LISTENING} }}, 300);"
    worker = await keeping.run(node(slow, tmp_path, listen_address="127.0.0.1", listen_port=port))
    for _ in range(3):
        assert int(answer(port)) == worker.pid
        os.kill(worker.pid, signal.SIGKILL)
        worker = await keeping.until(lambda again, before=worker.pid: again.pid not in (0, before))
        with contextlib.suppress(ProcessLookupError):
            os.kill(keeping.pid, signal.SIGKILL)
        await keeping.ended()
        await keeping.start()


async def test_a_port_that_is_taken_is_named_in_the_reason(host: RunningSupervisor, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = node(LISTENING, tmp_path, listen_address="127.0.0.1", listen_port=port, max_restarts=0)
        await host.client.run(KEY, taken)
        failed = await host.until(lambda worker: worker.state == "failed")
    assert f"listening socket 127.0.0.1:{port}: Address already in use" in failed.reason


async def test_a_stranger_that_took_the_place_of_a_channel_is_not_spoken_to(
    folders: RunningSupervisor, tmp_path: Path
) -> None:
    """What is at the channel's number in the worker, but is not the channel, is not adopted."""
    await folders.start()
    source = """
import os, signal, socket, time
a, b = socket.socketpair()
os.dup2(a.fileno(), 4)
a.close()
open('swapped', 'w')
signal.pthread_sigmask(signal.SIG_BLOCK, ())
b.settimeout(3)
try:
    open('got', 'w').write(repr(b.recv(100)))
except TimeoutError:
    open('got', 'w').write('nothing')
time.sleep(1000)
"""
    program = launch("python3", "-S", "-c", source, cwd=tmp_path, channel=True, shutdown_message=True)
    worker = await folders.run(program)
    await eventually((tmp_path / "swapped").exists, "the program runs")
    await folders.kill()
    await folders.start()
    assert folders.workers[KEY].pid == worker.pid
    await folders.client.stop(KEY, signal.SIGURG, 3.9)
    await eventually(lambda: (tmp_path / "got").exists() and (tmp_path / "got").read_text() != "", "it has waited")
    assert (tmp_path / "got").read_text() == "nothing"
    await folders.until(lambda worker: worker.state == "exited")
