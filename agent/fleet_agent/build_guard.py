"""Runs one build and lets nothing of it live on: `python -m fleet_agent.build_guard SECONDS USER GROUP -- ARGV`.

Its standard input is a pipe that the agent holds. When that closes, because the agent was killed or gave the build up, and when
the time is over, every process of the build is killed. It is the subreaper of what the build lets go of (prctl(2),
PR_SET_CHILD_SUBREAPER), so that no pid it signals can be somebody else's: a child that nobody reaped keeps its pid.

Exit status: the build's; 128 + the signal that ended it; 124 the time was over; 125 it cannot be run, said in one line.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

TIMED_OUT, CANNOT_RUN = 124, 125
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.1


def main(arguments: Sequence[str]) -> int:
    seconds, user, group, _, *argv = arguments
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    groups = [int(number) for number in os.environ.pop("FLEET_BUILD_GROUPS", "").split()]
    identity = {"user": int(user), "group": int(group), "extra_groups": groups} if user else {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_end(CANNOT_RUN)))
    try:
        build = subprocess.Popen(argv, stdin=subprocess.DEVNULL, umask=0o022, **identity)  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError) as error:
        print(f"cannot run {argv[0]}: {error}", flush=True)
        return CANNOT_RUN
    deadline = time.monotonic() + float(seconds)
    while build.poll() is None:
        if time.monotonic() > deadline:
            return _end(TIMED_OUT)
        if select.select([0], [], [], _POLL_SECONDS)[0] and not os.read(0, 1):
            return _end(CANNOT_RUN)
    return _end(build.returncode if build.returncode >= 0 else 128 - build.returncode)


def _end(status: int) -> int:
    """Kill whatever is left, until nothing is; returns `status`."""
    while children := list(_children()):
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)
    return status


def _children() -> Iterator[int]:
    """What of the build is this process's child, living or dead; orphans become that, too."""
    for task in Path("/proc/self/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
