"""What workers print: from their FIFOs to files.

A worker holds its FIFO read-write, so it outlives any supervisor; the next one opens the same path and goes on. The service
manager's fd store holds it too, for what a worker leaves in its pipe when it ends while there is no supervisor (`kept`).

Plain lines go by splice(2) from pipe to file inside the kernel (`log_file`): a byte leaves the pipe only when it is in the file,
so a kill between the two loses none, and a flood costs this process no memory. Where lines must be looked at, to stamp them, to
make them JSON, or to find where one ends, `formatted` says why a kill neither loses nor doubles any.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path

from fleet_agent.supervisor.complaints import complain
from fleet_agent.supervisor.formatted import Formatted
from fleet_agent.supervisor.kept import Kept
from fleet_agent.supervisor.log_file import PIPE_BYTES, LogFile
from fleet_agent.supervisor.log_format import AsPrinted, Format, JsonLines, Stamps
from fleet_agent.supervisor.loop import READ, Loop, Timer, now
from fleet_agent.supervisor.protocol import Launch

_STREAMS = ("out", "err")
_STEM_WORDS = 3
"""A file's name begins with its worker's app, slot and generation (`journal.file_stem`)."""
_SWEEP_SECONDS = 60.0
"""Old files are looked for at this interval, where they shall be deleted by age."""
_PAUSE_SECONDS = 0.002
_BUSY_SECONDS = 0.005
"""A FIFO that has something new so soon after it was emptied is paced."""
_DRAINS = 4
"""Enough to empty a pipe that a process which ended does not fill any more."""


class Fifo:
    """The supervisor's end of one FIFO. Opened read-write as well, so that no worker's end makes it hang up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = _open_fifo(path)
        try:
            size = fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:  # EPERM: this user has no more pipe pages; 64 KiB then
            size = fcntl.fcntl(self.descriptor, fcntl.F_GETPIPE_SZ)
        self.roomy = size >= PIPE_BYTES
        """It holds what a flood brings within a pause."""

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _open_fifo(path: Path) -> int:
    made = True
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        made = False
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not made and not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EEXIST, "in the way of a FIFO", str(path))
    return descriptor


class Pace:
    """When a FIFO is emptied: at once; and while it fills all the time, once in a few milliseconds.

    A flood then costs few turns of the loop, and the worker few wake-ups and waits: its writes and a splice lock the same pipe.
    """

    def __init__(self, loop: Loop, fifo: Fifo, take: Callable[[], None]) -> None:
        self._loop = loop
        self._fifo = fifo
        self._take = take
        self._last = 0.0
        self._pause: Timer | None = None
        loop.watch(fifo.descriptor, READ, self._on_content, bulk=True)

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._loop.unwatch(self._fifo.descriptor)

    def _on_content(self, _mask: int) -> None:
        self._take()
        time_now = now()
        if self._fifo.roomy and time_now - self._last < _BUSY_SECONDS:
            self._loop.change(self._fifo.descriptor, 0)
            self._pause = self._loop.at(time_now + _PAUSE_SECONDS, self._resume)
        self._last = time_now

    def _resume(self) -> None:
        self._pause = None
        self._loop.change(self._fifo.descriptor, READ)


class Stream:
    """One stream of one worker: from its FIFO to the file, which others may share. Owns the FIFO's descriptor and the spool."""

    def __init__(self, fifo: Fifo, log: LogFile, names: tuple[str, int, str], waiting: str) -> None:
        """`names`: app, slot and stream. `waiting`: the format of an unfinished line that another supervisor left."""
        self.fifo = fifo
        self.log = log
        self._names = names
        self._formatted = self._format(waiting)
        self._pace: Pace | None = None

    def follow(self, launch: Launch) -> None:
        """From now on as this launch says. Another worker of the slot that shares the file is the newer, or the only one."""
        self.log.max_bytes, self.log.files = launch.log_max_bytes, launch.log_files
        self.log.max_age_seconds = launch.log_max_age_seconds
        stamped = Stamps.suffix if launch.log_timestamps else AsPrinted.suffix
        wanted = JsonLines.suffix if launch.log_json else stamped
        if self._formatted.format.suffix != wanted:
            self._formatted.end()
            self._formatted = self._format(wanted)

    def watch(self, loop: Loop) -> None:
        """From now on `take` what comes. Until `close`."""
        self._pace = Pace(loop, self.fifo, self.take)

    def take(self) -> None:
        """Move what is there now, within bounds. As it is printed it need not be looked at, but to find a line's end."""
        direct = self._formatted.format.suffix == AsPrinted.suffix and not self.log.overdue()
        (self.log if direct else self._formatted).take(self.fifo.descriptor)

    def end(self) -> None:
        """Move all that is there, of a worker that will not come back: at most what the pipe holds."""
        for _ in range(_DRAINS):
            self.take()
        self._formatted.end()

    def close(self) -> None:
        if self._pace is not None:
            self._pace.close()
        self._formatted.close()
        self.fifo.close()

    def _format(self, suffix: str) -> Formatted:
        return Formatted(spool_path(self.fifo.path, suffix), self.log, format_of(suffix, self._names))


