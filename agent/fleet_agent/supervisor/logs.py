"""What workers print: from their FIFOs to files, rotated by size and age.

A worker holds its FIFO read-write, so it outlives any supervisor; the next one opens the same path and goes on. The bytes go by
splice(2) from pipe to file inside the kernel: a byte leaves the pipe only when it is in the file, so a kill between the two loses
none, and a flood costs this process no memory.

Where lines get a time or become JSON they must be read: a kill between that and the write loses what one read brought.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from pathlib import Path

from fleet_agent.supervisor import rotation
from fleet_agent.supervisor.complaints import complain
from fleet_agent.supervisor.log_format import JsonLines, stamp_lines
from fleet_agent.supervisor.loop import READ, Loop, Timer, now
from fleet_agent.supervisor.protocol import Launch

PIPE_BYTES = 1024 * 1024
"""The largest a user may ask for by default (/proc/sys/fs/pipe-max-size): 5 s of 2,000 lines of 100 bytes a second."""
_SPLICE_NONBLOCK = 2  # SPLICE_F_NONBLOCK; Python has no name for it before 3.14
_STREAMS = ("out", "err")
_READ_BYTES = 256 * 1024
"""Of what has to be formatted: no neighbour waits for longer than that takes."""
_SWEEP_SECONDS = 60.0
"""Old files are looked for at this interval, where they shall be deleted by age."""


class LogFile:
    """A file that several FIFOs may feed: two generations of a slot overlap during a rollout."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.max_bytes = 0
        self.max_age_seconds = 0.0
        self.files = 0
        self._descriptor = -1
        self._size = 0
        self._began = 0.0
        self._troubled = False

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def take(self, fifo: int) -> None:
        """Move what is in the pipe, at most PIPE_BYTES.

        Where the file cannot be written, the bytes are dropped and stderr told once: a full disk must not block a worker.
        """
        try:
            self._ready()
            moved = os.splice(fifo, self._descriptor, PIPE_BYTES, flags=_SPLICE_NONBLOCK)
        except BlockingIOError:
            return
        except OSError as error:
            self._complain(error)
            with contextlib.suppress(BlockingIOError):
                os.read(fifo, PIPE_BYTES)
            return
        self._size += moved
        self._troubled = False

    def append(self, data: bytes) -> None:
        """As `take`, of bytes that were read; these are never parted within a line but a very long one."""
        whole = data.rfind(b"\n") + 1
        try:
            for part in (data[:whole], data[whole:]):
                self._ready()
                while part:
                    written = os.write(self._descriptor, part)
                    self._size += written
                    part = part[written:]
        except OSError as error:
            self._complain(error)
        else:
            self._troubled = False

    def in_line(self) -> bool:
        """The last line is not finished."""
        try:
            self._ready()
            return self._size > 0 and os.pread(self._descriptor, 1, self._size - 1) != b"\n"
        except OSError:
            return False

    def sweep(self) -> None:
        """Delete the old files that are too old."""
        if self.max_age_seconds:
            with contextlib.suppress(OSError):
                rotation.delete_older(self.path, self.max_age_seconds)

    def _ready(self) -> None:
        if self._descriptor >= 0 and self._due() and self._at_line_end():
            self.close()
            if rotation.rotate(self.path, self.files):
                self.sweep()
        if self._descriptor < 0:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            # Not O_APPEND: splice(2) refuses it.
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
            self._size = os.lseek(self._descriptor, 0, os.SEEK_END)
            self._began = rotation.began(self.path) if self._size else time.time()

    def _due(self) -> bool:
        if self.max_bytes and self._size >= self.max_bytes:
            return True
        return bool(self.max_age_seconds and self._size and time.time() - self._began >= self.max_age_seconds)

    def _at_line_end(self) -> bool:
        """Writes of whole lines of up to a page are never cut here; an endless line is, at twice the size."""
        endless = self.max_bytes and self._size >= 2 * self.max_bytes
        return bool(endless) or os.pread(self._descriptor, 1, self._size - 1) == b"\n"

    def _complain(self, error: OSError) -> None:
        if not self._troubled:
            complain(f"{self.path} cannot be written, its lines are lost: {error.strerror}")
        self._troubled = True
        self.close()


