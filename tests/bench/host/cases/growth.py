"""From 1 worker to many."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from tests.bench.host.app import App, Serving, server, sleeper
from tests.bench.host.case import Case
from tests.bench.host.new_processes import NewProcesses
from tests.bench.host.processes import alive, sample_until
from tests.bench.host.subject import NotAvailableError, Subject
from tests.bench.host.subjects.circus import Circus
from tests.bench.host.subjects.fleet import Fleetctl
from tests.bench.host.subjects.floor import Floor
from tests.bench.host.subjects.pm2 import Pm2
from tests.bench.host.subjects.supervisor import SupervisorAlone
from tests.bench.host.subjects.supervisord import Supervisord
from tests.bench.host.targets import Target

_SECONDS = 120.0
_COMMANDS = 5
_WHOLE = "s, command → all there"
_CLI = "s, a command as such"
_NET = "s, less a command as such"
_STARTS = "s, first more → all there"


class _Growth(Case):
    subjects = (Floor, SupervisorAlone, Fleetctl, Pm2, Supervisord, Circus)

    def _grow(
        self,
        subject: Subject,
        app: App,
        count: Callable[[], int],
        moments: Callable[[], Sequence[float]] = lambda: (),
    ) -> dict[str, list[float]]:
        """`count`: how many are there; `moments`: since when each has been, where that is known better than by counting."""
        subject.run(app, 1)
        sample_until(lambda: count() == 1, "the first worker", 60.0)
        time.sleep(1.0)
        command_seconds = _seconds_of(subject)
        began = time.perf_counter()
        work = subject.grow(app, 1, self.plan.size)
        sample_until(lambda: count() >= self.plan.size, f"{self.plan.size} workers", _SECONDS)
        counted = time.perf_counter()
        work.finish()
        known = [moment for moment in moments() if moment >= began]
        whole = (max(known) if known else counted) - began
        return {
            _WHOLE: [whole],
            **({_CLI: [command_seconds]} if command_seconds else {}),
            _NET: [whole - command_seconds],
            **({_STARTS: [max(known) - min(known)]} if known else {}),
        }


class Trivial(_Growth):
    name = "grow-trivial"
    title = "1 → 64 workers that do nothing, until each process has become the program."

    @property
    def targets(self) -> Sequence[Target]:
        return [Target(_NET, name, 1.5, of="floor") for name in ("supervisor", "fleetctl")]

    def measure(self, subject: Subject, folder: Path) -> dict[str, list[float]]:
        app = sleeper(str(time.monotonic_ns()))
        with closing(NewProcesses(app.argv, subject.daemons().values())) as watch:
            return self._grow(subject, app, lambda: len(watch.look()), lambda: watch.moments)


class Node(_Growth):
    name = "grow-node"
    title = "1 → 64 Node http workers, each on a port of its own, until the last accepts."

    @property
    def targets(self) -> Sequence[Target]:
        return [Target(_NET, name, 1.15, of="floor") for name in ("supervisor", "fleetctl")]

    def measure(self, subject: Subject, folder: Path) -> dict[str, list[float]]:
        samples = self._grow(subject, server(folder, Serving.ALONE), lambda: sum(1 for _ in folder.iterdir()))
        if dead := [path.name for path in folder.iterdir() if not alive(int(path.name))]:
            raise NotAvailableError(f"workers ended while others started: {', '.join(dead)}")
        return samples


def _seconds_of(subject: Subject) -> float:
    """The subject's smallest command: the median of some, as one alone is half as long as another; the first finds its files
    not in memory, and does not count."""
    argv = subject.cli()
    if not argv:
        return 0.0
    subject.do(*argv)
    seconds = []
    for _ in range(_COMMANDS):
        began = time.perf_counter()
        subject.do(*argv)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
