"""Compresses the old files of logs whose app asks for it: `X.log.3` becomes `X.log.3.gz`, and no line is ever in neither.

The supervisor renumbers the files whenever it rotates, but never while the folder is locked (flock(2)): it rotates a little later
then. The lock is held only to put a finished file in the place of its original, never while one is compressed.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import tempfile
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fleet_agent.log_names import GZ, LogName, Origin, gzip_writer, log_names, origin_of

_LOG = logging.getLogger(__name__)
_PASS_SECONDS = 30.0
_BLOCK_BYTES = 256 * 1024
_LOWEST_PRIORITY = 19
_OLD_NAME = re.compile(r"(\d+\.(?:out|err)\.log)\.\d+")
_UNFINISHED = ".gz-unfinished"


class LogCompressor:
    """`apps` names those whose logs are to be compressed now."""

    def __init__(self, log_dir: Path, apps: Callable[[], Collection[str]]) -> None:
        self._log_dir = log_dir
        self._apps = apps
        self._stopping = threading.Event()
        self._troubles: set[str] = set()

    async def run(self) -> None:
        """Until cancelled; then the file under way is given up."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="log-compressor", initializer=_step_back) as thread:
            try:
                while True:
                    for app in sorted(self._apps()):
                        await loop.run_in_executor(thread, self._compress_app, self._log_dir / app)
                    await asyncio.sleep(_PASS_SECONDS)
            finally:
                self._stopping.set()

    def _compress_app(self, folder: Path) -> None:
        try:
            compress_folder(folder, self._stopping.is_set)
        except OSError as error:
            if str(error) not in self._troubles:
                self._troubles.add(str(error))
                _LOG.warning("logs in %s cannot be compressed: %s", folder, error)


def compress_folder(folder: Path, stopping: Callable[[], bool]) -> None:
    """All old files in one app's folder. Raises OSError."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are all that is needed
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(_UNFINISHED):
            (folder / name).unlink(missing_ok=True)
    for log in sorted({match[1] for name in names if (match := _OLD_NAME.fullmatch(name))}):
        for old in log_names(folder / log):
            if old.number and not old.compressed and not stopping():
                _compress(folder / log, old, stopping)


def _compress(log: Path, old: LogName, stopping: Callable[[], bool]) -> None:
    try:
        source = os.open(old.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    with os.fdopen(source, "rb") as original:
        status = os.fstat(source)
        origin = origin_of(status)
        descriptor, name = tempfile.mkstemp(_UNFINISHED, f"{log.name}.", log.parent)
        unfinished = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                with gzip_writer(stream, origin) as writer:
                    while block := original.read(_BLOCK_BYTES):
                        if stopping():
                            return
                        writer.write(block)
                stream.flush()
                os.fchmod(descriptor, status.st_mode & 0o777)
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, status.st_uid, status.st_gid)
                os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
                os.fsync(descriptor)
            _put_in_place(log, unfinished, origin)
        finally:
            unfinished.unlink(missing_ok=True)


def _put_in_place(log: Path, finished: Path, origin: Origin) -> None:
    """First the copy beside the original, then the original away: a reader finds one of them at every moment."""
    folder = os.open(log.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        original = next((name for name in log_names(log) if not name.compressed and name.origin == origin), None)
        if original is not None and original.number:
            finished.rename(original.path.with_name(f"{original.path.name}{GZ}"))
            original.path.unlink()
    finally:
        os.close(folder)


def _step_back() -> None:
    """Workers come first. On Linux a thread has a priority of its own (setpriority(2), "BUGS")."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