def spool_path(fifo: Path, suffix: str) -> Path:
    return Path(f"{fifo}.{suffix}")


def format_of(suffix: str, names: tuple[str, int, str]) -> Format:
    if suffix == JsonLines.suffix:
        return JsonLines(*names)
    return Stamps() if suffix == Stamps.suffix else AsPrinted()


class Logs:
    """All FIFOs and log files of this host."""

    def __init__(self, loop: Loop, fifo_folder: Path, log_folder: Path, kept: Kept) -> None:
        """Finishes what a supervisor that was killed had begun to write."""
        self._loop = loop
        self._fifo_folder = fifo_folder
        self._log_folder = log_folder
        self._kept = kept
        self._files: dict[Path, tuple[LogFile, int]] = {}
        self._sweep: Timer | None = None
        self._waiting: dict[str, str] = {}
        """The format of each spool that holds an unfinished line, by the name of its FIFO."""
        fifo_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for suffix in (AsPrinted.suffix, Stamps.suffix, JsonLines.suffix):
            for path in sorted(fifo_folder.glob(f"*.{suffix}")):
                self._recover(path, suffix)

    def open(self, stem: str, app: str, slot: int) -> "WorkerLogs":
        """Raises OSError where the FIFOs cannot be made."""
        streams: list[Stream] = []
        try:
            for name in _STREAMS:
                fifo = Fifo(Path(f"{self._fifo_folder}/{stem}.{name}"))
                log = self._share(self._log_path(app, slot, name))
                stream = Stream(fifo, log, (app, slot, name), self._waiting.pop(fifo.path.name, AsPrinted.suffix))
                streams.append(stream)
                stream.watch(self._loop)
        except OSError:
            self.release(streams)
            raise
        self._keep(_kept_name(stem), [stream.fifo.descriptor for stream in streams])
        return WorkerLogs(self, streams)

    def remove(self, stem: str) -> None:
        """Delete the FIFOs of a worker that will not come back."""
        for stream in _STREAMS:
            (self._fifo_folder / f"{stem}.{stream}").unlink(missing_ok=True)
        self._kept.drop(_kept_name(stem))

    def keep_only(self, stems: Collection[str]) -> None:
        """Delete what belongs to no worker: a supervisor was killed while it forgot it."""
        for path in self._fifo_folder.iterdir():
            if ".".join(path.name.split(".")[:_STEM_WORDS]) not in stems:
                path.unlink(missing_ok=True)

    def release(self, streams: list[Stream]) -> None:
        """Close them; `streams` is empty afterwards."""
        for stream in streams:
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

    def _keep(self, name: str, descriptors: list[int]) -> None:
        """In the fd store, where they may be already. Whatever process this one follows: their pipes are the same."""
        stored = self._kept.take_all(name)
        same = bool(stored) and _inodes(stored) == _inodes(descriptors)
        for descriptor in stored:
            os.close(descriptor)
        if stored and not same:
            self._kept.drop(name)
        if not same:
            self._kept.keep(name, *descriptors)

    def _recover(self, spool: Path, suffix: str) -> None:
        words = spool.name.split(".")
        if len(words) != _STEM_WORDS + 2 or not words[1].isdecimal():
            return  # not made here
        app, slot, _, stream, _ = words
        log = LogFile(self._log_path(app, int(slot), stream))
        formatted = Formatted(spool, log, format_of(suffix, (app, int(slot), stream)))
        try:
            if formatted.recover():
                self._waiting[spool.stem] = suffix
        except OSError as error:
            complain(f"{spool}: {error.strerror}")
        finally:
            formatted.close()
            log.close()

    def _log_path(self, app: str, slot: int, stream: str) -> Path:
        return Path(f"{self._log_folder}/{app}/{slot}.{stream}.log")

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

    def take(self) -> None:
        """Move what is there now, as the loop has it done when something comes."""
        for stream in self._streams:
            stream.take()

    def end(self) -> None:
        """Move all that is there, of a worker that will not come back."""
        for stream in self._streams:
            stream.end()

    def close(self) -> None:
        """May be repeated."""
        self._logs.release(self._streams)


def _kept_name(stem: str) -> str:
    """Of both FIFOs of a worker, in the fd store."""
    return f"log.{stem}"


def _inodes(descriptors: list[int]) -> set[tuple[int, int]]:
    return {(found.st_dev, found.st_ino) for found in map(os.fstat, descriptors)}
