"""Which processes have become a program, and when.

Where the bench may ask it (root, in the machine's first user namespace), the kernel tells of each execve(2) with its time
(linux/cn_proc.h). Elsewhere /proc is looked at, which costs more the more processes wait to become the program.
"""

import contextlib
import errno
import math
import os
import socket
import struct
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from tests.bench.host.processes import BenchError, all_pids, command_line, parent

_EXEC_SECONDS = 1.0
"""A process that has not become the wanted program so long after its start is another's."""
_NETLINK_CONNECTOR = 11
_SO_RCVBUFFORCE = 33
"""socket(7); Python has no name for it."""
_PROC_EVENTS = 1
"""CN_IDX_PROC and CN_VAL_PROC (linux/connector.h)."""
_LISTEN, _IGNORE = 1, 2
"""PROC_CN_MCAST_LISTEN and PROC_CN_MCAST_IGNORE: kernels before 6.6 go on telling, to nobody, unless they are told."""
_EXEC = 2
"""PROC_EVENT_EXEC."""
_NLMSG_DONE = 3
_NETLINK_HEADER = struct.Struct("=IHHII")
_CONNECTOR_HEADER = struct.Struct("=IIIIHH")
_EVENT = struct.Struct("=IIQII")
"""struct proc_event as far as of an execve: what, cpu, nanoseconds, thread, process."""
_BUFFER_BYTES = 4 * 1024 * 1024
_MESSAGE_BYTES = 4096


class NewProcesses:
    """Those that became `argv` since this object was made. Owns a socket, until `close` or its end.

    `parents`: where /proc is looked at, children of these are asked for as long as they live, also those that were there before:
    a parent may make a process long before it is told what to become.
    """

    def __init__(self, argv: Sequence[str], parents: Collection[int] = ()) -> None:
        self._wanted = b"".join(os.fsencode(argument) + b"\0" for argument in argv)
        self._source = _source(self._wanted, frozenset(parents))
        self.found: set[int] = set()
        self.moments: list[float] = []
        """When each became it, as time.perf_counter() has it; where /proc is looked at, when that was seen."""

    def close(self) -> None:
        self._source.close()

    def look(self) -> set[int]:
        for pid, moment in self._source.candidates():
            if pid not in self.found and command_line(pid) == self._wanted:
                self.found.add(pid)
                self.moments.append(moment)
        return self.found


def _source(wanted: bytes, parents: frozenset[int]) -> "_Told | _Looked":
    try:
        return _Told()
    except OSError:
        return _Looked(wanted, parents)


class _Told:
    """Raises OSError where the kernel does not tell."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_CONNECTOR)
        try:
            with contextlib.suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
            self._socket.bind((0, _PROC_EVENTS))
            self._ask(_LISTEN)
            self._socket.settimeout(1.0)
            self._socket.recv(_MESSAGE_BYTES)  # it says at once that it will
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._ask(_IGNORE)
        self._socket.close()

    def _ask(self, wish: int) -> None:
        request = struct.pack("=I", wish)
        length = _NETLINK_HEADER.size + _CONNECTOR_HEADER.size + len(request)
        header = _NETLINK_HEADER.pack(length, _NLMSG_DONE, 0, 0, 0)
        self._socket.send(header + _CONNECTOR_HEADER.pack(_PROC_EVENTS, _PROC_EVENTS, 0, 0, len(request), 0) + request)

    def candidates(self) -> list[tuple[int, float]]:
        """Pid and moment of each execve since the last call. Raises BenchError."""
        told: list[tuple[int, float]] = []
        while True:
            try:
                message = self._socket.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                return told
            except OSError as error:
                raise BenchError(
                    f"the kernel told more than was read: {os.strerror(error.errno or errno.EIO)}"
                ) from error
            offset = _NETLINK_HEADER.size + _CONNECTOR_HEADER.size
            if len(message) >= offset + _EVENT.size:
                what, _, nanoseconds, _, pid = _EVENT.unpack_from(message, offset)
                if what == _EXEC:
                    told.append((pid, nanoseconds / 1e9))


class _Looked:
    """/proc/loadavg ends with the pid most recently handed out (man 5 proc), so only those since the last look are asked."""

    def __init__(self, wanted: bytes, parents: frozenset[int]) -> None:
        self._wanted = wanted
        self._parents = parents
        self._newest = _newest_pid()
        self._deadlines: dict[int, float] = {}
        if parents:
            before = [pid for pid in all_pids() if command_line(pid) != wanted and parent(pid) in parents]
            self._deadlines.update(dict.fromkeys(before, math.inf))

    def close(self) -> None:
        pass

    def candidates(self) -> list[tuple[int, float]]:
        newest, now = _newest_pid(), time.perf_counter()
        if newest >= self._newest:
            fresh: Sequence[int] = range(self._newest + 1, newest + 1)
        else:  # the numbers began again from below
            fresh = [pid for pid in all_pids() if pid > self._newest or pid <= newest]
        self._newest = newest
        self._deadlines.update(dict.fromkeys(fresh, now + _EXEC_SECONDS))
        became = []
        for pid, deadline in list(self._deadlines.items()):
            command = command_line(pid)
            if now > deadline and parent(pid) in self._parents:
                self._deadlines[pid] = math.inf
            elif command is None or command == self._wanted or now > deadline:
                del self._deadlines[pid]
                became.append((pid, now))
        return became


def _newest_pid() -> int:
    return int(Path("/proc/loadavg").read_bytes().rsplit(None, 1)[1])
