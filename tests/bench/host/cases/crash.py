"""A worker is killed: until its successor runs."""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.bench.host.app import sleeper
from tests.bench.host.case import Case
from tests.bench.host.new_processes import NewProcesses
from tests.bench.host.processes import kill_and_wait, sample_until
from tests.bench.host.subject import Subject
from tests.bench.host.subjects.circus import Circus
from tests.bench.host.subjects.fleet import Fleetctl
from tests.bench.host.subjects.floor import Floor
from tests.bench.host.subjects.pm2 import Pm2
from tests.bench.host.subjects.supervisor import SupervisorAlone
from tests.bench.host.subjects.supervisord import Supervisord
from tests.bench.host.targets import Target

_WORKERS = 4
_SETTLED_SECONDS = 2.0
"""Older than what supervisord (startsecs) and PM2 (min_uptime) call started: an early crash is another matter."""
_METRIC = "ms, kill -9 → new process"


class Crash(Case):
    name = "crash"
    title = f"kill -9 of a worker until the process in its place has become the program; {_WORKERS} workers, one after another."
    subjects = (Floor, SupervisorAlone, Fleetctl, Pm2, Supervisord, Circus)

    @property
    def targets(self) -> Sequence[Target]:
        return [Target(_METRIC, name, 1.5, of="floor") for name in ("supervisor", "fleetctl")]

    def measure(self, subject: Subject, folder: Path) -> dict[str, list[float]]:
        app = sleeper(str(time.monotonic_ns()))
        parents = subject.daemons().values()
        with closing(NewProcesses(app.argv, parents)) as watch:
            subject.run(app, _WORKERS)
            sample_until(lambda: len(watch.look()) == _WORKERS, "workers", 30.0)
            workers = sorted(watch.found)
        time.sleep(_SETTLED_SECONDS)
        samples: list[float] = []
        for pid in workers:
            with closing(NewProcesses(app.argv, parents)) as watch:
                began = time.perf_counter()
                kill_and_wait(pid)
                sample_until(watch.look, "a new process", 30.0)
            samples.append((watch.moments[0] - began) * 1000)
            time.sleep(0.2)
        return {_METRIC: samples}
