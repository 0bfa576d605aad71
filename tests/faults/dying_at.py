"""fleet-supervisor that kills itself before the system call of a number.

Arguments: NUMBER SINCE FILE --runtime-dir D --log-dir L. Counted are those that change something outside of the process, from its
start on, or from the first request `run` (SINCE: start, run). FILE gets the call's name and place.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from fleet_agent.supervisor.host import Host
from fleet_agent.supervisor.server import Client
from fleet_agent.supervisor.service import Service

_CALLS = frozenset(
    [
        "open",
        "close",
        "write",
        "pwrite",
        "ftruncate",
        "splice",
        "mkdir",
        "mkfifo",
        "unlink",
        "rename",
        "chmod",
        "chown",
        "kill",
        "waitid",
        "waitpid",
        "posix_spawn",
        "pidfd_open",
        "pidfd_send_signal",
        "killpg",
        "memfd_create",
        "sched_setscheduler",
        "fcntl",
        "lockf",
        "flock",
        "bind",
        "listen",
        "accept",
        "_accept",
        "connect",
        "send",
        "sendall",
        "sendmsg",
        "sendto",
        "recv",
        "recvmsg",
        "shutdown",
        "detach",
        "socketpair",
    ]
)
"""Dying before one that only looks is the same as dying before the next of these."""

_ONLY_LOOK = ("read_stat",)
"""Functions that open nothing but files of other processes: there are as many calls of it as this machine has processes."""


class Countdown:
    """Install with sys.setprofile."""

    def __init__(self, number: int, file: Path) -> None:
        self._left = number
        self._file = file

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call" or called.__name__ not in _CALLS or frame.f_code.co_name in _ONLY_LOOK:
            return
        if self._left:
            self._left -= 1
            return
        sys.setprofile(None)
        place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        self._file.write_text(f"{called.__name__} in {frame.f_code.co_name}, {place}")
        os.kill(os.getpid(), signal.SIGKILL)


def _from_first_run(countdown: Countdown) -> Callable[[Service, Client, dict[str, Any]], None]:
    handle = Service.handle

    def handle_counted(service: Service, client: Client, message: dict[str, Any]) -> None:
        if message.get("request") == "run" and sys.getprofile() is None:
            sys.setprofile(countdown)
        handle(service, client, message)

    return handle_counted


def main() -> None:
    number, since, file, _, runtime_dir, _, log_dir = sys.argv[1:]
    countdown = Countdown(int(number), Path(file))
    if since == "start":
        sys.setprofile(countdown)
    else:
        Service.handle = _from_first_run(countdown)  # type: ignore[method-assign, assignment]
    host = Host(Path(runtime_dir), Path(log_dir), Path(runtime_dir) / "supervisor.sock")
    signal.signal(signal.SIGTERM, host.stop)
    host.run()
    host.close()


if __name__ == "__main__":
    main()
