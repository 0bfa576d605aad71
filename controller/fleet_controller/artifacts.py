"""The artifact store: deployed code in a folder, a file for each SHA-256 digest.

A file under its digest's name is whole and verified. What is being received lies beside it as `DIGEST.part` and is kept for a
day, so that an upload which broke goes on where it ended.
Every method blocks on the disk: call them from a thread. Controllers that share the folder may each use a store of their own.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import BinaryIO

_log = logging.getLogger(__name__)
_READ_BYTES = 1024 * 1024
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
    def __init__(self, folder: Path, quota_bytes: int, wall_clock: Callable[[], float] = time.time) -> None:
        """Raises OSError where the folder cannot be made."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._quota_bytes = quota_bytes
        self._clock = wall_clock

    def path(self, digest: str) -> Path | None:
        """Where its bytes lie; None: it is not here whole."""
        check_digest(digest)
        path = self._folder / digest
        return path if path.is_file() else None

    def received(self, digest: str) -> tuple[int, bool]:
        """(bytes that are here, from the beginning; they are all). What is whole counts as fresh from now on."""
        path = self.path(digest)
        if path is not None:
            now = self._clock()
            os.utime(path, (now, now))
            return path.stat().st_size, True
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
            receipt = Receipt(stream, part, self._folder / digest, size)
            yield receipt

    def prune(self, in_use: Collection[str]) -> None:
        """Delete what nothing names and nobody is about to name. Raises OSError."""
        now = self._clock()
        for path in self._entries():
            part = path.suffix == ".part"
            limit = PARTIAL_SECONDS if part else UNUSED_SECONDS
            if (part or path.name not in in_use) and now - path.stat().st_mtime > limit:
                _log.info("artifact %s is not used any more: deleted", path.name[:12])
                path.unlink(missing_ok=True)

    def _make_room(self, wanted: int, keep: Collection[str]) -> None:
        sizes = {path: path.stat() for path in self._entries()}
        surplus = sum(status.st_size for status in sizes.values()) + wanted - self._quota_bytes
        now = self._clock()
        for path, status in sorted(sizes.items(), key=lambda item: item[1].st_mtime):
            if surplus > 0 and path.stem not in keep and now - status.st_mtime > FRESH_SECONDS:
                path.unlink(missing_ok=True)
                surplus -= status.st_size
        if surplus > 0:
            raise ArtifactError(
                FULL,
                f"the artifact store is full: {surplus} bytes more than its quota of {self._quota_bytes} "
                "(artifact_quota_bytes in the controller's configuration); remove apps, or raise it",
            )

    def _entries(self) -> list[Path]:
        """What is this store's own: digests, whole and in parts."""
        return [path for path in self._folder.iterdir() if len(path.stem) == 64 and path.suffix in ("", ".part")]

    def _part(self, digest: str) -> Path:
        return self._folder / f"{digest}.part"


class Receipt:
    """An upload under way."""

    def __init__(self, stream: BinaryIO, part: Path, whole: Path, size: int) -> None:
        self._stream = stream
        self._part = part
        self._whole = whole
        self._size = size

    def write(self, data: bytes) -> None:
        """Raises ArtifactError where more comes than was announced, and OSError."""
        if self._stream.tell() + len(data) > self._size:
            raise ArtifactError(INVALID, f"more than the announced {self._size} bytes arrived")
        self._stream.write(data)

    def finish(self) -> None:
        """Verify what arrived and make it durable under its digest. Raises ArtifactError, and OSError."""
        self._stream.flush()
        if self._stream.tell() != self._size:
            raise ArtifactError(INVALID, f"the stream ended at {self._stream.tell()} of {self._size} bytes")
        found = digest_of(self._part)
        if found != self._whole.name:
            self._part.unlink(missing_ok=True)
            raise ArtifactError(
                DAMAGED, f"what arrived has the digest {found[:12]}, not {self._whole.name[:12]}: say it again"
            )
        os.fsync(self._stream.fileno())
        self._part.rename(self._whole)
        folder = os.open(self._whole.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, lower-case hex. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def chunks_of(path: Path, offset: int) -> Iterator[bytes]:
    """Its bytes from `offset` on; the first chunk is empty, so that there is one. Raises OSError."""
    with path.open("rb") as stream:
        stream.seek(offset)
        yield b""
        while data := stream.read(_READ_BYTES):
            yield data
