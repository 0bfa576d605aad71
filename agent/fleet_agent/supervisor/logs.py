"""What workers print: from their FIFOs to files, rotated by size.

A worker holds its FIFO read-write, so it outlives any supervisor; the next one opens the same path and goes on. The bytes go by
splice(2) from pipe to file inside the kernel: a byte leaves the pipe only when it is in the file, so a kill between the two loses
none, and a flood costs this process no memory.
"""

import contextlib
import errno
import fcntl
import os
import stat
import sys
from functools import partial
from pathlib import Path

from fleet_agent.supervisor.loop import READ, Loop

PIPE_BYTES = 1024 * 1024
"""The largest a user may ask for by default (/proc/sys/fs/pipe-max-size): 5 s of 2,000 lines of 100 bytes a second."""
_SPLICE_NONBLOCK = 2  # SPLICE_F_NONBLOCK; Python has no name for it before 3.14
_STREAMS = ("out", "err")


class LogFile:
    """A file that several FIFOs may feed: two generations of a slot overlap during a rollout."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.max_bytes = 0
        self.files = 0
        self._descriptor = -1
        self._size = 0
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

    def _ready(self) -> None:
        if self._descriptor >= 0 and self.max_bytes and self._size >= self.max_bytes and self._at_line_end():
            self._rotate()
        if self._descriptor < 0:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            # Not O_APPEND: splice(2) refuses it.
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
            self._size = os.lseek(self._descriptor, 0, os.SEEK_END)

    def _at_line_end(self) -> bool:
        """Writes of whole lines of up to a page are never cut here; an endless line is, at twice the size."""
        return self._size >= 2 * self.max_bytes or os.pread(self._descriptor, 1, self._size - 1) == b"\n"

    def _rotate(self) -> None:
        """A kill between two renames leaves a gap in the numbers, and every byte."""
        self.close()
        for number in range(self.files, 0, -1):
            source = self._numbered(number - 1) if number > 1 else self.path
            with contextlib.suppress(FileNotFoundError):
                source.rename(self._numbered(number))
        if not self.files:
            self.path.unlink()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _complain(self, error: OSError) -> None:
        if not self._troubled:
            print(
                f"fleet-supervisor: {self.path} cannot be written, its lines are lost: {error.strerror}",
                file=sys.stderr,
            )
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


def _take(fifo: Fifo, log: LogFile, _mask: int) -> None:
    log.take(fifo.descriptor)


class Logs:
    """All FIFOs and log files of this host."""

    def __init__(self, loop: Loop, fifo_folder: Path, log_folder: Path) -> None:
        self._loop = loop
        self._fifo_folder = fifo_folder
        self._log_folder = log_folder
        self._files: dict[Path, tuple[LogFile, int]] = {}
        fifo_folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open(self, stem: str, app: str, slot: int) -> "WorkerLogs":
        """Raises OSError where the FIFOs cannot be made."""
        pairs: list[tuple[Fifo, LogFile]] = []
        try:
            for stream in _STREAMS:
                fifo = Fifo(self._fifo_folder / f"{stem}.{stream}")
                pairs.append((fifo, self._share(self._log_folder / app / f"{slot}.{stream}.log")))
                self._loop.watch(fifo.descriptor, READ, partial(_take, *pairs[-1]), bulk=True)
        except OSError:
            self.release(pairs)
            raise
        return WorkerLogs(self, pairs)

    def remove(self, stem: str) -> None:
        """Delete the FIFOs of a worker that will not come back."""
        for stream in _STREAMS:
            (self._fifo_folder / f"{stem}.{stream}").unlink(missing_ok=True)

    def release(self, pairs: list[tuple[Fifo, LogFile]]) -> None:
        """Close them; `pairs` is empty afterwards."""
        for fifo, log in pairs:
            self._loop.unwatch(fifo.descriptor)
            fifo.close()
            self._unshare(log)
        pairs.clear()

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

    def __init__(self, logs: Logs, pairs: list[tuple[Fifo, LogFile]]) -> None:
        self._logs = logs
        self._pairs = pairs

    @property
    def paths(self) -> tuple[str, str]:
        """The FIFOs for stdout and stderr."""
        (out, _), (err, _) = self._pairs
        return str(out.path), str(err.path)

    def limit(self, max_bytes: int, files: int) -> None:
        """From the present launch: rotate at that size, keep that many rotated files."""
        for _, log in self._pairs:
            log.max_bytes, log.files = max_bytes, files

    def drain(self) -> None:
        """Move what is there now, of a process that ended: at most what two pipes hold."""
        for fifo, log in self._pairs:
            log.take(fifo.descriptor)

    def close(self) -> None:
        """May be repeated."""
        self._logs.release(self._pairs)
