"""The data folder on disk: made, locked by one `up` at a time, its record read and written."""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet_core.durable import write_durably
from fleetctl.up.errors import UpError
from fleetctl.up.layout import Layout
from fleetctl.up.settings import Settings

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOUNTS = Path("/proc/self/mounts")
_IN_MEMORY = ("/run", "/dev/shm")  # noqa: S108 - nobody else can write to what `runtime_folder` makes there
_ADVICE = "remove it, or use another --data-dir"
_FIRST_ORDINARY_USER = 1000
"""SYS_UID_MAX of login.defs(5), and one."""


class LockedFolder:
    """A data folder this process alone manages, until closed or dead (flock(2))."""

    def __init__(self, data_dir: Path) -> None:
        """Make the folder if need be, and lock it. Raises UpError."""
        self.data_dir = data_dir
        lock = data_dir / "up.lock"
        try:
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UpError(f"{error.filename or data_dir}: {error.strerror}: choose another --data-dir") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            who = f"another `fleetctl up`{f' (pid {holder})' if holder else ''}"
            raise UpError(f"{who} runs on {data_dir}: stop it, or use another --data-dir") from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        os.close(self._descriptor)

    def read_settings(self) -> Settings | None:
        """None at the first start. Raises UpError."""
        path = self.data_dir / "up.json"
        try:
            text = path.read_text()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise UpError(f"{path} cannot be read: {error}") from error
        return Settings.parse(text, str(path))

    def write_settings(self, settings: Settings) -> None:
        """Raises UpError."""
        path = self.data_dir / "up.json"
        try:
            write_durably(path, (settings.model_dump_json(indent=2) + "\n").encode())
        except OSError as error:
            raise UpError(f"{path} cannot be written: {error.strerror}") from error

    def was_interrupted(self) -> bool:
        """The last `up` here did not come to its end, since the machine booted: what it ran may run still."""
        try:
            return (self.data_dir / "up.running").read_text() == _BOOT_ID.read_text()
        except OSError:
            return False

    def mark_running(self) -> None:
        """Raises UpError."""
        path = self.data_dir / "up.running"
        try:
            write_durably(path, _BOOT_ID.read_bytes())
        except OSError as error:
            raise UpError(f"{path} cannot be written: {error.strerror}") from error

    def mark_ended(self) -> None:
        (self.data_dir / "up.running").unlink(missing_ok=True)


def memory_of(user_id: int, mounts: Path = _MOUNTS) -> str:
    """A file system in memory that this process can write to, and where a file lasts as long as the machine runs; "": none.

    There is none for an ordinary user: when the last login of one ends, systemd-logind removes what that user has in
    /run/user/UID and /dev/shm (logind.conf(5), "RemoveIPC="), and what `up` runs may outlive it.
    """
    if user_id >= _FIRST_ORDINARY_USER:
        return ""
    try:
        fields = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    kinds = {field[1]: field[2] for field in fields}  # the last mount at a place hides those before
    return next(
        (place for place in _IN_MEMORY if kinds.get(place) == "tmpfs" and os.access(place, os.W_OK | os.X_OK)), ""
    )


@contextmanager
def runtime_folder(layout: Layout) -> Iterator[None]:
    """Make the folder for sockets where that is not the data folder, and hold it. Raises UpError: in a folder that others can
    write to, an entry of that name may be anyone's.

    Held by a lock, it is left alone by systemd-tmpfiles, which removes what is old (tmpfiles.d(5), "Age").
    """
    if not layout.runtime_is_apart:
        yield
        return
    root = layout.runtime_root
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise UpError(f"{root}: {error.strerror}: {_ADVICE}") from error
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise UpError(f"{root} is not a private folder of this user: {_ADVICE}")
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def remove_runtime(layout: Layout) -> None:
    """Once nothing runs any more."""
    if layout.runtime_is_apart:
        shutil.rmtree(layout.runtime_root, ignore_errors=True)
