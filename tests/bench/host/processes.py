"""What /proc tells of other processes, and waiting for it, at one sampling interval for every subject."""

import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

SAMPLE_SECONDS = 0.0005
_STUB = b"fleet-start\0"
"""The command line of a process in which fleet-supervisor will start a worker."""

_T = TypeVar("_T")


class BenchError(Exception):
    """A measurement could not be made; the text says why."""


def sample_until(condition: Callable[[], _T], what: str, seconds: float, pause: float = SAMPLE_SECONDS) -> _T:
    """The first true result. Raises BenchError at the deadline."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise BenchError(f"after {seconds:g} s still not: {what}")
        time.sleep(pause)
    return result


def all_pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names are wanted, not paths


def parent(pid: int) -> int:
    """0 where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - in the sampling loop
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def command_line(pid: int) -> bytes | None:
    """b"" of a zombie; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:  # noqa: PTH123 - in the sampling loop
            return file.read()
    except OSError:
        return None


def alive(pid: int) -> bool:
    return bool(command_line(pid))


def twins(pid: int) -> list[int]:
    """Its children that are not yet what they shall become: made beforehand, and a part of its cost."""
    made = {command_line(pid), _STUB} - {None, b""}
    return [child for child in all_pids() if parent(child) == pid and command_line(child) in made]


def private_mib(pid: int) -> float:
    """What it does not share with the process it was forked from, or any other."""
    rollup = Path(f"/proc/{pid}/smaps_rollup")
    return (_field(rollup, "Private_Clean:") + _field(rollup, "Private_Dirty:")) / 1024


def cpu_seconds(pid: int) -> float:
    """Time on a processor of all its threads, to the nanosecond (Documentation/scheduler/sched-stats)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def pss_mib(pid: int) -> float:
    """Its memory, what it shares divided by those who share (man 5 proc, smaps_rollup)."""
    return _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / 1024


def alone_mib(pids: Collection[int]) -> float:
    """The memory of these processes together were nothing else on the machine: what they share counts once, and unlike in PSS
    no stranger pays for a part of it (man 5 proc, smaps)."""
    anonymous = 0
    files: dict[tuple[str, ...], int] = {}
    for pid in pids:
        for file, resident, own in _mappings(pid):
            anonymous += own
            files[file] = max(files.get(file, 0), resident - own)
    return (anonymous + sum(files.values())) / 1024


def _mappings(pid: int) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """(offset, device and inode; resident KiB; anonymous KiB among them) of each."""
    file: tuple[str, ...] = ()
    resident = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            file = (words[2], words[3], words[4])
        elif words[0] == "Rss:":
            resident = int(words[1])
        elif words[0] == "Anonymous:":
            yield file, resident, int(words[1])


def peak_rss_mib(pid: int) -> float:
    return _field(Path(f"/proc/{pid}/status"), "VmHWM:") / 1024


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise BenchError(f"{path} has no line {name}")


def of_folder(folder: Path) -> dict[int, str]:
    """Pid → command line of every live process that has a path below `folder` in its command line or environment."""
    mark = os.fsencode(folder) + b"/"
    found: dict[int, str] = {}
    for pid in all_pids():
        command = command_line(pid)
        if not command or pid == os.getpid():
            continue
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if mark in command or mark in environment:
            found[pid] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def ends_within(pid: int, seconds: float) -> bool:
    """Does this child, not waited for yet? Told at once: `Popen.wait` with a timeout looks every 50 ms."""
    descriptor = os.pidfd_open(pid)
    try:
        return _ended(descriptor, seconds)
    finally:
        os.close(descriptor)


def _ended(pidfd: int, seconds: float) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])


def kill_and_wait(pid: int, seconds: float = 10.0) -> None:
    """SIGKILL, through a pidfd, so that no later owner of the number is hit. Raises BenchError when it stays."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        if not _ended(descriptor, seconds):
            raise BenchError(f"process {pid} does not end after SIGKILL")
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)
