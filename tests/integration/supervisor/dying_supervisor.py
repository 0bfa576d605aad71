"""fleet-supervisor that kills itself with SIGKILL at a point of a worker's start.

Arguments: POINT FILE STARTS_BEFORE --runtime-dir D --log-dir L. FILE gets the pid of the process that was being made, 0 for none.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from fleet_agent.supervisor.host import Host
from fleet_agent.supervisor.protocol import Launch
from fleet_agent.supervisor.spawn import NOTHING_HANDED, Handed, Nursery, Output, Spawned


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL was survived")


class DyingNursery(Nursery):
    """Starts so many workers well, and dies at `point` of the next."""

    def __init__(self, point: str, file: Path, starts_before: int) -> None:
        super().__init__()
        self._point = point
        self._file = file
        self._starts_before = starts_before

    def spawn(
        self, launch: Launch, output: Output, record: Callable[[int, int], None], handed: Handed = NOTHING_HANDED
    ) -> Spawned:
        if self._starts_before:
            self._starts_before -= 1
            return super().spawn(launch, output, record, handed)
        if self._point == "before fork":
            self._file.write_text("0")
            die()

        def record_or_die(pid: int, start_ticks: int) -> None:
            self._file.write_text(str(pid))
            if self._point == "between fork and journal":
                die()
            record(pid, start_ticks)
            if self._point == "between journal and release":
                die()

        super().spawn(launch, output, record_or_die, handed)
        die()


def main() -> None:
    point, file, starts_before, _, runtime_dir, _, log_dir = sys.argv[1:]
    nursery = DyingNursery(point, Path(file), int(starts_before))
    Host(Path(runtime_dir), Path(log_dir), Path(runtime_dir) / "supervisor.sock", nursery).run()


main()
