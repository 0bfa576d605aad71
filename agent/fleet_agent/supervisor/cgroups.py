"""Workers' leaves in a delegated cgroup v2 folder: DIR/APP.SLOT.GENERATION each, which only this supervisor populates.

A leaf is there before the process that joins it, holds its crash restarts too, and is removed once the worker has ended. What is
in a leaf may be killed all at once (`cgroup.kill`, Linux 5.14), whatever session, group or environment it gave itself.
"""

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Collection
from pathlib import Path

from fleet_agent.supervisor import limits
from fleet_agent.supervisor.complaints import complain
from fleet_agent.supervisor.journal import file_stem
from fleet_agent.supervisor.loop import Loop, Timer, now
from fleet_agent.supervisor.protocol import Key, Launch

_NAME = re.compile(r"[a-z0-9-]+\.\d+\.\d+")
_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 5.0
"""Between two attempts to remove a leaf whose processes are dying."""
_LOCK_SECONDS = 2.0
"""A supervisor that was just killed keeps its lock until the kernel has taken it apart."""
_LOCK_PAUSE_SECONDS = 0.01
_MOST_BYTES = 4096


class CgroupError(Exception):
    """The text is the reason why a leaf cannot be had."""


class Leaf:
    """One worker's cgroup. Owns no descriptor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kills_before = self._oom_kills()

    def kill(self) -> None:
        """SIGKILL to all that is in it. On a kernel without cgroup.kill nothing happens: group and session are killed as well."""
        with contextlib.suppress(OSError):
            _write(self.path / "cgroup.kill", "1")

    def new_kills(self) -> int:
        """Processes killed in it for want of memory, since this object was made."""
        return self._oom_kills() - self._kills_before

    def from_the_start(self) -> "Leaf":
        """Counting all such kills."""
        self._kills_before = 0
        return self

    @property
    def populated(self) -> bool:
        return bool(limits.number_in(_read(self.path / "cgroup.events"), "populated"))

    def _oom_kills(self) -> int:
        return limits.number_in(_read(self.path / "memory.events"), "oom_kill")


class Cgroups:
    """All leaves of one folder. `close` leaves them, and the processes in them, alone."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        """Raises OSError where the folder is none of cgroup v2, and BlockingIOError where another supervisor has it."""
        self._loop = loop
        self._folder = folder
        self._retired: dict[str, tuple[Leaf, float]] = {}
        """Leaves to be removed, and the pause before the next attempt."""
        self._attempt: Timer | None = None
        if not (folder / "cgroup.controllers").is_file():
            raise OSError(errno.EINVAL, "is no cgroup v2 folder (it has no cgroup.controllers)", str(folder))
        self._lock = _lock(folder)
        self._enable()

    def close(self) -> None:
        if self._attempt is not None:
            self._attempt.cancel()
        os.close(self._lock)

    def make(self, key: Key, launch: Launch) -> Leaf:
        """With the launch's limits, for a process that will join it; a leaf that is there is taken. Raises CgroupError."""
        path = self._folder / file_stem(key)
        self._retired.pop(path.name, None)
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise CgroupError(f"cgroup {path} cannot be made: {error.strerror}") from error
        leaf = Leaf(path)
        try:
            for name, text in limits.texts_of(launch).items():
                self._limit(path / name, text)
        except CgroupError:
            self.retire(leaf)
            raise
        return leaf

    def find(self, key: Key) -> Leaf | None:
        """That another supervisor made."""
        path = self._folder / file_stem(key)
        return Leaf(path) if path.is_dir() else None

    def keep_only(self, keys: Collection[Key]) -> None:
        """Retire what dead supervisors left for others than these."""
        kept = {file_stem(key) for key in keys}
        for path in sorted(self._folder.iterdir()):
            if _NAME.fullmatch(path.name) and path.name not in kept and path.is_dir():
                self.retire(Leaf(path))

    def retire(self, leaf: Leaf) -> None:
        """Kill what is in it, and remove it as soon as that is dead."""
        leaf.kill()
        self._retired[leaf.path.name] = leaf, _FIRST_PAUSE_SECONDS
        self._remove_retired()

    def _remove_retired(self) -> None:
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        for name, (leaf, pause) in list(self._retired.items()):
            if _remove(leaf):
                del self._retired[name]
            else:
                self._retired[name] = leaf, min(2 * pause, _LONGEST_PAUSE_SECONDS)
        if self._retired:
            pause = min(pause for _, pause in self._retired.values())
            self._attempt = self._loop.at(now() + pause, self._remove_retired)

    def _enable(self) -> None:
        """Where that fails, starts that need a controller will be refused, and say so."""
        control = self._folder / "cgroup.subtree_control"
        text = limits.enabling(_read(self._folder / "cgroup.controllers"), _read(control))
        if not text:
            return
        try:
            _write(control, text)
        except OSError as error:
            why = "it holds processes itself" if error.errno == errno.EBUSY else error.strerror
            complain(f"controllers cannot be enabled in {control} ({text}): {why}")

    def _limit(self, path: Path, text: str) -> None:
        try:
            _write(path, text)
        except OSError as error:
            if text == limits.NO_LIMIT and error.errno == errno.ENOENT:
                return
            if error.errno != errno.ENOENT:
                raise CgroupError(f"{text} cannot be written to {path}: {error.strerror}") from error
            controller = path.name.partition(".")[0]
            raise CgroupError(
                f"{path} is not there: enable the controller {controller} in {self._folder}/cgroup.subtree_control, "
                f"or drop --{controller}-limit"
            ) from error


def _remove(leaf: Leaf) -> bool:
    """False while something in it is alive. Cgroups that a worker made within its own go first."""
    if leaf.populated:
        return False
    try:
        for folder, _, _ in os.walk(leaf.path, topdown=False):
            Path(folder).rmdir()
    except OSError:
        return False
    return True


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: Path) -> str:
    """Of a file of the kernel; "" where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _MOST_BYTES).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int:
    """flock(2) of the folder: leaves are killed by name, and two supervisors may not share these names."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise BlockingIOError(
                    f"another supervisor uses the cgroup {folder}; give each a folder of its own"
                ) from error
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return descriptor
