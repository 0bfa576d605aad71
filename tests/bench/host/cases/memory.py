"""What workers that do nothing cost their daemons in memory."""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.bench.host.app import sleeper
from tests.bench.host.case import Case
from tests.bench.host.new_processes import NewProcesses
from tests.bench.host.processes import alone_mib, private_mib, pss_mib, sample_until, twins
from tests.bench.host.subject import Subject
from tests.bench.host.subjects.circus import Circus
from tests.bench.host.subjects.fleet import Fleetctl
from tests.bench.host.subjects.floor import Floor
from tests.bench.host.subjects.pm2 import Pm2
from tests.bench.host.subjects.supervisord import Supervisord
from tests.bench.host.targets import Target

_SETTLING_SECONDS = 3.0
_MOST_SUPERVISOR_MIB = 15.0


class Memory(Case):
    """Only grows while a subject lives: each size is measured on the way up."""

    name = "memory"
    title = (
        "Memory of the daemons on the host with so many idle workers. fleetctl: agent and supervisor together, metrics on; each "
        "also alone."
    )
    subjects = (Floor, Fleetctl, Pm2, Supervisord, Circus)

    @property
    def targets(self) -> Sequence[Target]:
        found: list[Target] = []
        for size in self.plan.idle_sizes:
            found.append(Target(f"{self._memory(size)}, supervisor", "fleetctl", _MOST_SUPERVISOR_MIB, strict=True))
            both = (self._memory(size), self._alone(size))
            found.extend(Target(memory, "fleetctl", 1, of="pm2", strict=True) for memory in both)
        return found

    def _memory(self, size: int) -> str:
        return f"MiB PSS, {size} workers"

    def _alone(self, size: int) -> str:
        return f"MiB were it alone, {size} workers"

    def measure(self, subject: Subject, folder: Path) -> dict[str, list[float]]:
        app = sleeper(str(time.monotonic_ns()))
        with closing(NewProcesses(app.argv, subject.daemons().values())) as watch:
            subject.expose_metrics()
            subject.run(app, 1)
            samples: dict[str, list[float]] = {}
            present = 1
            for size in self.plan.idle_sizes:
                subject.grow(app, present, size).finish()
                sample_until(lambda wanted=size: len(watch.look()) >= wanted, f"{size} workers", 60.0)  # type: ignore[misc]
                present = size
                time.sleep(_SETTLING_SECONDS)
                samples |= self._look(subject.daemons(), size)
        return samples

    def _look(self, daemons: dict[str, int], size: int) -> dict[str, list[float]]:
        made = {role: twins(pid) for role, pid in daemons.items()}
        memory = {role: sum(map(pss_mib, (pid, *made[role]))) for role, pid in daemons.items()}
        extra = {role: sum(map(private_mib, made[role])) for role in daemons}
        found = {
            self._memory(size): [sum(memory.values())],
            self._alone(size): [alone_mib(daemons.values()) + sum(extra.values())],
        }
        if len(daemons) > 1:
            for role, pid in daemons.items():
                found[f"{self._memory(size)}, {role}"] = [memory[role]]
                found[f"{self._alone(size)}, {role}"] = [alone_mib([pid]) + extra[role]]
        return found
