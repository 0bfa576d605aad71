"""The process trees of workers: who belongs to one, and what it uses, from one reading of /proc."""

import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LOOKS = 20
"""So many in a row leave out what is known to be outside."""


class Process(NamedTuple):
    """Fields of /proc/PID/stat (man 5 proc). A tuple, because it is made for each process of the host."""

    pid: int
    parent: int
    session: int
    cpu_seconds: float
    """With those of its children that have ended and were waited for."""
    rss_bytes: int
    threads: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process tree uses."""

    pid: int
    """Its root."""
    rss_bytes: int
    """Shared pages count once for each process."""
    cpu_seconds: float
    """Of the processes there are now and those there were. It never goes back while one `UsageMeter` measures it."""
    cpu_percent: float
    """Of one processor, since the reading before; at the first since its start."""
    open_files: int
    threads: int


@dataclass(frozen=True)
class ProcessTable:
    """All processes of this host at one moment."""

    processes: Mapping[int, Process]
    _children: Mapping[int, list[int]] = field(repr=False)
    _sessions: Mapping[int, list[int]] = field(repr=False)

    def tree(self, root: int) -> set[int]:
        """`root`, its descendants, and what its session leader `root` left behind when their parents died."""
        found: set[int] = set()
        waiting = [root, *self._sessions.get(root, ())]
        while waiting:
            pid = waiting.pop()
            if pid not in found and pid in self.processes:
                found.add(pid)
                waiting.extend(self._children.get(pid, ()))
        return found


def all_pids() -> set[int]:
    """Raises OSError where there is no /proc."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - names are all that is needed


def read_processes(pids: Collection[int] | None = None) -> ProcessTable:
    """Those, or all. Raises OSError where there is no /proc."""
    processes: dict[int, Process] = {}
    children: dict[int, list[int]] = defaultdict(list)
    sessions: dict[int, list[int]] = defaultdict(list)
    for pid in all_pids() if pids is None else pids:
        try:
            descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
            try:
                stat = os.read(descriptor, 1024)
            finally:
                os.close(descriptor)
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The name, in parentheses, may itself hold spaces and parentheses.
        fields = stat[stat.rindex(b")") + 2 :].split(None, 22)
        process = Process(
            pid,
            int(fields[1]),
            int(fields[3]),
            sum(map(int, fields[11:15])) / _TICKS_PER_SECOND,  # utime, stime, cutime, cstime
            int(fields[21]) * _PAGE_BYTES,
            int(fields[17]),
        )
        processes[pid] = process
        children[process.parent].append(pid)
        sessions[process.session].append(pid)
    return ProcessTable(processes, children, sessions)


class Strangers:
    """Processes that were seen outside all trees. Nobody gets into a tree but by birth, so they need not be read again: most
    of a host's processes are strangers.

    Their numbers stay theirs until the kernel has given out its last and begins again from below, which shows in
    /proc/loadavg (man 5 proc): what was known is forgotten then. As a whole lap between two looks would not show, it is
    forgotten now and then anyway.
    """

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._newest = 0
        self._looks = 0

    def read(self, roots: Collection[int]) -> ProcessTable:
        """At least all processes of these trees. Raises OSError."""
        newest = _newest_pid()
        self._looks += 1
        if newest < self._newest or self._looks >= _LOOKS:
            self._known, self._looks = set(), 0
        self._newest = newest
        there = all_pids()
        self._known &= there
        table = read_processes(there - self._known.difference(roots))  # one made beforehand may have become a worker
        self._known |= table.processes.keys()
        self._known.difference_update(*map(table.tree, roots))
        return table


def _newest_pid() -> int:
    """The number given out last."""
    descriptor = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(descriptor, 256).rsplit(None, 1)[1])
    finally:
        os.close(descriptor)


def open_files(pid: int) -> int:
    """How many descriptors a process holds; 0 where it ended or may not be looked at."""
    folder = f"/proc/{pid}/fd"
    try:
        # The folder's size is their number from Linux 6.2 on; before, it is 0.
        return os.stat(folder).st_size or len(os.listdir(folder))  # noqa: PTH116, PTH208 - for each process of this host
    except OSError:
        return 0


class UsageMeter:
    """Processor use between two readings."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[float, float, float]] = {}
        """Root → when it was measured, its seconds then, and those that are in no file any more: an orphan took them along."""
        self._strangers = Strangers()

    def measure(self, roots: Mapping[int, float], now: float) -> dict[int, Usage]:
        """Root → usage of its tree. `roots`: process → when it started, on the clock of `now`. Raises OSError."""
        if not roots:
            self._before = {}
            return {}
        table = self._strangers.read(roots)
        usage: dict[int, Usage] = {}
        after: dict[int, tuple[float, float, float]] = {}
        for root, started in roots.items():
            processes = [table.processes[pid] for pid in table.tree(root)]
            if not processes:
                continue
            then, seconds_then, lost = self._before.get(root, (started, 0.0, 0.0))
            there = sum(process.cpu_seconds for process in processes)
            lost = max(lost, seconds_then - there)
            seconds = there + lost
            after[root] = now, seconds, lost
            elapsed = now - then
            usage[root] = Usage(
                root,
                rss_bytes=sum(process.rss_bytes for process in processes),
                cpu_seconds=seconds,
                cpu_percent=(seconds - seconds_then) / elapsed * 100 if elapsed > 0 else 0.0,
                open_files=sum(open_files(process.pid) for process in processes),
                threads=sum(process.threads for process in processes),
            )
        self._before = after
        return usage
