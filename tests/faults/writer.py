"""The worker of the fault test: prints numbered lines and keeps its own journal. Standard library only.

Where it is given a NOTIFY_SOCKET, it says READY=1 and feeds its watchdog, as sd_notify(3) does.

Environment: FAULTS_JOURNAL (a folder), FAULTS_RATE (lines a second), and what the agent gives to every worker.

A line is `ID NUMBER xxx…`, LINE_BYTES long with its newline; ID is `app.slot.generation.pid.start_ticks` and names the process
for ever. The journal `ID.life` is WORDS unsigned 64-bit numbers in shared memory: each is one store, kept by the kernel whatever
happens to the process, so it is true at any instant of a SIGKILL.
"""

import mmap
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

LINE_BYTES = 100
STARTED, BEAT, ATTEMPTED, WRITTEN, LONGEST_WRITE, TOLD, LONGEST_NOTIFY, UNHEARD, FULL = range(9)
"""The journal's numbers. Times are nanoseconds of CLOCK_MONOTONIC; ATTEMPTED is counted before a write, WRITTEN after it; TOLD is
when a stop signal arrived, 0 for never; UNHEARD counts notifications that failed or would have waited, FULL the
writes that found no room."""
WORDS = 9
_TICK_SECONDS = 0.01
_FEEDS = 4
"""A watchdog is fed so often in its time: a socket holds ten messages by default (net.unix.max_dgram_qlen)."""


def _start_ticks() -> int:
    content = Path("/proc/self/stat").read_text()
    return int(content[content.rfind(")") + 2 :].split()[19])


def _open_journal(folder: Path, name: str, started: int) -> memoryview:
    """It appears whole: under its name only once it says when the process started."""
    beside = folder / f"{name}.new"
    with beside.open("w+b") as file:
        file.truncate(WORDS * 8)
        journal = memoryview(mmap.mmap(file.fileno(), WORDS * 8)).cast("Q")
    journal[STARTED] = journal[BEAT] = started
    beside.rename(folder / f"{name}.life")
    return journal


class Watchdog:
    """Fed through NOTIFY_SOCKET; where there is none, nothing happens."""

    def __init__(self, journal: memoryview) -> None:
        self._journal = journal
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._every = int(int(os.environ.get("WATCHDOG_USEC", "0")) * 1000 / _FEEDS)
        self._due = 0
        if self._address:
            self._say(b"READY=1")

    def feed(self, now: int) -> None:
        if self._address and self._every and now >= self._due:
            self._due = now + self._every
            self._say(b"WATCHDOG=1")

    def _say(self, message: bytes) -> None:
        before = time.monotonic_ns()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as endpoint:
                endpoint.sendto(message, socket.MSG_DONTWAIT, self._address)
        except OSError:
            self._journal[UNHEARD] += 1
        self._journal[LONGEST_NOTIFY] = max(self._journal[LONGEST_NOTIFY], time.monotonic_ns() - before)


def _write(journal: memoryview, line: bytes) -> None:
    """Where an ordinary program would be blocked, that is counted, however short it is."""
    output = sys.stdout.fileno()
    try:
        os.write(output, line)
    except BlockingIOError:
        journal[FULL] += 1
        while True:
            select.select([], [output], [])
            try:
                os.write(output, line)
            except BlockingIOError:
                continue
            return


def main() -> None:
    started = time.monotonic_ns()
    environment = os.environ
    place = [environment[name] for name in ("FLEET_APP", "FLEET_WORKER_ID", "FLEET_GENERATION")]
    name = ".".join([*place, str(os.getpid()), str(_start_ticks())])
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda _number, _frame: told.append(time.monotonic_ns()))
    journal = _open_journal(Path(environment["FAULTS_JOURNAL"]), name, started)
    rate = float(environment["FAULTS_RATE"])
    watchdog = Watchdog(journal)
    os.set_blocking(sys.stdout.fileno(), False)  # no other process has this pipe opened by the same open(2)
    number = 0
    while not told:
        due = int((time.monotonic_ns() - started) / 1e9 * rate)
        # One that was held up does not catch up with a flood: what it owes it prints at no more than ten times its rate.
        for _ in range(min(due - number, max(1, int(rate * _TICK_SECONDS * 10)))):
            number += 1
            line = f"{name} {number} ".encode().ljust(LINE_BYTES - 1, b"x") + b"\n"
            journal[ATTEMPTED] = number
            before = time.monotonic_ns()
            _write(journal, line)
            after = time.monotonic_ns()
            journal[WRITTEN] = number
            journal[LONGEST_WRITE] = max(journal[LONGEST_WRITE], after - before)
        journal[BEAT] = time.monotonic_ns()
        watchdog.feed(time.monotonic_ns())
        time.sleep(_TICK_SECONDS)
    journal[TOLD] = told[0]
    journal[BEAT] = time.monotonic_ns()


if __name__ == "__main__":
    main()