class Fifo:
    """The supervisor's end of one FIFO. Opened read-write as well, so that no worker's end makes it hang up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = _open_fifo(path)
        with contextlib.suppress(OSError):  # EPERM: this user has no more pipe pages; 64 KiB then
            fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _open_fifo(path: Path) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EEXIST, "in the way of a FIFO", str(path))
    return descriptor


class Stream:
    """One stream of one worker: from its FIFO to the file, which others may share. Owns the FIFO's descriptor alone."""

    def __init__(self, fifo: Fifo, log: LogFile, app: str, slot: int, name: str) -> None:
        self.fifo = fifo
        self.log = log
        self._names = (app, slot, name)
        self._timestamps = False
        self._json: JsonLines | None = None

    def follow(self, launch: Launch) -> None:
        """From now on as this launch says. Another worker of the slot that shares the file is the newer, or the only one."""
        self.log.max_bytes, self.log.files = launch.log_max_bytes, launch.log_files
        self.log.max_age_seconds = launch.log_max_age_seconds
        self._timestamps = launch.log_timestamps
        if launch.log_json and self._json is None:
            self._json = JsonLines(*self._names)
        elif not launch.log_json:
            self._finish()
            self._json = None

    def take(self, _mask: int = 0) -> None:
        """Move what is there now, within bounds."""
        if not self._timestamps and self._json is None:
            self.log.take(self.fifo.descriptor)
            return
        try:
            data = os.read(self.fifo.descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        if self._json is not None:
            lines = self._json.feed(data, time.time())
        else:
            lines = stamp_lines(data, time.time(), continues=self.log.in_line())
        if lines:
            self.log.append(lines)

    def drain(self) -> None:
        """All that is there now, of a process that ended: at most what the pipe holds."""
        for _ in range(PIPE_BYTES // _READ_BYTES):
            self.take()

    def close(self) -> None:
        self._finish()
        self.fifo.close()

    def _finish(self) -> None:
        rest = self._json.finish(time.time()) if self._json is not None else b""
        if rest:
            self.log.append(rest)


class Logs:
    """All FIFOs and log files of this host."""

    def __init__(self, loop: Loop, fifo_folder: Path, log_folder: Path) -> None:
        self._loop = loop
        self._fifo_folder = fifo_folder
        self._log_folder = log_folder
        self._files: dict[Path, tuple[LogFile, int]] = {}
        self._sweep: Timer | None = None
        fifo_folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open(self, stem: str, app: str, slot: int) -> "WorkerLogs":
        """Raises OSError where the FIFOs cannot be made."""
        streams: list[Stream] = []
        try:
            for name in _STREAMS:
                fifo = Fifo(self._fifo_folder / f"{stem}.{name}")
                log = self._share(self._log_folder / app / f"{slot}.{name}.log")
                stream = Stream(fifo, log, app, slot, name)
                streams.append(stream)
                self._loop.watch(fifo.descriptor, READ, stream.take, bulk=True)
        except OSError:
            self.release(streams)
            raise
        return WorkerLogs(self, streams)

    def remove(self, stem: str) -> None:
        """Delete the FIFOs of a worker that will not come back."""
        for stream in _STREAMS:
            (self._fifo_folder / f"{stem}.{stream}").unlink(missing_ok=True)

    def release(self, streams: list[Stream]) -> None:
        """Close them; `streams` is empty afterwards."""
        for stream in streams:
            self._loop.unwatch(stream.fifo.descriptor)
            stream.close()
            self._unshare(stream.log)
        streams.clear()

    def sweep_from_now_on(self) -> None:
        """Some file shall be deleted by age. Where none is, nothing here ever wakes up."""
        if self._sweep is None:
            self._sweep = self._loop.at(now() + _SWEEP_SECONDS, self._on_sweep)

    def _on_sweep(self) -> None:
        self._sweep = None
        for log, _ in self._files.values():
            log.sweep()
        if any(log.max_age_seconds for log, _ in self._files.values()):
            self.sweep_from_now_on()

    def _share(self, path: Path) -> LogFile:
        log, users = self._files.get(path) or (LogFile(path), 0)
        self._files[path] = (log, users + 1)
        return log

    def _unshare(self, log: LogFile) -> None:
        _, users = self._files[log.path]
        if users > 1:
            self._files[log.path] = (log, users - 1)
        else:
            del self._files[log.path]
            log.close()


class WorkerLogs:
    """One worker's two streams."""

    def __init__(self, logs: Logs, streams: list[Stream]) -> None:
        self._logs = logs
        self._streams = streams

    @property
    def paths(self) -> tuple[str, str]:
        """The FIFOs for stdout and stderr."""
        out, err = self._streams
        return str(out.fifo.path), str(err.fifo.path)

    def follow(self, launch: Launch) -> None:
        """Format, rotate and delete as this launch says."""
        for stream in self._streams:
            stream.follow(launch)
        if launch.log_max_age_seconds:
            self._logs.sweep_from_now_on()

    def drain(self) -> None:
        """Move what is there now, of a process that ended."""
        for stream in self._streams:
            stream.drain()

    def close(self) -> None:
        """May be repeated."""
        self._logs.release(self._streams)
