"""From HAProxy's pipe to a file for each app: a thread that waits for nobody's disk but its own.

All HAProxy processes of this balancer write to one FIFO, which each holds open for reading too: so its lines wait there while
fleet-balancer is restarted, and what does not fit is dropped by HAProxy, and counted, while requests go on. A disk that is slow
or full stops this thread alone.
"""

import contextlib
import fcntl
import logging
import os
import select
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet_balancer.access_log.files import LogFile, rotated
from fleet_balancer.access_log.lines import as_combined, as_json
from fleet_balancer.driver import Pool
from fleet_balancer.haproxy.access import fields_of, logged, read, server_of
from fleet_core.route import AccessLogFormat, AccessLogPolicy

_log = logging.getLogger(__name__)
_PIPE_BYTES = 1024 * 1024
"""The largest a user may ask for by default (/proc/sys/fs/pipe-max-size): some three thousand lines."""
_READ_BYTES = 64 * 1024
_GATHER_SECONDS = 0.02
"""Between two looks: so that a busy app costs a few writes a second, not one a request."""
_STOP_SECONDS = 5.0
_PAST_WORKERS = 1000
"""Of an app, that are remembered for lines of requests that end late."""
_NOBODY = (None, None)
_FORGOTTEN_DAYS = 30
"""Files of apps that have no access log any more are deleted so long after their last line."""


@dataclass(frozen=True, slots=True)
class _App:
    policy: AccessLogPolicy
    workers: Mapping[tuple[str, str], tuple[str, int]]
    """Address and port → name of the slot, generation."""


