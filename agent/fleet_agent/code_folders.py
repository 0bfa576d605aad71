"""The folders deployed code is unpacked into: which may be run, which are half done, and which nothing needs any more.

`ID/code` is the code, `ID/venv` its virtual environment where it has one; `ID.ready` says that all of it is there. What has no
such mark is never run, and deleted at the next start. `ID` stands for the bytes and for how they were built.

A mark holds for the boot it was made in, and names it, until sync(2) has put all of the code on the disk: waiting for the disk
before the first worker would take longer than all the rest. After a power cut in between the code is fetched again.
"""

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Collection
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path

from fleet_core.durable import write_durably
from fleet_core.spec import AppSpec

_log = logging.getLogger(__name__)
VERSIONS_KEPT = 3
"""Of each app, beside those that run: to go back to them takes no network."""
_LOCK_SECONDS = 10.0
_READY = ".ready"
GONE_SECONDS = 86_400.0
"""So long the code is kept of an app of which nothing is in use any more."""


def folder_id(digest: str, spec: AppSpec, user: str) -> str:
    """Names code together with all that decides what a build, as `user`, makes of it."""
    made_by = [spec.build.command, spec.build.skip, user, spec.identity.group, spec.cwd]
    return f"{digest}-{hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:12]}"


class CodeFolders:
    """Every method but `code` and `programs` blocks on the disk: call them from a thread."""

    def __init__(self, root: Path, boot: str) -> None:
        """`boot`: names the time since this host was started."""
        self._root = root
        self._boot = boot
        self._known: set[str] = set()
        """Whose marks were read and hold."""
        self._marking = threading.Lock()

    def part(self, identity: str) -> Path:
        """Where the archive is fetched to."""
        return self._root / f"{identity}.part"

    def folder(self, identity: str) -> Path:
        return self._root / identity

    def code(self, identity: str) -> Path | None:
        """The code, where it may be run."""
        mark = self._mark(identity)
        if not mark.exists():
            self._known.discard(identity)
            return None
        if identity not in self._known:
            if _holds(mark, self._boot) is None:
                return None
            self._known.add(identity)
        return self._root / identity / "code"

    def programs(self, identity: str) -> str:
        """Where its virtual environment has its programs; empty: it has none."""
        programs = self._root / identity / "venv" / "bin"
        return str(programs) if programs.is_dir() else ""

    def begin(self, identity: str) -> Path:
        """An empty folder for the code. Raises OSError."""
        _remove(self._root / identity)
        code = self._root / identity / "code"
        code.mkdir(parents=True, mode=0o755)
        return code

    def finish(self, identity: str, app: str) -> None:
        """It may be run from now on, in this boot; after a power cut, too, once `settle` was called. Raises OSError."""
        mark = self._mark(identity)
        beside = mark.with_name(f".{mark.name}.new")
        beside.write_text(json.dumps({"app": app, "boot": self._boot}))
        beside.rename(mark)

    def settle(self) -> None:
        """Put on the disk what is ready and not there for certain. Raises OSError."""
        waiting = {
            mark: content for mark in self._marks() if (content := _holds(mark, self._boot)) and content.get("boot")
        }
        if not waiting:
            return
        os.sync()
        for mark, content in waiting.items():
            with self._marking:
                if mark.exists():
                    write_durably(mark, json.dumps({"app": content.get("app", "")}).encode())

    def discard(self, identity: str) -> None:
        """What was begun and will not be finished."""
        self.part(identity).unlink(missing_ok=True)
        _remove(self._root / identity)

    def clean(self) -> None:
        """Delete what an agent before left half done, once its builds are gone. Raises OSError."""
        self._root.mkdir(mode=0o711, exist_ok=True)
        descriptor = self.lock(LOCK_EX)
        os.close(descriptor)
        for mark in self._marks():
            if _holds(mark, self._boot) is None:
                mark.unlink()
        for path in self._root.iterdir():
            if path.is_dir() and not self._mark(path.name).exists():
                _remove(path)
            elif path.name.endswith(_READY) and not path.name.startswith("."):
                if not path.with_suffix("").is_dir():
                    path.unlink()
            elif not path.is_dir() and path.name != "lock":
                path.unlink()

    def lock(self, how: int = LOCK_SH) -> int:
        """A descriptor for a build to inherit, which shows that it lives; or, with LOCK_EX, the proof that none does.

        Raises OSError.
        """
        descriptor = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                flock(descriptor, how | LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    raise
                time.sleep(0.05)
            else:
                return descriptor

    def prune(self, in_use: Collection[str]) -> None:
        """Keep what is in use and the newest few of each app; of an app of which nothing is in use, for a day."""
        found: dict[str, list[tuple[float, str]]] = {}
        now = time.time()
        for mark in self._marks():
            content = _holds(mark, self._boot)
            if content is not None:
                if mark.stem in in_use:
                    os.utime(mark, (now, now))
                found.setdefault(str(content.get("app", "")), []).append((mark.stat().st_mtime, mark.stem))
        for versions in found.values():
            newest = sorted(versions, reverse=True)
            kept = VERSIONS_KEPT if newest[0][0] > now - GONE_SECONDS else 0
            for _, identity in newest[kept:]:
                if identity not in in_use:
                    _log.info("code %s is not needed any more: deleted", identity[:12])
                    with self._marking:
                        self._mark(identity).unlink(missing_ok=True)
                    _remove(self._root / identity)

    def _marks(self) -> list[Path]:
        return [path for path in self._root.glob(f"*{_READY}") if not path.name.startswith(".")]

    def _mark(self, identity: str) -> Path:
        return self._root / f"{identity}{_READY}"


def _holds(mark: Path, boot: str) -> dict[str, str] | None:
    """What a mark says; None where it does not hold: it was made in another boot, and never settled."""
    try:
        content = json.loads(mark.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("boot", boot) != boot:
        return None
    return content


def give_to(folder: Path, uid: int, gid: int) -> None:
    """All of it, links themselves and not what they lead to. Raises OSError."""
    os.chown(folder, uid, gid)
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(path, name), uid, gid, follow_symlinks=False)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder, onerror=_say)


def _say(_function: object, path: str, error: object) -> None:
    _log.warning("cannot delete %s: %s", path, error)
