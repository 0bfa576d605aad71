"""What every subject can be asked, and how its commands are run."""

import os
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, Self

from tests.bench.host.app import App
from tests.bench.host.install import Tools
from tests.bench.host.processes import BenchError, ends_within, kill_and_wait, of_folder, sample_until

COMMAND_SECONDS = 120.0
LEFTOVER_SECONDS = 5.0
_INHERITED = ("PATH", "LANG", "TZ")


class NotAvailableError(Exception):
    """The subject cannot do what the case asks for; the text says why."""


class Work(Protocol):
    """Something asked for that goes on meanwhile."""

    @property
    def running(self) -> bool: ...

    def finish(self, seconds: float = COMMAND_SECONDS) -> str:
        """What it said. Raises BenchError when it failed or is not done in time."""
        ...


class Command:
    """A command under way, in a process of its own; what it prints is kept for the error message."""

    def __init__(self, argv: Sequence[str | Path], env: Mapping[str, str], cwd: Path, output: Path) -> None:
        self._argv = " ".join(str(argument) for argument in argv)
        self._output = output
        with output.open("wb") as sink:
            self._process = subprocess.Popen(
                [str(argument) for argument in argv],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def finish(self, seconds: float = COMMAND_SECONDS) -> str:
        """Its output. Raises BenchError when it fails or is not done in time."""
        if self._process.poll() is None and not ends_within(self._process.pid, seconds):
            self._process.kill()
            self._process.wait()
            raise BenchError(f"{self._argv}: not done after {seconds:g} s: {self._tail()}")
        code = self._process.wait()
        if code:
            raise BenchError(f"{self._argv}: exit code {code}: {self._tail()}")
        return self._output.read_text(errors="replace")

    def terminate(self) -> None:
        """SIGTERM; its exit code must still be 0."""
        self._process.terminate()

    def _tail(self) -> str:
        return self._output.read_text(errors="replace")[-2000:]


class Subject(ABC):
    """One way to run processes, in a folder of its own. Use as a context manager: it starts, and leaves nothing behind."""

    name: ClassVar[str]

    def __init__(self, folder: Path, tools: Tools) -> None:
        self.folder = folder
        self.tools = tools
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True)
        self._commands = 0
        self.environment = {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            "HOME": str(folder / "home"),
            "BENCH_FOLDER": str(folder / "mark"),
        }
        (folder / "home").mkdir()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop it; whatever stays is killed. Raises BenchError if anything did, or had to be."""
        try:
            self.stop()
        finally:
            deadline = time.monotonic() + LEFTOVER_SECONDS
            while (left := of_folder(self.folder)) and time.monotonic() < deadline:
                time.sleep(0.05)
            for pid in left:
                kill_and_wait(pid)
            shutil.rmtree(self.folder, ignore_errors=True)
        if left:
            raise BenchError(f"{self.name} left processes behind, which were killed: {left}")

    @abstractmethod
    def start(self) -> None:
        """The subject's daemons, without any app."""

    @abstractmethod
    def stop(self) -> None:
        """Everything, workers too. Called also when `start` failed half-way."""

    @abstractmethod
    def run(self, app: App, size: int) -> None:
        """Start `app`. Raises NotAvailableError."""

    @abstractmethod
    def grow(self, app: App, present: int, size: int) -> Work:
        """Begin to bring the running `app` from `present` to `size` workers."""

    def reload(self, app: App, size: int) -> Work:
        """Begin to replace all `size` workers, as gently as the subject can. Raises NotAvailableError."""
        raise NotAvailableError(f"{self.name} has no command for it")

    @abstractmethod
    def daemons(self) -> dict[str, int]:
        """Role → pid of what runs on every host to keep workers alive."""

    def expose_metrics(self) -> str:
        """Let the daemons serve metrics from now on: at which "address:port"; "" where they have none."""
        return ""

    def cli(self) -> list[str | Path]:
        """Its smallest command, for the cost of a command as such; [] where it has none."""
        return []

    def addresses(self, app: App) -> list[str]:
        """Where the app's clients go: "ADDRESS:PORT" of one, or of each worker where the subject brings them no further."""
        raise NotAvailableError(f"{self.name} serves nothing")

    def log_files(self, app: App) -> list[Path]:
        """All files with the app's standard output, in no order."""
        return sorted(self.logs.glob(f"{app.name}*"))

    def begin(self, *argv: str | Path) -> Command:
        self._commands += 1
        return Command(argv, self.environment, self.folder, self.folder / f"command-{self._commands}.txt")

    def do(self, *argv: str | Path) -> str:
        return self.begin(*argv).finish()

    def wait_for_file(self, path: Path) -> None:
        sample_until(path.exists, f"{self.name} made {path.name}", 30.0, 0.01)


def free_ports(count: int) -> int:
    """The first of `count` ports in a row on 127.0.0.1 where nothing listened a moment ago. Raises BenchError."""
    for first in range(21_000 + os.getpid() % 5_000, 32_000, count):
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise BenchError(f"no {count} free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
