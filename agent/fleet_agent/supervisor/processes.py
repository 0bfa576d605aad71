"""Naming, watching and signalling processes so that the wrong one is never hit (invariant 8).

A pid names a process only while somebody holds it. With its start time (field 22 of /proc/PID/stat, proc(5)), the boot id and
the pid namespace it names one for ever; a pidfd (pidfd_open(2)) opened first and compared afterwards holds on to it.
"""

import contextlib
import fcntl
import os
import signal
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

# include/uapi/linux/pidfd.h
_SIGNAL_PROCESS_GROUP = 1 << 2  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
_GET_INFO = 0xC040FF0B  # PIDFD_GET_INFO, Linux 6.13
_INFO_EXIT = 1 << 3  # PIDFD_INFO_EXIT, Linux 6.15
_INFO = struct.Struct("=QQ11Ii")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_NAMES_OF_A_WORKER = (b"FLEET_APP=", b"FLEET_WORKER_ID=", b"FLEET_GENERATION=")
_SIGNAL_NAMES = {int(known): known.name for known in signal.Signals}
_DEAD_STATES = frozenset("ZXx")
HOME_VARIABLE = "FLEET_SUPERVISOR"
"""Names the runtime folder of the supervisor that started a process."""
UNKNOWN_EXIT = "exit status unknown"


class End(NamedTuple):
    """How a process ended."""

    reason: str
    exit_code: int | None = None
    """None after a signal, and where it cannot be known."""


UNKNOWN_END = End(UNKNOWN_EXIT)


class Stat(NamedTuple):
    """The part of /proc/PID/stat that is needed here."""

    state: str
    session: int
    start_ticks: int
    wait_status: int
    """Of a zombie, and as waitpid(2) tells it; 0 where one is not allowed to know."""

    @property
    def dead(self) -> bool:
        return self.state in _DEAD_STATES


Sessions = dict[int, list[tuple[int, Stat]]]
"""The processes of each session, by the pid of its first leader."""


@dataclass(frozen=True)
class Place:
    """Where pids mean something: containers share the machine's boot id, not its pid namespace."""

    boot_id: str
    pid_namespace: int


def here() -> Place:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Place(boot_id, Path("/proc/self/ns/pid").stat().st_ino)


def read_stat(pid: int) -> Stat | None:
    """None where there is no such process."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        content = os.read(descriptor, 4096).decode("ascii", "replace")
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
    fields = content[content.rfind(")") + 2 :].split()
    return Stat(fields[0], int(fields[3]), int(fields[19]), int(fields[49]))


def open_verified(pid: int, start_ticks: int) -> int | None:
    """A pidfd of exactly that process, or None where it is gone, a zombie, or its pid belongs to somebody else."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    stat = read_stat(pid)
    if stat is None or stat.dead or stat.start_ticks != start_ticks:
        os.close(descriptor)
        return None
    return descriptor


def describe_exit(code: int, status: int) -> End:
    """What `si_code` and `si_status` of waitid(2) say."""
    if code == os.CLD_EXITED:
        return End(f"exit code {status}", status)
    name = _SIGNAL_NAMES.get(status) or f"signal {status}"
    return End(f"killed by {name}" + (" (core dumped)" if code == os.CLD_DUMPED else ""))


def _describe_status(status: int) -> End:
    if os.WIFEXITED(status):
        return describe_exit(os.CLD_EXITED, os.WEXITSTATUS(status))
    return describe_exit(os.CLD_DUMPED if os.WCOREDUMP(status) else os.CLD_KILLED, os.WTERMSIG(status))


