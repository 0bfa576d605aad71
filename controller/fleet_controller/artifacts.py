"""The artifact store: deployed code by its SHA-256 digest, in a home that controllers may share; uploads under way beside it.

What a home has is whole and verified. What is being received lies in a folder as `DIGEST.part` and is kept for a day, so that an
upload which broke goes on where it ended.
Every method blocks: call them from a thread. Controllers that share the home may each use a store of their own.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import partial
from pathlib import Path
from typing import BinaryIO

from fleet_controller.artifact_homes import Home, file_chunks

_log = logging.getLogger(__name__)
PARTIAL_SECONDS = 86_400.0
"""A part nobody added to for so long is deleted."""
UNUSED_SECONDS = 86_400.0
"""So long code may lie here that no revision names; sooner it goes only where the quota asks for its room."""
FRESH_SECONDS = 600.0
"""What was stored or asked for so recently is about to become a revision: no quota takes it away."""


class ArtifactError(Exception):
    """The store does not take it; the text says why. `kind` is one of the words below."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


OFFSET, BUSY, DAMAGED, FULL, INVALID = "offset", "busy", "damaged", "full", "invalid"


def check_digest(digest: str) -> None:
    """Raises ArtifactError unless it is a SHA-256 in lower-case hex: it becomes a file's name."""
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ArtifactError(INVALID, f"{digest[:80]!r} is not a SHA-256 digest in lower-case hex")


class ArtifactStore:
    def __init__(self, home: Home, parts: Path, quota_bytes: int, wall_clock: Callable[[], float] = time.time) -> None:
        """`parts`: the folder of uploads under way. Raises OSError where it cannot be made."""
        parts.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._home = home
        self._parts = parts
        self._quota_bytes = quota_bytes
        self._clock = wall_clock

    @property
    def where(self) -> str:
        """For people."""
        return self._home.where

    def size(self, digest: str) -> int | None:
        """In bytes; None: it is not here whole."""
        check_digest(digest)
        return self._home.size(digest)

    def chunks(self, digest: str, offset: int) -> Iterator[bytes]:
        """Its bytes from `offset` on. Raises OSError, while they are read, too."""
        check_digest(digest)
        return self._home.chunks(digest, offset)

    def received(self, digest: str) -> tuple[int, bool]:
        """(bytes that are here, from the beginning; they are all). What is whole counts as fresh from now on."""
        size = self.size(digest)
        if size is not None:
            self._home.touch(digest, self._clock())
            return size, True
        try:
            return self._part(digest).stat().st_size, False
        except FileNotFoundError:
            return 0, False

    @contextmanager
    def receiving(self, digest: str, size: int, offset: int, in_use: Collection[str]) -> Iterator["Receipt"]:
        """Takes the bytes from `offset` on, in order. `in_use`: digests that revisions name. Raises ArtifactError, OSError."""
        check_digest(digest)
        self._make_room(size - offset, {*in_use, digest})
        part = self._part(digest)
        with part.open("ab") as stream:
            try:
                flock(stream, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                raise ArtifactError(BUSY, f"somebody else is sending {digest[:12]}: wait, then say it again") from None
            here = stream.seek(0, os.SEEK_END)
            if offset != here:
                raise ArtifactError(OFFSET, f"{here} bytes of {digest[:12]} are here, so it cannot go on at {offset}")
            yield Receipt(stream, part, self._home, digest, size)

    def prune(self, in_use: Collection[str]) -> None:
        """Delete what nothing names and nobody is about to name. Raises OSError."""
        now = self._clock()
        for path in self._all_parts():
            if now - path.stat().st_mtime > PARTIAL_SECONDS:
                path.unlink(missing_ok=True)
        for held in list(self._home.held()):
            if held.digest not in in_use and now - held.modified > UNUSED_SECONDS:
                _log.info("artifact %s is not used any more: deleted", held.digest[:12])
                self._home.delete(held.digest)

    def missing(self, in_use: Collection[str]) -> set[str]:
        """Those that revisions name and that are not here. Raises OSError."""
        return set(in_use) - {held.digest for held in self._home.held()}

    def _make_room(self, wanted: int, keep: Collection[str]) -> None:
        whole = list(self._home.held())
        parts = {path: path.stat() for path in self._all_parts()}
        surplus = wanted - self._quota_bytes
        surplus += sum(held.size for held in whole) + sum(status.st_size for status in parts.values())
        candidates: list[tuple[float, str, int, Callable[[], None]]] = [
            (held.modified, held.digest, held.size, partial(self._home.delete, held.digest)) for held in whole
        ]
        candidates += [
            (status.st_mtime, path.stem, status.st_size, partial(path.unlink, missing_ok=True))
            for path, status in parts.items()
        ]
        now = self._clock()
        for modified, digest, size, delete in sorted(candidates, key=lambda candidate: candidate[0]):
            if surplus > 0 and digest not in keep and now - modified > FRESH_SECONDS:
                delete()
                surplus -= size
        if surplus > 0:
            raise ArtifactError(
                FULL,
                f"the artifact store is full: {surplus} bytes more than its quota of {self._quota_bytes} "
                "(artifact_quota_bytes in the controller's configuration); remove apps, or raise it",
            )

    def _all_parts(self) -> list[Path]:
        return [path for path in self._parts.iterdir() if len(path.stem) == 64 and path.suffix == ".part"]

    def _part(self, digest: str) -> Path:
        return self._parts / f"{digest}.part"


class Receipt:
    """An upload under way."""

    def __init__(self, stream: BinaryIO, part: Path, home: Home, digest: str, size: int) -> None:
        """Raises OSError."""
        self._stream = stream
        self._part = part
        self._home = home
        self._digest = digest
        self._size = size
        self._hashed = hashlib.sha256()
        for data in file_chunks(part, 0):
            self._hashed.update(data)

    def write(self, data: bytes) -> None:
        """Raises ArtifactError where more comes than was announced, and OSError."""
        if self._stream.tell() + len(data) > self._size:
            raise ArtifactError(INVALID, f"more than the announced {self._size} bytes arrived")
        self._stream.write(data)
        self._hashed.update(data)

    def finish(self) -> None:
        """Verify what arrived and make it durable under its digest. Raises ArtifactError, and OSError."""
        self._stream.flush()
        if self._stream.tell() != self._size:
            raise ArtifactError(INVALID, f"the stream ended at {self._stream.tell()} of {self._size} bytes")
        found = self._hashed.hexdigest()
        if found != self._digest:
            self._part.unlink(missing_ok=True)
            raise ArtifactError(
                DAMAGED, f"what arrived has the digest {found[:12]}, not {self._digest[:12]}: say it again"
            )
        self._home.take(self._part, self._digest)
