"""Short slices: a daemon that wakes to pass on a piece of news gets a core before those who compute.

Standard library only: the supervisor uses it.
"""

import ctypes
import os
import platform

SLICE_NANOSECONDS = 100_000
"""The shortest there is (sched_setattr(2): `sched_runtime` of SCHED_OTHER, from Linux 6.12 on)."""
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}
"""The number of the system call, by machine (syscalls(2)); C libraries have no function for it."""
_RESET_ON_FORK = 1
_SCHED_OTHER = 0


class _Attributes(ctypes.Structure):
    """struct sched_attr, its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def take_short_slices(*, children: bool) -> bool:
    """Ask for `SLICE_NANOSECONDS` for this thread and, where `children`, for the threads and processes it starts.

    This gives no larger share of a core and no priority, and needs no right: turns are short, and so come early. Else
    a worker that boots, with all its threads, keeps whoever tells of it waiting for slices of milliseconds, at every
    hop. False: this kernel cannot.
    """
    number = _SET_ATTRIBUTES.get(platform.machine())
    if number is None:
        return False
    wanted = _Attributes(
        ctypes.sizeof(_Attributes),
        policy=_SCHED_OTHER,
        flags=0 if children else _RESET_ON_FORK,
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        runtime=SLICE_NANOSECONDS,
    )
    return bool(ctypes.CDLL(None).syscall(number, 0, ctypes.byref(wanted), 0) == 0)
