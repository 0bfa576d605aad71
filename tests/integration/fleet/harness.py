"""A whole fleet as a user runs it, `fleetctl up --hosts N`, in a folder of its own, driven by nothing but the command line.

Every wait has a deadline and ends in an AssertionError that shows what was there instead.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from fleetctl.up.layout import runtime_root
from fleetctl.up.settings import Settings
from tests.ports import free_address

ROOT = Path(__file__).parents[3]
PLAIN_SERVER = ROOT / "tests" / "load" / "apps" / "plain_server.js"
MOODY_SERVER = ROOT / "tests" / "load" / "apps" / "moody_server.js"
EXPRESS_SERVER = ROOT / "examples" / "express" / "server.js"
JOURNAL = ROOT / "tests" / "load" / "journal.js"

_BIN = Path(sys.executable).parent
_UP_SECONDS = 60.0
_DOWN_SECONDS = 60.0
_COMMAND_SECONDS = 180.0

_T = TypeVar("_T")


def wait_for(condition: Callable[[], _T], what: str, seconds: float = 30.0) -> _T:
    """The first true result of `condition`, asked ten times a second."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}"
        time.sleep(0.1)
    return result


@dataclass(frozen=True, slots=True)
class Result:
    """A finished command."""

    code: int
    output: str
    errors: str

    @property
    def error_lines(self) -> list[str]:
        """Standard error without the hints, which are indented."""
        return [line for line in self.errors.splitlines() if line and not line.startswith(" ")]