class Tree:
    """A worker's processes: the leader, its process group, and the rest of its session.

    Owns `pidfd`, which is None where the leader was dead when it was looked for. `child` says whether this process is the
    one to reap it. `marks` are the FLEET_ variables, as in /proc/PID/environ, that tell its tree from strangers.
    """

    def __init__(self, pid: int, start_ticks: int, pidfd: int | None, env: dict[str, str], *, child: bool) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._start_ticks = start_ticks
        self.child = child
        self._reaped = False
        self._marks = {f"{name}={value}".encode() for name, value in env.items() if name.startswith("FLEET_")}

    def close(self) -> None:
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

    def outcome(self) -> End | None:
        """How the leader ended; None while that cannot be told yet. A child stays unreaped."""
        if self.child and self.pidfd is not None:
            ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return None if ended is None else describe_exit(ended.si_code, ended.si_status)
        stat = read_stat(self.pid)
        if stat is not None and stat.dead and stat.start_ticks == self._start_ticks:
            return _describe_status(stat.wait_status)
        return UNKNOWN_END if self.pidfd is None else self._reaped_outcome(self.pidfd)

    @staticmethod
    def _reaped_outcome(pidfd: int) -> End | None:
        info = bytearray(_INFO.size)
        struct.pack_into("=Q", info, 0, _INFO_EXIT)
        try:
            fcntl.ioctl(pidfd, _GET_INFO, info)
        except OSError:  # the kernel is too old, or kept nothing
            return UNKNOWN_END
        mask, *_, status = _INFO.unpack(info)
        return _describe_status(status) if mask & _INFO_EXIT else None

    def reap(self) -> None:
        """Give the leader's pid back; signal the group before, not after."""
        if self.child and not self._reaped and self.pidfd is not None:
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        self._reaped = True

    def signal_group(self, number: int) -> None:
        """To every process of the leader's process group. Nothing happens where none is left."""
        if self.pidfd is None:
            self._signal_each(number)
            return
        try:
            self._signal_whole_group(self.pidfd, number)
        except ProcessLookupError:
            send(self.pidfd, number)  # just forked: it has not made its group yet
        except OSError:  # EINVAL: a kernel before 6.9, and not our child
            self._signal_each(number)

    def _signal_whole_group(self, pidfd: int, number: int) -> None:
        try:
            signal.pidfd_send_signal(pidfd, number, None, _SIGNAL_PROCESS_GROUP)
        except ProcessLookupError:
            raise
        except OSError:
            if not self.child or self._reaped:
                raise
            os.killpg(self.pid, number)

    def kill_all(self) -> None:
        """SIGKILL to the whole session: to programs that gave themselves a process group of their own, too."""
        self.signal_group(signal.SIGKILL)
        self._signal_each(signal.SIGKILL)

    def _signal_each(self, number: int) -> None:
        if self.pidfd is not None:
            send(self.pidfd, number)
        for descriptor in self.open_members(living_by_session()):
            try:
                send(descriptor, number)
            finally:
                os.close(descriptor)

    def open_members(self, living: Sessions) -> list[int]:
        """Pidfds, the caller's to close, of the members of the leader's session in `living`, the leader not among them."""
        leader_holds_pid = self.child and not self._reaped
        members = []
        for pid, stat in living.get(self.pid, ()):
            if pid == self.pid or stat.start_ticks < self._start_ticks:
                continue
            descriptor = open_verified(pid, stat.start_ticks)
            if descriptor is None:
                continue
            # Once the leader is reaped its number may lead another session: then only the marks tell.
            if leader_holds_pid or self._marked(pid):
                members.append(descriptor)
            else:
                os.close(descriptor)
        return members

    def open_strays(self, home: str, living: Sessions, leaders: Collection[int], before: float) -> list[int]:
        """Pidfds, the caller's to close, of those that left the session: daemons, which fork twice.

        The marks name this worker, and HOME_VARIABLE with `home` the supervisor whose it is, as another of this machine may
        have one of the same name. They name its next process too: hence only those that began before that time,
        CLOCK_BOOTTIME seconds, and none in the sessions of `leaders`, which live.
        """
        if not all(any(mark.startswith(name) for mark in self._marks) for name in _NAMES_OF_A_WORKER):
            return []
        marks = {*self._marks, f"{HOME_VARIABLE}={home}".encode()}
        strays = []
        latest = int(before * _TICKS_A_SECOND)
        for session, members in living.items():
            if session == self.pid or session in leaders:
                continue
            for pid, stat in members:
                if not self._start_ticks <= stat.start_ticks < latest or not _has(pid, marks):
                    continue
                descriptor = open_verified(pid, stat.start_ticks)
                if descriptor is not None:
                    strays.append(descriptor)
        return strays

    def holds(self, pid: int) -> bool:
        """Is it a living process of this tree: by its session, or by the marks where it has left that."""
        stat = read_stat(pid)
        return stat is not None and (stat.session == self.pid or self._marked(pid))

    def _marked(self, pid: int) -> bool:
        return bool(self._marks) and _has(pid, self._marks)


def _has(pid: int, marks: set[bytes]) -> bool:
    """Does the process have all these in the environment it was started with."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return marks.issubset(content.split(b"\0"))


def send(pidfd: int, number: int) -> None:
    """Nothing happens where the process has ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def kill_own(pid: int) -> None:
    """A child of ours that was not reaped yet: its pid is nobody else's. Returns when it is gone."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def living_by_session() -> Sessions:
    """Every process of this machine that is alive: some 10 µs for each, so ask once for many trees."""
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
    sessions: Sessions = {}
    for pid in pids:
        stat = read_stat(pid)
        if stat is not None and not stat.dead:
            sessions.setdefault(stat.session, []).append((pid, stat))
    return sessions
