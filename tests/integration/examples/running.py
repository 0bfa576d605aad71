"""One example on a fleet, started as documented, and the processes that make it up."""

import json
import subprocess
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from tests.integration.examples.documented import Documented
from tests.integration.fleet.harness import ROOT, Fleet
from tests.ports import free_address

EXAMPLES = ROOT / "examples"

_START_SECONDS = 90.0
_ALL_LINES = "100000"


@dataclass(frozen=True, slots=True)
class Example:
    """A documented app on a fleet."""

    fleet: Fleet
    documented: Documented
    address: str
    """ "ADDRESS:PORT" of its route; "": it has none."""

    @property
    def name(self) -> str:
        return self.documented.name

    @property
    def folder(self) -> Path:
        """Where it runs."""
        return _checkout(self.fleet) / self.documented.folder

    @classmethod
    def start(cls, fleet: Fleet, documented: Documented) -> Self:
        """Run the documented commands as a reader does, in a shell at the root of a checkout."""
        address = free_address() if documented.route else ""
        done = subprocess.run(
            ["sh", "-eu", "-c", documented.routed_to(address)],
            cwd=_checkout(fleet),
            env=fleet.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}{done.stderr}"
        return cls(fleet, documented, address)

    def stop(self) -> float:
        """Returns the seconds it took."""
        began = time.monotonic()
        self.fleet.do("stop", self.name)
        return time.monotonic() - began

    def workers(self) -> list[dict[str, Any]]:
        return self.fleet.workers(self.name)

    def lines(self) -> list[tuple[str, str]]:
        """(worker, line) of everything its workers printed."""
        output = self.fleet.do("logs", self.name, "--lines", _ALL_LINES, "-o", "json")
        records = [json.loads(line) for line in output.splitlines()]
        return [(record["worker"], record["text"]) for record in records]

    def printed(self, text: str) -> Counter[str]:
        """Worker → how many of its lines hold `text`."""
        return Counter(worker for worker, line in self.lines() if text in line)

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as response:
            assert response.status == 200
            body = response.read()
        assert isinstance(body, bytes)
        return body


def tree_of(workers: list[dict[str, Any]]) -> list[psutil.Process]:
    """Every process of these workers."""
    leaders = [psutil.Process(worker["pid"]) for worker in workers]
    return [process for leader in leaders for process in (leader, *leader.children(recursive=True))]


def alive(processes: list[psutil.Process]) -> list[str]:
    """Those that run still; psutil tells them from later ones with the same pid. Zombies are dead."""
    return [str(process) for process in processes if _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _checkout(fleet: Fleet) -> Path:
    """The examples as links in the fleet's own folder: what a worker writes beside its code is gone with the test."""
    root = fleet.folder / "checkout"
    if not root.exists():
        for example in EXAMPLES.iterdir():
            folder = root / "examples" / example.name
            if example.name == ".venv":
                folder.symlink_to(example)
                continue
            folder.mkdir(parents=True)
            for entry in example.iterdir():
                (folder / entry.name).symlink_to(entry)
    return root
