"""`make faults-points`: a supervisor killed before each of its system calls, from a worker's first start to its last trace.

A worker with everything a worker can have (log pipes, notify socket, channel, listening socket) is started, crashes, is
started again, is stopped and forgotten. Before one system call of that the supervisor dies, and the next one goes on.
Whatever the call: the program was started twice and no more, each of its lines arrived once, and nothing is left of it in
journal, folders, fd store and among processes.

Exit codes: 0 kept, 1 a promise broken.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from fleet_agent.supervisor.processes import living_by_session
from fleet_agent.supervisor.protocol import Launch, Worker
from fleet_agent.supervisor_client import SupervisorUnavailable
from tests.faults import dying_at
from tests.integration.supervisor.fd_store import FdStore
from tests.integration.supervisor.running import KEY, RunningSupervisor, alive, python
from tests.ports import free_port

SINCE = ("run", "start")
"""The first supervisor dies after it was asked to run the worker; or the second one, which adopts it, after its start."""
_PROGRAM = """
import os, signal, socket
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
socket.socket(fileno=3).getsockname()
socket.socket(fileno=4).sendall(b'{"any":"thing"}\\n')
os.write(1, b'begun %d\\n' % os.getpid())
with open('starts', 'a') as file:
    file.write('%d\\n' % os.getpid())
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])
signal.sigwait([signal.SIGTERM])
os.write(1, b'ended %d' % os.getpid())
"""
_FOLDERS = ("journal", "fifos", "contact")
_SCENE_SECONDS = 60.0
_RESTARTS = (1, 2)
"""Nothing tells a process that was recorded, and ended before it was released, from one whose program ended at once."""


class Scene:
    """Runs once in `folder`; `point` then says where the supervisor died, "" where it did not come so far."""

    def __init__(self, folder: Path, number: int, since: str) -> None:
        self._folder = folder
        self._dying = (sys.executable, dying_at.__file__, str(number), since, str(folder / "point"))
        self._since = since
        self._supervisor = RunningSupervisor(folder)
        self._store = self._supervisor.store = FdStore(folder / "manager.sock")
        self._timestamps = bool(number % 2)
        """With them the last words, which have no end of line, go another way."""

    @property
    def point(self) -> str:
        file = self._folder / "point"
        return file.read_text() if file.exists() else ""

    async def run(self) -> list[str]:
        """What is wrong."""
        try:
            async with asyncio.timeout(_SCENE_SECONDS):
                return await self._run()
        except TimeoutError:
            return [f"nothing more happened; the last report was {self._supervisor.history[-1:]}"]
        finally:
            await self._supervisor.clean_up()

    async def _run(self) -> list[str]:
        self._store.serve()
        wanted = self._launch()
        supervisor = self._supervisor
        await supervisor.start(*(self._dying if self._since == "run" else ()))
        first = await self._reach(lambda: supervisor.client.run(KEY, wanted), lambda worker: worker.state == "running")
        if self._since == "start":
            await supervisor.kill()
            await self._start(*self._dying)
            await self._reach(_nothing, lambda worker: worker.state == "running")
        os.kill(first.pid, signal.SIGKILL)
        second = await self._reach(
            _nothing, lambda worker: worker.state == "running" and worker.pid not in (0, first.pid)
        )
        await self._reach(
            lambda: supervisor.client.stop(KEY, signal.SIGTERM, 30), lambda worker: worker.state == "exited"
        )
        await self._reach(lambda: supervisor.client.forget(KEY), None)
        try:
            await supervisor.client.hello()  # what it does at the end of a turn is done
        except SupervisorUnavailable:
            await self._revive()
        return self._findings([first, second])

    def _launch(self) -> Launch:
        return python(
            _PROGRAM,
            self._folder,
            notify=True,
            ready_by="notify",
            channel=True,
            listen_address="127.0.0.1",
            listen_port=free_port(),
            log_timestamps=self._timestamps,
            backoff_initial_seconds=0.01,
            backoff_max_seconds=0.01,
        )

    async def _start(self, *program: str) -> None:
        with contextlib.suppress(AssertionError):  # it died before it served anybody
            await self._supervisor.start(*program)
            return
        await self._revive()

    async def _reach(self, ask: Callable[[], Awaitable[None]], reached: Callable[[Worker], bool] | None) -> Worker:
        """Asks, again of each supervisor, until the worker is so; None: until it is gone. Returns its last report."""
        supervisor = self._supervisor
        last: Worker | None = None
        while True:
            last = supervisor.workers.get(KEY, last)
            with contextlib.suppress(SupervisorUnavailable):
                if reached is not None or KEY in supervisor.workers:
                    await ask()
            waiting = asyncio.create_task(supervisor.until_gone(KEY) if reached is None else supervisor.until(reached))
            dying = asyncio.create_task(supervisor.death())
            await asyncio.wait({waiting, dying}, return_when=asyncio.FIRST_COMPLETED)
            dying.cancel()
            if waiting.done() and not supervisor.dead:
                return waiting.result() or last  # type: ignore[return-value]
            waiting.cancel()
            await asyncio.gather(waiting, dying, return_exceptions=True)
            await self._revive()

    async def _revive(self) -> None:
        await self._supervisor.ended()
        await self._supervisor.start()

    def _findings(self, workers: list[Worker]) -> list[str]:
        found = []
        pids = [str(worker.pid) for worker in workers]
        starts = (self._folder / "starts").read_text().split()
        if starts != pids:
            found.append(f"processes {starts} ran the program, {pids} were reported")
        if workers[-1].restarts not in _RESTARTS:
            found.append(f"{workers[-1].restarts} restarts were counted")
        said = ["begun " + pid for pid in pids] + ["ended " + pids[-1]]
        lines = [line.split(" ", 1)[-1] if self._timestamps else line for line in self._supervisor.log().splitlines()]
        if lines != said:
            found.append(f"the log holds {lines}")
        if left := self._store.names + self._store.log_names:
            found.append(f"the fd store holds {left}")
        runtime_dir = self._supervisor.runtime_dir
        folders = {name: sorted(path.name for path in (runtime_dir / name).iterdir()) for name in _FOLDERS}
        found += [f"{name} holds {left}" for name, left in folders.items() if left]
        if living := [pid for members in living_by_session().values() for pid, _ in members if self._is_ours(pid)]:
            found.append(f"processes {living} live")
        return found

    def _is_ours(self, pid: int) -> bool:
        """Processes that wait for a next start know nothing of a worker, and have no environment."""
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        return f"FLEET_TEST={self._folder}".encode() in environment.split(b"\0") and alive(pid)


async def _nothing() -> None:
    pass


async def _sweep(since: str, first: int, last: int) -> int:
    broken = 0
    for number in range(first, last):
        with tempfile.TemporaryDirectory(prefix="fleet-points-") as folder:
            scene = Scene(Path(folder), number, since)
            findings = await scene.run()
            point = scene.point
            if not point:
                print(f"since {since}: {number} points")
                break
        broken += bool(findings)
        for finding in findings:
            print(f"BROKEN at {since} {number}, before {point}: {finding}", flush=True)
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kill_points", description=__doc__)
    parser.add_argument("--since", choices=SINCE, help="default: both")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, default=1_000_000)
    arguments = parser.parse_args()
    broken = 0
    for since in [arguments.since] if arguments.since else SINCE:
        broken += asyncio.run(_sweep(since, arguments.first, arguments.last))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
