"""All workers are replaced under load."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.host.app import Serving, server
from tests.bench.host.case import Case
from tests.bench.host.processes import alive, sample_until
from tests.bench.host.subject import Subject
from tests.bench.host.subjects.circus import Circus
from tests.bench.host.subjects.fleet import Fleetctl
from tests.bench.host.subjects.pm2 import Pm2
from tests.bench.host.subjects.supervisord import Supervisord
from tests.bench.host.targets import Target
from tests.integration.fleet.harness import Load

_WORKERS = 4
_DELAY_MS = 50
_REQUESTS_PER_SECOND = 400
_RELOAD_SECONDS = 120.0
_WARMING_SECONDS = 2.0
"""The first requests meet code that Node has not compiled yet."""
_AFTER_SECONDS = 1.0
_SECONDS = "s, all replaced"
_SENT = "requests sent meanwhile"
_FAILED = "requests failed"
_BEFORE = "ms p99 before"
_DURING = "ms p99 meanwhile"


class Reload(Case):
    name = "reload"
    title = (
        f"{_WORKERS} Node workers without signal handlers, {_DELAY_MS} ms a request, are replaced at {_REQUESTS_PER_SECOND} "
        "requests/s, half of the clients kept alive, 30 % POST. pm2: cluster mode; supervisord: restarted one by one, the "
        "clients go on to the next port when one refuses; circus: its own socket."
    )
    subjects = (Fleetctl, Pm2, Supervisord, Circus)

    @property
    def targets(self) -> Sequence[Target]:
        return [
            Target(_FAILED, "fleetctl", 0),
            Target(_DURING, "fleetctl", 1.2, of="fleetctl", of_metric=_BEFORE),
        ]

    def measure(self, subject: Subject, folder: Path) -> dict[str, list[float]]:
        announcements, results = folder / "workers", folder / "results"
        announcements.mkdir()
        results.mkdir()
        app = server(announcements, Serving.SHARED, delay_ms=_DELAY_MS)
        subject.run(app, _WORKERS)
        old = sample_until(lambda: _announced(announcements, _WORKERS), "all workers accept", 60.0, 0.01)
        time.sleep(2.0)
        first, *others = subject.addresses(app)
        arguments = ["--rate", str(_REQUESTS_PER_SECOND)]
        arguments += [word for address in others for word in ("--url", f"http://{address}")]
        if others:
            arguments += ["--fail-over"]
        self._steady(first, results, arguments, _WARMING_SECONDS)
        before = self._steady(first, results, arguments, self.plan.steady_seconds)
        load = Load(first, results, *arguments)
        try:
            load.wait_for_more(_REQUESTS_PER_SECOND)
            began = time.monotonic()
            work = subject.reload(app, _WORKERS)
            sample_until(
                lambda: _announced(announcements, 2 * _WORKERS) and not any(map(alive, old)),
                "every worker is another",
                _RELOAD_SECONDS,
                0.01,
            )
            work.finish()
            seconds = time.monotonic() - began
            time.sleep(_AFTER_SECONDS)
            during = load.stop()
        finally:
            load.close()
        return {
            _SECONDS: [seconds],
            _SENT: [during["sent"]],
            _FAILED: [during["failed"]],
            _BEFORE: [before["latency_ms"]["p99"]],
            _DURING: [during["latency_ms"]["p99"]],
        }

    def _steady(self, address: str, folder: Path, arguments: Sequence[str], seconds: float) -> dict[str, Any]:
        load = Load(address, folder, *arguments)
        try:
            time.sleep(seconds)
            return load.stop()
        finally:
            load.close()


def _announced(folder: Path, count: int) -> set[int]:
    """The pids of all that ever accepted, once there are so many."""
    pids = {int(path.name) for path in folder.iterdir()}
    return pids if len(pids) >= count else set()
