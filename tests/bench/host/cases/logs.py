"""One worker floods: until its last line is on disk."""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.bench.host.app import App, writer
from tests.bench.host.case import Case
from tests.bench.host.processes import cpu_seconds, peak_rss_mib, sample_until
from tests.bench.host.subject import NotAvailableError, Subject
from tests.bench.host.subjects.circus import Circus
from tests.bench.host.subjects.fleet import Fleetctl
from tests.bench.host.subjects.floor import Floor, PlainFile
from tests.bench.host.subjects.pm2 import Pm2
from tests.bench.host.subjects.supervisor import SupervisorAlone
from tests.bench.host.subjects.supervisord import Supervisord
from tests.bench.host.targets import Target

_SECONDS = 120.0
_TAIL_BYTES = 400
_LINE = re.compile(rb"(\d{7}) x{91}\n")
_WHOLE = "s, first line → last on disk"
_WRITER = "s, the worker's own"
_CPU = "s of CPU, daemon"
_PEAK = "MiB RSS at most, daemon"
_LOST = "lines lost or cut"
_TWICE = "lines twice"
_MOST_MIB = 64.0
_WITHOUT = "pm2"


class _Flood(Case):
    def _flood(self, subject: Subject, app: App, go: Path, done: Path) -> dict[str, list[float]]:
        os.mkfifo(go)
        subject.run(app, 1)
        daemon = next(iter(subject.daemons().values()))
        # Opens once the worker stands at the other end.
        opened = sample_until(lambda: _open_writer(go), "the worker waits", 30.0, 0.01)
        time.sleep(0.5)
        cpu = cpu_seconds(daemon)
        last = b"%07d x" % self.plan.lines
        began = time.perf_counter()
        os.close(opened)
        sample_until(lambda: _ends_with(subject.log_files(app), last), "the last line is on disk", _SECONDS)
        whole = time.perf_counter() - began
        cpu = cpu_seconds(daemon) - cpu
        sample_until(lambda: done.exists() and done.read_text().endswith("\n"), "the worker is done", 10.0, 0.01)
        content = b"".join(path.read_bytes() for path in sorted(subject.log_files(app), key=_age, reverse=True))
        if app.timestamps and _LINE.match(content):
            raise NotAvailableError("lines carry no time")
        numbers = [int(number) for number in _LINE.findall(content)]
        return {
            _WHOLE: [whole],
            _WRITER: [float(done.read_text())],
            _CPU: [cpu],
            _PEAK: [peak_rss_mib(daemon)],
            _LOST: [float(self.plan.lines - len(set(numbers)))],
            _TWICE: [float(len(numbers) - len(set(numbers)))],
        }


class Logs(_Flood):
    name = "logs"
    title = (
        "200,000 lines of 100 bytes from one worker, one write each, until the last is on disk; rotation at 10 MiB where the "
        "subject rotates (not: floor, plain file, PM2)."
    )
    subjects = (Floor, PlainFile, SupervisorAlone, Fleetctl, Pm2, Supervisord, Circus)

    @property
    def targets(self) -> Sequence[Target]:
        return [
            target
            for name in ("supervisor", "fleetctl")
            for target in (
                Target(_WHOLE, name, 1.1, of="floor"),
                Target(_LOST, name, 0),
                Target(_TWICE, name, 0),
                Target(_PEAK, name, _MOST_MIB),
            )
        ]

    def measure(self, subject: Subject, folder: Path) -> dict[str, list[float]]:
        go, done = folder / "go", folder / "done"
        return self._flood(subject, writer(go, done, self.plan.lines), go, done)


class Timestamps(_Flood):
    """PM2 stays without: that is the target's other side."""

    name = "logs-timestamps"
    title = "The same, with the time before each line; PM2 without."
    subjects = (SupervisorAlone, Fleetctl, Pm2, Circus)

    @property
    def targets(self) -> Sequence[Target]:
        return [
            target
            for name in ("supervisor", "fleetctl")
            for target in (Target(_WHOLE, name, 1, of=_WITHOUT), Target(_LOST, name, 0), Target(_TWICE, name, 0))
        ]

    def measure(self, subject: Subject, folder: Path) -> dict[str, list[float]]:
        go, done = folder / "go", folder / "done"
        app = replace(writer(go, done, self.plan.lines), timestamps=subject.name != _WITHOUT)
        return self._flood(subject, app, go, done)


def _age(path: Path) -> int:
    """0 of the file that is written to; rotated ones are numbered, the oldest highest."""
    return int(path.suffix[1:]) if path.suffix[1:].isdecimal() else 0


def _open_writer(fifo: Path) -> int:
    """0 while nobody reads it (man 7 fifo: ENXIO)."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return 0


def _ends_with(files: Sequence[Path], last: bytes) -> bool:
    for path in files:
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                tail = file.read()
        except FileNotFoundError:  # rotated away between listing and opening
            continue
        if last in tail and tail.endswith(b"\n"):
            return True
    return False
