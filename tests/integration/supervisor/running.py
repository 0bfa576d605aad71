"""A real fleet-supervisor in a process of its own, a client of it, and what its workers left behind."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fleet_agent.supervisor.journal import Journal
from fleet_agent.supervisor.processes import here, open_verified, read_stat
from fleet_agent.supervisor.protocol import Key, Launch, Worker
from fleet_agent.supervisor_client import SupervisorClient, SupervisorUnavailable, WorkerEvent
from tests.integration.supervisor.fd_store import FdStore

KEY = Key("shop", 1, 1)
DEADLINE_SECONDS = 20.0
MAIN = [sys.executable, "-m", "fleet_agent.supervisor.main"]


def launch(*argv: str, cwd: Path | str = "/", **changes: object) -> Launch:
    env = {"PATH": os.environ["PATH"], "FLEET_APP": "shop", "FLEET_TEST": str(cwd)}
    return Launch(**{"argv": list(argv), "cwd": str(cwd), "env": env, "grace_seconds": 5.0, **changes})  # type: ignore[arg-type]


def python(source: str, cwd: Path, **changes: object) -> Launch:
    return launch(sys.executable, "-S", "-c", source, cwd=cwd, **changes)


def alive(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and not stat.dead


async def eventually(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - other processes' files and states tell nobody
            await asyncio.sleep(0.005)
    assert condition(), what


class RunningSupervisor:
    """Starts, kills and restarts supervisors on one pair of folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime_dir = folder / "run"
        self.log_dir = folder / "log"
        self.client = SupervisorClient()
        self.workers: dict[Key, Worker] = {}
        self.history: list[Worker] = []
        self.store: FdStore | None = None
        """The service manager's, for supervisors started from then on."""
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self, *program: str) -> None:
        """`program` instead of fleet-supervisor: a test's own, given the same arguments."""
        folders = ["--runtime-dir", str(self.runtime_dir), "--log-dir", str(self.log_dir)]
        argv = [*(program or (*MAIN, "run")), *folders]
        descriptors: tuple[int, ...] = ()
        if self.store is not None:
            argv, descriptors = self.store.passing(argv)
        self._process = await asyncio.create_subprocess_exec(*argv, pass_fds=descriptors)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                assert self._process.returncode is None, "the supervisor ended at once"
                self.client = SupervisorClient()
                with contextlib.suppress(SupervisorUnavailable):
                    await self.client.connect(self.runtime_dir / "supervisor.sock")
                    hello = await self.client.hello()
                    break
                await self.client.close()
                await asyncio.sleep(0.005)
        self.workers = {worker.key: worker for worker in hello.workers}
        self.history = []
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        with contextlib.suppress(SupervisorUnavailable):
            async for event in self.client.events():
                if isinstance(event, WorkerEvent):
                    self.workers[event.worker.key] = event.worker
                    self.history.append(event.worker)
                else:
                    self.workers.pop(event.key, None)
                self._changed.set()

    async def ended(self) -> int:
        """Waits for the supervisor's end and closes the client."""
        assert self._process is not None
        code = await asyncio.wait_for(self._process.wait(), DEADLINE_SECONDS)
        await self.client.close()
        if self._listening is not None:
            await self._listening
        self._process = None
        return code

    @property
    def dead(self) -> bool:
        return self._process is None or self._process.returncode is not None

    async def death(self) -> None:
        """Returns once the supervisor has ended."""
        assert self._process is not None
        await self._process.wait()

    async def kill(self, number: int = signal.SIGKILL) -> int:
        os.kill(self.pid, number)
        return await self.ended()

    async def until(self, predicate: Callable[[Worker], bool], key: Key = KEY) -> Worker:
        """The worker's first report, from now on, that `predicate` holds for."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                worker = self.workers.get(key)
                if worker is not None and predicate(worker):
                    return worker
                self._changed.clear()
                await self._changed.wait()

    async def until_gone(self, key: Key = KEY) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while key in self.workers:
                self._changed.clear()
                await self._changed.wait()

    async def run(self, wanted: Launch, key: Key = KEY) -> Worker:
        await self.client.run(key, wanted)
        return await self.until(lambda worker: worker.pid > 0, key)

    def log(self, key: Key = KEY, stream: str = "out") -> str:
        """All that was logged, the oldest rotated file first; while files are being rotated, perhaps not all of it."""
        current = self.log_dir / key.app / f"{key.slot}.{stream}.log"
        rotated = [path for path in current.parent.glob(f"{current.name}.*") if re.fullmatch(r"\d+", path.suffix[1:])]
        rotated.sort(key=lambda path: -int(path.suffix[1:]))
        return "".join(map(_content, [*rotated, current]))

    async def clean_up(self) -> None:
        """Stops all workers through the supervisor where one runs, else kills what the journal names."""
        if self._process is not None:
            with contextlib.suppress(SupervisorUnavailable):
                await self.client.stop_all(0.0)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            await self.ended()
        if self.store is not None:
            self.store.close()
        for record in Journal(self.runtime_dir / "journal", here()).read():
            pidfd = open_verified(record.life.pid, record.life.start_ticks) if record.life.pid else None
            if pidfd is not None:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)


def _content(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
