"""One log on disk: opened, rotated by size and age, told about when it cannot be written."""

import contextlib
import os
import time
from pathlib import Path

from fleet_agent.supervisor import rotation
from fleet_agent.supervisor.complaints import complain
from fleet_agent.supervisor.loop import now

PIPE_BYTES = 1024 * 1024
"""The largest a user may ask for by default (/proc/sys/fs/pipe-max-size): 5 s of 2,000 lines of 100 bytes a second."""
SPLICE_NONBLOCK = 2  # SPLICE_F_NONBLOCK; Python has no name for it before 3.14

_ENDLESS_BYTES = 64 * 1024
"""A line of that length may go on in the next file."""
_LOOK_SECONDS = 1.0
"""A file that was moved away is written to for so long at most. One that was removed or emptied is noticed at the next line."""


class LogFile:
    """A file that several FIFOs may feed: two generations of a slot overlap during a rollout."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.max_bytes = 0
        self.max_age_seconds = 0.0
        self.files = 0
        self.size = 0
        """Of the file, as of the last `opened`."""
        self.inode = 0
        self._descriptor = -1
        self._began = 0.0
        self._troubled = False
        """It could not be written, and that is not told to be over."""
        self._failed = 0.0
        """When it could not be written last."""
        self._lost_bytes = self._lost_lines = 0
        """Since `_troubled`."""
        self._looked = 0.0
        """When its name was last looked at."""

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def take(self, fifo: int) -> None:
        """Move what is in the pipe, at most PIPE_BYTES, with splice(2): a byte leaves the pipe only once it is in the file.

        Where the file cannot be written, the bytes are dropped and stderr told once: a full disk must not block a worker.
        """
        if not self.opened():
            self.discard(fifo)
            return
        try:
            self.size += os.splice(fifo, self._descriptor, PIPE_BYTES, flags=SPLICE_NONBLOCK)
        except BlockingIOError:
            return
        except OSError as error:
            self._complain(error)
            self.discard(fifo)
            return
        self._went_well()

    def discard(self, fifo: int) -> None:
        """What is in the pipe, so that nobody who writes to it has to wait."""
        with contextlib.suppress(BlockingIOError):
            self.lose(os.read(fifo, PIPE_BYTES))

    def lose(self, data: bytes) -> None:
        """Count what was meant for the file and is dropped."""
        self._lost_bytes += len(data)
        self._lost_lines += data.count(b"\n")

    def opened(self) -> bool:
        """Open, and another one where a rotation is due and the last line is whole. False: it cannot be, and stderr was told."""
        try:
            if self._descriptor >= 0:
                self._heed_others()
            if self._descriptor >= 0 and self._due() and self._at_line_end():
                self.close()
                if rotation.rotate(self.path, self.files):
                    self.sweep()
            if self._descriptor < 0:
                self._open()
                if self._troubled and self.in_line():  # the rest of that line is lost
                    self.size += os.write(self._descriptor, b"\n")
        except OSError as error:
            self._complain(error)
            return False
        return True

    def overdue(self) -> bool:
        """A rotation waits for the end of a line."""
        return self._descriptor >= 0 and self._due() and self.in_line()

    def append(self, data: bytes) -> None:
        """To the file as it is: only `opened` rotates. What cannot be written is dropped, as in `take`."""
        try:
            while data:
                written = os.write(self._descriptor, data)
                self.size += written
                data = data[written:]
        except OSError as error:
            self._complain(error)
            self.lose(data)
        else:
            self._went_well()

    def in_line(self) -> bool:
        """The last line is not finished."""
        try:
            return self.size > 0 and os.pread(self._descriptor, 1, self.size - 1) != b"\n"
        except OSError:
            return False

    def sweep(self) -> None:
        """Delete the old files that are too old."""
        if self.max_age_seconds:
            with contextlib.suppress(OSError):
                rotation.delete_older(self.path, self.max_age_seconds)

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        # Not O_APPEND: splice(2) refuses it.
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        self.inode = os.fstat(self._descriptor).st_ino
        self.size = os.lseek(self._descriptor, 0, os.SEEK_END)
        self._began = rotation.began(self.path) if self.size else time.time()
        self._looked = now()

    def _heed_others(self) -> None:
        """Operators remove and empty logs, and logrotate(8) moves them away: nothing more may go where nobody looks. Raises
        OSError."""
        status = os.fstat(self._descriptor)
        if status.st_size != self.size:
            self.size = os.lseek(self._descriptor, 0, os.SEEK_END)
        if not status.st_nlink or (now() - self._looked >= _LOOK_SECONDS and not self._in_place()):
            self.close()

    def _in_place(self) -> bool:
        self._looked = now()
        try:
            return self.path.lstat().st_ino == self.inode
        except FileNotFoundError:
            return False

    def _due(self) -> bool:
        if self.max_bytes and self.size >= self.max_bytes:
            return True
        return bool(self.max_age_seconds and self.size and time.time() - self._began >= self.max_age_seconds)

    def _at_line_end(self) -> bool:
        """Writes of whole lines of up to a page are never cut here; an endless line is, at twice the size."""
        if not self.in_line():
            return True
        if not self.max_bytes or self.size < 2 * self.max_bytes:
            return False
        looked_at = min(self.max_bytes, _ENDLESS_BYTES)
        return b"\n" not in os.pread(self._descriptor, looked_at, self.size - looked_at)

    def _complain(self, error: OSError) -> None:
        if not self._troubled:
            complain(f"{self.path} cannot be written, its lines are lost: {error.strerror}")
        self._troubled, self._failed = True, now()
        self.close()

    def _went_well(self) -> None:
        """Told only once it lasts: on a disk that is full but for what a rotation frees, it would be told all the time."""
        if self._troubled and now() - self._failed >= _LOOK_SECONDS:
            lost = f"{self._lost_lines} lines ({self._lost_bytes} bytes) were lost"
            complain(f"{self.path} is written again; {lost}")
            self._troubled = False
            self._lost_bytes = self._lost_lines = 0
