"""Supervisors that die at any instruction while workers talk to them. Guards invariant 3."""

import asyncio
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest

from fleet_agent.supervisor.protocol import Key, Launch
from fleet_agent.supervisor_client import SupervisorUnavailable
from tests.integration.supervisor import dying_supervisor_points
from tests.integration.supervisor.fd_store import FdStore
from tests.integration.supervisor.node_programs import answered_by
from tests.integration.supervisor.running import KEY, RunningSupervisor, alive, eventually, launch, python
from tests.ports import free_port

TALKING = """
import http.server, os, signal, socket, threading, time
notifier = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(text):
    notifier.sendto(text.encode(), os.environ['NOTIFY_SOCKET'])
channel = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))
def chat():
    while True:
        channel.sendall(b'{"any":"thing"}\\n')  # SIGPIPE or an error ends the program
        say('STATUS=' + str(time.monotonic_ns()))
        time.sleep(0.005)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())
    def log_message(self, *args):
        pass
class Server(http.server.HTTPServer):
    def get_request(self):
        while True:
            try:
                return super().get_request()
            except BlockingIOError:
                time.sleep(0.001)
listener = socket.socket(fileno=2 + int(os.environ['LISTEN_FDS']))
server = Server(listener.getsockname(), Handler, bind_and_activate=False)
server.socket = listener
open('starts', 'a').write(f'{os.getpid()}\\n')
def crash():
    os._exit(1)
for part in (server.serve_forever, chat):
    def run(part=part):
        try:
            part()
        except BaseException as error:
            open('errors', 'a').write(f'{error!r}\\n')
            crash()
    threading.Thread(target=run).start()
time.sleep(0.2)
say('READY=1')
if channel.recv(100) == b'"shutdown"\\n':
    os._exit(5)
open('errors', 'a').write('the channel was closed\\n')
crash()
"""


def talking(folder: Path, port: int) -> Launch:
    return python(
        TALKING,
        folder,
        notify=True,
        ready_by="notify",
        channel=True,
        shutdown_message=True,
        listen_address="127.0.0.1",
        listen_port=port,
        grace_seconds=60.0,
    )


def starts(folder: Path) -> list[str]:
    return (folder / "starts").read_text().split() if (folder / "starts").exists() else []


@pytest.mark.parametrize("store", [True, False], ids=["fd store", "copies in the workers"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "upgraded"])
async def test_workers_talk_on_through_many_deaths(
    folders: RunningSupervisor, tmp_path: Path, store: bool, number: signal.Signals
) -> None:
    dice = random.Random(7)
    port = free_port()
    if store:
        folders.store = FdStore(tmp_path / "manager.sock")
    await folders.start()
    keys = [Key("shop", slot, 1) for slot in (1, 2)]
    pids = [(await folders.run(talking(tmp_path, port), key)).pid for key in keys]
    for _ in range(12):
        await asyncio.sleep(dice.random() * 0.1)
        await folders.kill(number)
        await answered_by(port, *pids)
        await folders.start()
        assert [folders.workers[key].pid for key in keys] == pids
    for key in keys:
        await folders.until(lambda worker: worker.state == "running", key)
        said = folders.workers[key].status_text
        await folders.until(lambda worker, before=said: worker.status_text != before, key)
        await folders.client.stop(key, signal.SIGTERM, 60)
        assert (await folders.until(lambda worker: worker.state == "exited", key)).reason in (
            "exit code 5",
            "exit status unknown",
        )
    assert sorted(starts(tmp_path)) == sorted(map(str, pids))
    assert not (tmp_path / "errors").exists()
    if folders.store is not None:
        assert folders.store.names == []


@pytest.mark.parametrize("point", dying_supervisor_points.POINTS)
async def test_a_supervisor_killed_while_it_starts_a_talking_worker_leaves_nothing_behind(
    folders: RunningSupervisor, tmp_path: Path, point: str
) -> None:
    script, made = str(Path(dying_supervisor_points.__file__).with_name("dying_supervisor.py")), tmp_path / "made"
    folders.store = FdStore(tmp_path / "manager.sock")
    port = free_port()
    await folders.start(sys.executable, script, point, str(made), "0")
    with pytest.raises(SupervisorUnavailable):
        await folders.client.run(KEY, talking(tmp_path, port))
    assert await folders.ended() == -signal.SIGKILL
    pid = int(made.read_text())
    if point == "after release":
        await eventually(lambda: starts(tmp_path) == [str(pid)], "the process runs, unwatched")
    elif pid:
        await eventually(lambda: not alive(pid), "the process that was never released ended by itself")
    await folders.start()
    await folders.client.run(KEY, talking(tmp_path, port))
    worker = await folders.until(lambda worker: worker.state == "running")
    assert starts(tmp_path) == [str(worker.pid)]
    names = [f"{kind}.shop.1.1.{worker.pid}.{worker.start_ticks}" for kind in ("channel", "notify")]
    assert sorted(folders.store.names) == [*names[:1], f"listen.shop.127.0.0.1.{port}", *names[1:]]
    await answered_by(port, worker.pid)


async def test_a_worker_of_another_user_may_speak(host: RunningSupervisor, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to start a process as somebody else")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    source = """
import os, socket, time
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])
socket.socket(socket.AF_UNIX).connect(os.environ['FLEET_CHANNEL'])
time.sleep(1000)
"""
    if shutil.which("python3", path="/usr/bin") is None:
        pytest.skip("needs a Python that everybody may run")
    argv = ("/usr/bin/python3", "-S", "-c", source)
    await host.run(launch(*argv, notify=True, ready_by="notify", channel=True, user="nobody", max_restarts=0))
    await host.until(lambda worker: worker.state == "running")
