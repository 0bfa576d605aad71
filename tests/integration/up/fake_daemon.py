#!/usr/bin/env python3
"""Stands in for every daemon of a fleet in the tests of `up`; the standard library and the service-manager protocol only.

fake_daemon.py ROLE run|stop OPTIONS; called as an etcd (options only) it is an etcd. What a process did is appended to the file
named by $FAKE_JOURNAL as "SERVICE PID WORD …".
"""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from fleet_core import service_manager


def record(*words: object) -> None:
    service = os.environ.get("FLEET_UP_SERVICE", "-")
    line = " ".join(map(str, (service, os.getpid(), *words)))
    with Path(os.environ["FAKE_JOURNAL"]).open("a") as journal:
        journal.write(line + "\n")


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def keep_descriptor() -> None:
    """Count one's starts in an unnamed file that only the fd store remembers."""
    stored = service_manager.take_stored()
    if "counter" in stored:
        (descriptor,) = stored["counter"]
    else:
        with tempfile.TemporaryFile() as unnamed:
            descriptor = os.dup(unnamed.fileno())
        service_manager.store("counter", descriptor)
    os.write(descriptor, b"x")
    record("started", os.fstat(descriptor).st_size)


def supervise() -> None:
    """One worker that outlives its supervisor."""
    pid_file = Path(option("--runtime-dir"), "worker.pid")
    if not pid_file.exists():
        worker = subprocess.Popen(
            ["sleep", "1000"], start_new_session=True, env={"PATH": os.environ["PATH"]}, stdout=subprocess.DEVNULL
        )
        worker.returncode = 0  # not ours to wait for
        pid_file.write_text(str(worker.pid))
        record("worker", worker.pid)


def stop() -> None:
    record("stop", *sys.argv[1:])
    if "--runtime-dir" in sys.argv:
        if "FAKE_STUBBORN" in os.environ and "--grace-seconds" not in sys.argv:
            signal.pause()
        pid_file = Path(option("--runtime-dir"), "worker.pid")
        with suppress(ProcessLookupError):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
        pid_file.unlink()


def run() -> None:
    if "FAKE_FAILS" in os.environ and os.environ["FLEET_UP_SERVICE"] == os.environ["FAKE_FAILS"]:
        sys.exit("the sky is falling")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    keep_descriptor()
    if sys.argv[1] == "supervisor":
        supervise()
    service_manager.notify("READY=1", "STATUS=running")
    while True:
        signal.pause()


if __name__ == "__main__":
    if "stop" in sys.argv[2:3]:
        stop()
    else:
        run()
