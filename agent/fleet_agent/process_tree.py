"""The process trees of workers: who belongs to one, and what it uses, from one reading of /proc."""

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """Fields of /proc/PID/stat (man 5 proc)."""

    pid: int
    parent: int
    session: int
    cpu_seconds: float
    rss_bytes: int


@dataclass(frozen=True)
class ProcessTable:
    """All processes of this host at one moment."""

    processes: Mapping[int, Process]
    _children: Mapping[int, list[int]] = field(repr=False)

    def tree(self, root: int) -> set[int]:
        """`root`, its descendants, and what its session leader `root` left behind when their parents died."""
        found: set[int] = set()
        waiting = [root, *(process.pid for process in self.processes.values() if process.session == root)]
        while waiting:
            pid = waiting.pop()
            if pid not in found and pid in self.processes:
                found.add(pid)
                waiting.extend(self._children.get(pid, ()))
        return found

    def usage(self, root: int) -> tuple[int, float]:
        """(resident bytes, processor seconds) of a tree. Shared pages count once for each process."""
        processes = [self.processes[pid] for pid in self.tree(root)]
        return sum(process.rss_bytes for process in processes), sum(process.cpu_seconds for process in processes)


def read_processes() -> ProcessTable:
    """Raises OSError where there is no /proc."""
    processes: dict[int, Process] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb", buffering=0) as stream:  # noqa: PTH123 - a thousand times a second
                stat = stream.read(1024)
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The name, in parentheses, may itself hold spaces and parentheses.
        fields = stat[stat.rindex(b")") + 2 :].split()
        pid = int(name)
        process = Process(
            pid,
            parent=int(fields[1]),
            session=int(fields[3]),
            cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND,
            rss_bytes=int(fields[21]) * _PAGE_BYTES,
        )
        processes[pid] = process
        children[process.parent].append(pid)
    return ProcessTable(processes, children)


class UsageMeter:
    """Processor use between two readings."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[float, float]] = {}

    def measure(self, roots: list[int], now: float) -> dict[int, tuple[int, float]]:
        """Root → (resident bytes, per cent of one processor since the reading before; 0.0 at the first). Raises OSError."""
        if not roots:
            self._before = {}
            return {}
        table = read_processes()
        usage: dict[int, tuple[int, float]] = {}
        after: dict[int, tuple[float, float]] = {}
        for root in roots:
            rss_bytes, seconds = table.usage(root)
            after[root] = now, seconds
            then, seconds_then = self._before.get(root, (now, seconds))
            elapsed = now - then
            # A process of the tree that ended took its seconds along.
            percent = max(0.0, seconds - seconds_then) / elapsed * 100 if elapsed > 0 else 0.0
            usage[root] = rss_bytes, percent
        self._before = after
        return usage