class Fleet:
    """`fleetctl up` on `folder`, with `options`; stopped, and proved to have left no process, by `close`."""

    def __init__(self, folder: Path, hosts: int = 3, balancers: int = 1, options: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data_dir = folder / "data"
        self.journals = folder / "journals"
        self.journals.mkdir(exist_ok=True)
        self.log = folder / "up.log"
        self._hosts = hosts
        self._balancers = balancers
        self._options = options
        self._up: subprocess.Popen[bytes] | None = None
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("FLEET_", "PYTEST_"))},
            "FLEET_CONFIG": str(folder / "config.toml"),
            "PATH": f"{_BIN}:{os.environ['PATH']}",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    # The system

    def start(self) -> None:
        """Start `up` and wait until every host and balancer is there."""
        with self.log.open("ab") as log:
            self._up = subprocess.Popen(
                [
                    *(_BIN / "fleetctl", "up", "--hosts", str(self._hosts), "--balancers", str(self._balancers)),
                    *("--data-dir", str(self.data_dir), *self._options),
                ],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._is_up, "every host online and every balancer connected", _UP_SECONDS)

    def _is_up(self) -> bool:
        assert self._up is not None
        assert self._up.poll() is None, f"up ended with {self._up.returncode}:\n{self.log.read_text()[-4000:]}"
        hosts, balancers = self.run("host", "ls", "-o", "json"), self.run("balancer", "ls", "-o", "json")
        if hosts.code or balancers.code:
            return False
        states = [host["state"] for host in json.loads(hosts.output)]
        connected = [balancer["state"] for balancer in json.loads(balancers.output)]
        return states == ["online"] * self._hosts and connected == ["connected"] * self._balancers

    @property
    def up_pid(self) -> int:
        assert self._up is not None
        return self._up.pid

    def interrupt(self) -> int:
        """Ctrl-C: `up` alone gets SIGINT, and its exit code is returned."""
        assert self._up is not None
        self._up.send_signal(signal.SIGINT)
        code = self._up.wait(_DOWN_SECONDS)
        self._up = None
        return code

    def kill_up(self) -> None:
        """kill -9 of `up` alone; what it started runs on."""
        assert self._up is not None
        self._up.kill()
        self._up.wait(10)
        self._up = None

    def close(self) -> None:
        """Stop everything; whatever does not stop is killed and reported."""
        try:
            if self._up is not None and self._up.poll() is None:
                self.interrupt()
        finally:
            left = self.processes()
            for pid in left:
                _kill(pid)
            if self.runtime_root != self.data_dir:
                shutil.rmtree(self.runtime_root, ignore_errors=True)
        assert not left, f"left behind: {left}\n{self.log.read_text()[-4000:]}"

    @property
    def runtime_root(self) -> Path:
        """Of the last `up`; where there was none, a path that nothing has."""
        try:
            settings = Settings.parse((self.data_dir / "up.json").read_text(), "up.json")
        except FileNotFoundError:
            return self.data_dir / "none"
        return runtime_root(self.data_dir, settings.fleet_id, os.getuid(), settings.memory)

    def processes(self) -> dict[int, str]:
        """Pid → command line of every live process of this fleet: its paths are in their environment or command line."""
        marks = [os.fsencode(folder) + b"/" for folder in (self.folder, self.runtime_root)]
        found: dict[int, str] = {}
        for pid, command, environment in _processes():
            if pid != os.getpid() and any(mark in command or mark in environment for mark in marks):
                found[pid] = command.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def daemons(self) -> dict[str, int]:
        """Service → pid of the daemons `up` keeps, by the marks it puts into their environment."""
        mark = os.fsencode(self.folder) + b"/"
        found: dict[str, int] = {}
        for pid, command, environment in _processes():
            variables = dict(item.partition(b"=")[::2] for item in environment.split(b"\0"))
            if (mark in command or mark in environment) and variables.get(b"FLEET_UP_PID") == str(pid).encode():
                found[variables[b"FLEET_UP_SERVICE"].decode()] = pid
        return found

    def daemon(self, *words: str) -> tuple[str, int]:
        """(service, pid) of the one daemon whose service name holds all `words`."""
        daemons = self.daemons()
        matching = [(service, pid) for service, pid in daemons.items() if all(word in service for word in words)]
        assert len(matching) == 1, f"{words} among {daemons}"
        return matching[0]

    def etcd_revision(self) -> int:
        """etcd's own revision, asked of etcd with the controller's certificate."""
        certificates = self.data_dir / "certificates"
        certificate = next(certificates.glob("controller-*.pem"))
        port = json.loads((self.data_dir / "up.json").read_text())["system_block"]
        answer = subprocess.run(
            [
                _BIN / "etcdctl",
                f"--endpoints=https://127.0.0.1:{port}",
                f"--cacert={certificates / 'ca.pem'}",
                f"--cert={certificate}",
                f"--key={certificate.with_suffix('.key')}",
                "get",
                "/none",
                "--write-out=json",
            ],
            env={**self.environment, "ETCDCTL_API": "3"},
            capture_output=True,
            check=True,
            timeout=20,
        )
        revision = json.loads(answer.stdout)["header"]["revision"]
        assert isinstance(revision, int)
        return revision

    # fleetctl

    @property
    def program(self) -> Path:
        return _BIN / "fleetctl"

    def run(self, *arguments: str, seconds: float = _COMMAND_SECONDS, first_on_path: Path | None = None) -> Result:
        path = self.environment["PATH"]
        done = subprocess.run(
            [_BIN / "fleetctl", *arguments],
            env={**self.environment, "PATH": f"{first_on_path}:{path}" if first_on_path else path},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def begun(self, *arguments: str, output: int = subprocess.DEVNULL) -> Iterator["subprocess.Popen[bytes]"]:
        """A command under way, which writes to that descriptor; ended where the test did not wait for it."""
        process = subprocess.Popen(
            [_BIN / "fleetctl", *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait(10)

    def do(self, *arguments: str, first_on_path: Path | None = None) -> str:
        """Run a command that must succeed."""
        result = self.run(*arguments, first_on_path=first_on_path)
        assert result.code == 0, f"fleetctl {' '.join(arguments)}: exit {result.code}\n{result.output}{result.errors}"
        return result.output

    def ask(self, *arguments: str) -> Any:
        """What a command that must succeed prints as JSON."""
        return json.loads(self.do(*arguments, "-o", "json"))

    def start_app(
        self, script: Path, size: int, *options: str, name: str = "my-app", first_on_path: Path | None = None
    ) -> str:
        """Start `script` with journals kept by its workers; returns "ADDRESS:PORT" of its route at the first balancer.
        `first_on_path`: the folder of the Node to run it with."""
        address = free_address()
        route = address if self._balancers == 1 else f":{address.rpartition(':')[2]}"
        given = ("-n", name, "-i", str(size), "--http", route, *options, *self.journal_options())
        self.do("start", str(script), *given, first_on_path=first_on_path)
        return address

    def journal_options(self) -> tuple[str, ...]:
        """Of an app whose workers keep journals."""
        return "-e", f"NODE_OPTIONS=--require {JOURNAL}", "-e", f"WORKER_JOURNAL_DIR={self.journals}"

    def addresses(self, address: str) -> list[str]:
        """Where each balancer serves the app that `start_app` gave `address` to."""
        port = address.rpartition(":")[2]
        return [f"127.0.0.{number}:{port}" for number in range(1, self._balancers + 1)]

    @contextmanager
    def workers_killed_every(self, seconds: float, app: str = "my-app", seed: int = 1) -> Iterator[list[int]]:
        """Meanwhile one worker is killed every so often; the pids are added to the list as they are."""
        killed: list[int] = []
        ended = threading.Event()

        def kill() -> None:
            dice = random.Random(seed)
            while not ended.wait(seconds):
                pids = sorted(self.pids(app) - set(killed))
                if pids:
                    killed.append(dice.choice(pids))
                    _kill(killed[-1])

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            yield killed
        finally:
            ended.set()
            thread.join()

    def workers(self, app: str = "my-app") -> list[dict[str, Any]]:
        """The ready workers, as `ps` shows them."""
        return [worker for worker in self.ask("ps", app) if worker["ready"]]

    def pids(self, app: str = "my-app") -> set[int]:
        return {worker["pid"] for worker in self.workers(app)}


class Load:
    """`python -m tests.load` in a process of its own, 20 kept-alive and 20 fresh connections unless told otherwise.

    Several addresses: a refused connection is tried at the next one.
    """

    def __init__(self, addresses: str | Sequence[str], folder: Path, *arguments: str) -> None:
        addresses = [addresses] if isinstance(addresses, str) else addresses
        urls = [word for address in addresses for word in ("--url", f"http://{address}")]
        fail_over = ["--fail-over"] if len(addresses) > 1 else []
        self._output = folder / f"load-{time.monotonic_ns()}.jsonl"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "tests.load", "--json", "--progress", "0.2", *urls, *fail_over, *arguments),
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
            )

    @property
    def sent(self) -> int:
        lines = self._output.read_text().split("\n")[:-1]
        return int(json.loads(lines[-1])["progress"]["sent"]) if lines else 0

    def wait_for_more(self, requests: int, seconds: float = 30.0) -> None:
        """Wait until so many requests more were answered or failed."""
        until = self.sent + requests
        wait_for(lambda: self.sent >= until, f"{requests} requests sent", seconds)

    def stop(self) -> dict[str, Any]:
        """End the load; requests under way are counted. Returns its summary, as `Tally.summary` describes it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
            raise
        summary = json.loads(self._output.read_text().splitlines()[-1])
        assert isinstance(summary, dict)
        assert "sent" in summary, f"the load ended with {self._process.returncode} and no summary"
        return summary

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


@contextmanager
def load_on(addresses: str | Sequence[str], folder: Path, *arguments: str) -> Iterator[Load]:
    """A load that is well under way, with 100 requests sent."""
    load = Load(addresses, folder, *arguments)
    try:
        load.wait_for_more(100)
        yield load
    finally:
        load.close()


def _processes() -> Iterator[tuple[int, bytes, bytes]]:
    """(pid, command line, environment) of the live processes one may look into; zombies have neither (man 5 proc)."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if command:
            yield int(entry.name), command, environment


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
