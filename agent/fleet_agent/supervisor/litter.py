"""Many waiting processes at once: a stub that makes others like itself, instead of one posix_spawn(3) for each.

posix_spawn holds the supervisor up until the new process has got through execve(2), which waits for a processor behind all that
was started before. A stub has three pages: clone(2) of it takes a fraction, beside the supervisor. With CLONE_PARENT what it
makes are the supervisor's own children, which it alone reaps.

```
 supervisor                                  breeder (a stub), for each
 channel and order of one ─── SCM_RIGHTS ──► recvmsg, clone ──────► setsid, its channel and order in their places,
 pid ◄────────────────────────────────────── write                  back to the stub's beginning: it waits
```

Each waits for its own order with its own channel, as any stub, so all that `spawn` says of records and kills holds: when the
supervisor dies, all their channels end. How parent and child of clone(2) part without a branch: CLONE_CHILD_SETTID puts the
child's number into the nanoseconds of a timeout, of which ppoll(2) then says EINVAL.
"""

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from fleet_agent.supervisor.processes import kill_own
from fleet_agent.supervisor.stub import CALL, IGNORED, IMAGE, NUMBERS, RESTART
from fleet_agent.supervisor.stub_program import CHANNEL, FIRST_INHERITED, ORDER

MOST = 32
"""Descriptors for all of them are open at once, three each."""
_FLAGS = 0x8000 | 0x100000 | 0x1000000
"""CLONE_PARENT, CLONE_PARENT_SETTID, CLONE_CHILD_SETTID (linux/sched.h); what the parent is sent at the end stays SIGCHLD."""
_PID = struct.Struct("=i")
_PAIR_BYTES = socket.CMSG_SPACE(8)
_SECONDS = 5.0
"""For a breeder to make one; it takes a fraction of a millisecond."""


class Litter:
    """`count` stubs, which come one by one. Owns those that nobody took, until `close`."""

    def __init__(self, count: int, start_stub: Callable[[int, int], int]) -> None:
        """`start_stub(channel, order)` makes the breeder and returns its pid. Raises OSError."""
        self._expected: list[tuple[socket.socket, int]] = []
        """Channel and order of each that was not taken, the next one last."""
        self._breeder = 0
        self._channel, far = socket.socketpair()
        try:
            self._channel.settimeout(_SECONDS)
            with far:
                order = os.memfd_create("fleet-order", os.MFD_CLOEXEC)
                try:
                    self._breeder = start_stub(far.fileno(), order)
                    os.sched_setscheduler(self._breeder, os.SCHED_BATCH, os.sched_param(0))
                    os.pwrite(order, litter_order(count), 0)
                finally:
                    os.close(order)
            for _ in range(count):
                self._send_one()
            self._expected.reverse()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._expected)

    def take(self) -> tuple[int, socket.socket, int]:
        """Its pid, its channel and its order, the caller's to close. Raises OSError; the rest of the litter is lost then."""
        try:
            said = self._channel.recv(_PID.size)
            if len(said) != _PID.size:
                raise ChildProcessError("the process that makes others ended")
        except OSError:
            self.close()
            raise
        channel, order = self._expected.pop()
        return _PID.unpack(said)[0], channel, order

    def close(self) -> None:
        """May be repeated."""
        left = len(self._expected)
        while self._expected:
            channel, order = self._expected.pop()
            channel.close()  # the process ends
            os.close(order)
        if self._breeder:
            if left:
                self._reap(left)
            kill_own(self._breeder)
            self._breeder = 0
        self._channel.close()

    def _reap(self, count: int) -> None:
        """Those that were made and not taken; their pids are nobody else's until then."""
        with suppress(OSError):
            for _ in range(count):
                said = self._channel.recv(_PID.size)
                if len(said) != _PID.size:
                    return
                kill_own(*_PID.unpack(said))

    def _send_one(self) -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        with far:
            order = os.memfd_create("fleet-order", os.MFD_CLOEXEC)
            self._expected.append((near, order))
            socket.send_fds(self._channel, [b"\n"], (far.fileno(), order))


def litter_order(count: int) -> bytes:
    """What a breeder does: system calls, as `stub` has them."""
    breeding = 6 * count + 1
    young = IMAGE + breeding * CALL.size
    data = young + 7 * CALL.size
    failed, byte, pid, timeout = IGNORED, data, data + 8, data + 16
    vector, control, header = data + 32, data + 48, data + 48 + _PAIR_BYTES
    end = young - CALL.size
    first, second = FIRST_INHERITED, FIRST_INHERITED + 1
    calls: list[bytes] = []

    def call(name: str, a: int, b: int = 0, c: int = 0, d: int = 0, *, instead: int) -> None:
        calls.append(CALL.pack(NUMBERS[name], a, b, c, d, failed, instead))

    for _ in range(count):
        call("receive", CHANNEL, header, socket.MSG_CMSG_CLOEXEC, instead=end)
        call("clone", _FLAGS, 0, pid, timeout + 12, instead=end)
        call("ppoll", 0, 0, timeout, instead=young)
        call("write", CHANNEL, pid, _PID.size, instead=end)
        call("close", first, instead=end)
        call("close", second, instead=end)
    call("exit_group", 0, instead=end)
    lost = data - CALL.size
    call("setsid", 0, instead=lost)
    call("dup2", first, CHANNEL, instead=lost)
    call("dup2", second, ORDER, instead=lost)
    call("close", first, instead=lost)
    call("close", second, instead=lost)
    calls.append(CALL.pack(RESTART, 0, 0, 0, 0, failed, lost))
    call("exit_group", 127, instead=lost)
    memory = struct.pack("=QiiQQ", 0, 0, 0, 0, 0) + struct.pack("=QQ", byte, 1) + bytes(_PAIR_BYTES)
    return b"".join(calls) + memory + struct.pack("=QQQQQQQ", 0, 0, vector, 1, control, _PAIR_BYTES, 0)
