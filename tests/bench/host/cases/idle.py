"""What workers that do nothing cost their daemons in processor time."""

import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing

from tests.bench.host.app import App, sleeper
from tests.bench.host.case import CaseTogether
from tests.bench.host.new_processes import NewProcesses
from tests.bench.host.processes import cpu_seconds, sample_until
from tests.bench.host.subject import Subject
from tests.bench.host.subjects.circus import Circus
from tests.bench.host.subjects.fleet import Fleetctl
from tests.bench.host.subjects.floor import Floor
from tests.bench.host.subjects.pm2 import Pm2
from tests.bench.host.subjects.supervisord import Supervisord
from tests.bench.host.targets import Target

_SETTLING_SECONDS = 10.0
_SCRAPES = 2
"""In each window: one in fifteen seconds, as Prometheus' own examples have it."""
_SCRAPED_WINDOWS = 3

Measured = dict[str, dict[str, list[float]]]
"""Subject → metric → samples."""


class Idle(CaseTogether):
    """All subjects idle side by side, so that one window is a sample of each."""

    name = "idle"
    title = (
        "Processor time of the daemons on the host with so many idle workers, all subjects in the same windows. fleetctl: agent "
        "and supervisor together, metrics on; each also alone; and while its metrics are fetched every 15 s."
    )
    subjects = (Floor, Fleetctl, Pm2, Supervisord, Circus)

    @property
    def targets(self) -> Sequence[Target]:
        return [Target(self._cpu(size), "fleetctl", 1, of="supervisord", strict=True) for size in self.plan.idle_sizes]

    def _cpu(self, size: int) -> str:
        return f"ms of CPU in {self.plan.idle_seconds:g} s, {size} workers"

    def measure(self, subjects: Mapping[str, Subject], repetitions: int) -> Measured:
        found: Measured = {name: {} for name in subjects}
        apps = {name: sleeper(str(time.monotonic_ns())) for name in subjects}
        metrics = {name: address for name, subject in subjects.items() if (address := subject.expose_metrics())}
        for name, subject in subjects.items():
            subject.run(apps[name], 1)
        present = 1
        for size in self.plan.idle_sizes:
            for name, subject in subjects.items():
                _grow(subject, apps[name], present, size)
            present = size
            time.sleep(_SETTLING_SECONDS)
            daemons = {name: subject.daemons() for name, subject in subjects.items()}
            for _ in range(repetitions):
                self._add(found, self._cpu(size), self._window(daemons, []))
            for _ in range(min(repetitions, _SCRAPED_WINDOWS)):
                scraped = self._window({name: daemons[name] for name in metrics}, list(metrics.values()))
                self._add(found, f"{self._cpu(size)}, fetched", scraped)
        return found

    def _window(self, daemons: Mapping[str, Mapping[str, int]], fetched: Sequence[str]) -> dict[str, dict[str, float]]:
        """Subject → role → ms of processor time."""
        before = {name: {role: cpu_seconds(pid) for role, pid in roles.items()} for name, roles in daemons.items()}
        for _ in range(_SCRAPES):
            time.sleep(self.plan.idle_seconds / _SCRAPES)
            for address in fetched:
                with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
                    answer.read()
        return {
            name: {role: (cpu_seconds(pid) - before[name][role]) * 1000 for role, pid in roles.items()}
            for name, roles in daemons.items()
        }

    @staticmethod
    def _add(found: Measured, metric: str, window: Mapping[str, Mapping[str, float]]) -> None:
        for name, roles in window.items():
            found[name].setdefault(metric, []).append(sum(roles.values()))
            if len(roles) > 1:
                for role, value in roles.items():
                    found[name].setdefault(f"{metric}, {role}", []).append(value)


def _grow(subject: Subject, app: App, present: int, size: int) -> None:
    with closing(NewProcesses(app.argv, subject.daemons().values())) as watch:
        subject.grow(app, present, size).finish()
        sample_until(lambda: len(watch.look()) >= size - present, f"{size} workers of {subject.name}", 60.0)
