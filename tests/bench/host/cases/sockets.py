"""Two Node workers on one inherited socket."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.host.app import Serving, server
from tests.bench.host.case import Case
from tests.bench.host.processes import BenchError, sample_until
from tests.bench.host.subject import Subject
from tests.bench.host.subjects.circus import Circus
from tests.bench.host.subjects.fleet import Fleetctl
from tests.bench.host.subjects.floor import Floor, NodeCluster
from tests.bench.host.subjects.pm2 import Pm2
from tests.bench.host.targets import Target

_ROOT = Path(__file__).parents[4]
_WORKERS = 2
_CONNECTIONS = 16
_BUSY_US = 300
"""Of each request, so that the workers are what is measured, and not the client."""
_SHORT = "requests/s, a connection each"
_KEPT = "requests/s, kept alive"
_FAILED = "requests failed"


class Sockets(Case):
    name = "sockets"
    title = (
        f"{_WORKERS} Node workers that accept from one socket, {_BUSY_US} µs of computing a request, {_CONNECTIONS} clients "
        "that ask again at once. pm2: cluster mode."
    )
    subjects = (Floor, Fleetctl, NodeCluster, Pm2, Circus)

    @property
    def targets(self) -> Sequence[Target]:
        return [
            *(Target(metric, "fleetctl", 0.95, of="floor", at_least=True) for metric in (_SHORT, _KEPT)),
            Target(_FAILED, "fleetctl", 0),
        ]

    def measure(self, subject: Subject, folder: Path) -> dict[str, list[float]]:
        app = server(folder, Serving.INHERITED, busy_us=_BUSY_US)
        subject.run(app, _WORKERS)
        sample_until(lambda: sum(1 for _ in folder.iterdir()) == _WORKERS, "both workers accept", 60.0, 0.01)
        address = subject.addresses(app)[0]
        self._press(address, "--seconds", "1")
        short = self._press(address, "--seconds", str(self.plan.pressure_seconds))
        kept = self._press(address, "--seconds", str(self.plan.pressure_seconds), "--keep-alive")
        return {
            _SHORT: [short["per_second"]],
            _KEPT: [kept["per_second"]],
            _FAILED: [short["failed"] + kept["failed"]],
        }

    def _press(self, address: str, *arguments: str) -> dict[str, float]:
        command = [
            sys.executable,
            "-m",
            "tests.bench.host.pressure",
            address,
            "--connections",
            str(_CONNECTIONS),
            *arguments,
        ]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise BenchError(f"the clients ended with {done.returncode}: {done.stderr[-1000:]}")
        result: dict[str, float] = json.loads(done.stdout)
        return result