class AccessLog:
    """Does nothing until the first app asks for it. `know` and `close` are for one thread; the owner calls `close`."""

    def __init__(self, fifo: Path, folder: Path) -> None:
        """`fifo` lies where the HAProxy processes' files do, `folder` is for the logs."""
        self._fifo_path = fifo
        self._folder = folder
        self._fifo = -1
        self._apps: dict[str, _App] = {}
        self._pools: dict[str, Pool] = {}
        self._files: dict[str, LogFile] = {}
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._wake = -1
        self._dropped: dict[int, int] = {}
        self._dropping: str = ""
        self.written: Counter[str] = Counter()
        """Lines, by app, since this process began."""
        self.lost_to_disk: Counter[str] = Counter()
        """Lines, by app, that could not be written."""
        self.unreadable = 0
        """Raw lines that were none."""

    @property
    def active(self) -> bool:
        return self._fifo >= 0

    @property
    def dropped(self) -> int:
        """Lines that HAProxy had no room for in the pipe, as far as its processes said."""
        return sum(self._dropped.values())

    @property
    def notices(self) -> tuple[str, ...]:
        """What an operator should know; requests are served all the same."""
        found = [
            f"access log of {app}: {file.path} cannot be written ({file.trouble}), {self.lost_to_disk[app]} lines are lost"
            for app, file in sorted(self._files.items())
            if file.trouble
        ]
        return (*found, self._dropping) if self._dropping else tuple(found)

    def descriptor(self) -> int:
        """The pipe for HAProxy to inherit. Raises OSError."""
        if self._fifo < 0:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(self._fifo_path, 0o600)
            self._fifo = os.open(self._fifo_path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # too many pipes of this user: it stays small
                fcntl.fcntl(self._fifo, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._start()
        return self._fifo

    def know(self, pools: Mapping[str, Pool]) -> None:
        """These are the apps and their workers: from now on lines are written by that."""
        apps: dict[str, _App] = {}
        for name, pool in pools.items():
            if pool.route is None or not logged(pool.route.policy):
                continue
            before = self._apps.get(name)
            if before is not None and self._pools.get(name) is pool:
                apps[name] = before
            else:
                apps[name] = _App(pool.route.policy.access_log, _workers(pool, before))
        gone = self._apps.keys() - apps.keys()
        self._pools = {name: pools[name] for name in apps}
        self._apps = apps  # one assignment: the thread sees the old ones or the new ones
        if gone:
            self._delete_forgotten()
        if apps:
            try:
                self.descriptor()  # of a HAProxy that runs already there may be lines in it
            except OSError as error:
                _log.error("access log: %s: %s", error.filename or "", error.strerror)

    def count_dropped(self, process: int, lines: int) -> None:
        """That HAProxy process, by its number, dropped so many lines since it began."""
        more = lines - self._dropped.get(process, 0)
        self._dropped[process] = lines
        if more > 0:
            _log.warning("access log: HAProxy dropped %d lines: they came faster than they could be written", more)
        self._dropping = (
            f"access log: {self.dropped} lines were dropped, as they came faster than they could be written"
            if self.dropped
            else ""
        )

    def close(self) -> None:
        """Write what is in the pipe, and let go of it: the next fleet-balancer finds there what comes from now on."""
        if self._thread is not None:
            self._stopping.set()
            os.eventfd_write(self._wake, 1)
            self._thread.join(_STOP_SECONDS)
            if self._thread.is_alive():
                _log.error("access log: the disk does not answer; its lines are lost")
                return
            os.close(self._wake)
            os.close(self._fifo)
            self._thread, self._fifo, self._wake = None, -1, -1
            self._stopping.clear()

    # The thread

    def _start(self) -> None:
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._delete_forgotten()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._fifo, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        rest = b""
        while not self._stopping.is_set():
            poll.poll()
            rest = self._drain(rest)
            self._stopping.wait(_GATHER_SECONDS)
        self._drain(rest)
        for file in self._files.values():
            file.close()
        self._files = {}

    def _drain(self, rest: bytes) -> bytes:
        """Write all that is in the pipe now; returns the beginning of a line whose end is not there yet."""
        for _ in range(_PIPE_BYTES // _READ_BYTES):
            try:
                found = os.read(self._fifo, _READ_BYTES)
            except BlockingIOError:
                break
            *raw, rest = (rest + found).split(b"\n")
            self._take(raw)
        return rest

    def _take(self, raw: list[bytes]) -> None:
        apps = self._apps
        lines: dict[str, list[bytes]] = {}
        for one in raw:
            fields = fields_of(one)
            name = fields[0]
            app = apps.get(name)
            if app is None:
                continue  # it has no log any more, or the request was for no app
            try:
                line = read(fields, *app.workers.get(server_of(fields), _NOBODY))
            except ValueError:
                self.unreadable += 1
                continue
            combined = app.policy.format is AccessLogFormat.COMBINED
            lines.setdefault(name, []).append(as_combined(line) if combined else as_json(line))
        for name, written in lines.items():
            self._write(name, apps[name].policy, written)
        for name in self._files.keys() - apps.keys():
            self._files[name].close()
            self._files = {other: file for other, file in self._files.items() if other != name}

    def _write(self, name: str, policy: AccessLogPolicy, lines: list[bytes]) -> None:
        file = self._files.get(name)
        if file is None:
            file = LogFile(self._folder / f"{name}.log", policy.max_bytes, policy.max_files)
            self._files = {**self._files, name: file}
        file.max_bytes, file.max_files = policy.max_bytes, policy.max_files
        before = file.trouble
        if file.append(b"".join(lines)):
            self.written[name] += len(lines)
        else:
            self.lost_to_disk[name] += len(lines)
            if file.trouble != before:
                _log.error("access log of %s: %s cannot be written: %s", name, file.path, file.trouble)

    def _delete_forgotten(self) -> None:
        """The files of apps that have no access log, when they are old: nothing else would ever delete them."""
        oldest = time.time() - _FORGOTTEN_DAYS * 86_400
        with contextlib.suppress(OSError):
            for path in self._folder.glob("*.log"):
                if path.stem not in self._apps:
                    for old in (*rotated(path).values(), path):
                        if old.stat().st_mtime < oldest:
                            old.unlink()


def _workers(pool: Pool, before: _App | None) -> dict[tuple[str, str], tuple[str, int]]:
    """The pool's, and those that were not long ago."""
    present = {
        (one.target.address, str(one.target.port)): (str(one.worker.slot_id), one.worker.generation)
        for one in pool.endpoints
    }
    past = [(place, name) for place, name in (before.workers.items() if before else ()) if place not in present]
    return {**dict(past[-_PAST_WORKERS:]), **present}
