"""Where whole artifacts lie: in a folder, or in an object store that several controllers share.

A home knows nothing of uploads under way, quotas and age: that is the store's. Every method blocks and raises OSError: call
them from a thread.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_READ_BYTES = 1024 * 1024
_SCHEMES = ("s3", "gs", "az", "azure", "http", "https", "file", "memory")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Held:
    digest: str
    size: int
    modified: float
    """The time it was stored or touched, by the home's clock, in seconds since the epoch."""


class Home(Protocol):
    where: str
    """For people: a folder, or a URL without secrets."""

    def size(self, digest: str) -> int | None:
        """In bytes; None: it is not here."""

    def chunks(self, digest: str, offset: int) -> Iterator[bytes]:
        """Its bytes from `offset` on; FileNotFoundError where it is not here."""

    def take(self, part: Path, digest: str) -> None:
        """Make a verified file the artifact, durably, in one step that others see whole or not at all; `part` is gone then."""

    def touch(self, digest: str, now: float) -> None:
        """Somebody asked for it."""

    def held(self) -> Iterator[Held]:
        """All that is here."""

    def delete(self, digest: str) -> None:
        """What is not here is no error."""


class FolderHome:
    """A file under its digest's name, in a folder that may hold other things as well."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError where the folder cannot be made."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.where = str(folder)
        self._folder = folder

    def size(self, digest: str) -> int | None:
        path = self._folder / digest
        return path.stat().st_size if path.is_file() else None

    def chunks(self, digest: str, offset: int) -> Iterator[bytes]:
        return file_chunks(self._folder / digest, offset)

    def take(self, part: Path, digest: str) -> None:
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.rename(self._folder / digest)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def touch(self, digest: str, now: float) -> None:
        os.utime(self._folder / digest, (now, now))

    def held(self) -> Iterator[Held]:
        for path in self._folder.iterdir():
            if _DIGEST.fullmatch(path.name):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue  # another controller deleted it
                yield Held(path.name, status.st_size, status.st_mtime)

    def delete(self, digest: str) -> None:
        (self._folder / digest).unlink(missing_ok=True)


class ObjectHome:
    """An object under `prefix/DIGEST`. Objects cannot be touched: whoever asked for one is remembered here, by one process."""

    def __init__(self, store: "ObjectStore", where: str) -> None:
        self.where = where
        self._store = store
        self._touched: dict[str, float] = {}

    def size(self, digest: str) -> int | None:
        import obstore

        try:
            return int(obstore.head(self._store, digest)["size"])
        except FileNotFoundError:
            return None
        except obstore.exceptions.BaseError as error:
            raise self._trouble(error) from error

    def chunks(self, digest: str, offset: int) -> Iterator[bytes]:
        import obstore

        if offset and offset == self.size(digest):
            return  # a range that is empty is an error to S3
        try:
            found = obstore.get(self._store, digest, options={"range": {"offset": offset}} if offset else None)
            for data in found.stream(min_chunk_size=_READ_BYTES):
                whole = memoryview(data)
                for begin in range(0, len(whole), _READ_BYTES):
                    yield bytes(whole[begin : begin + _READ_BYTES])
        except obstore.exceptions.BaseError as error:
            raise self._trouble(error) from error

    def take(self, part: Path, digest: str) -> None:
        import obstore

        try:
            obstore.put(self._store, digest, part)
        except obstore.exceptions.BaseError as error:
            raise self._trouble(error) from error
        part.unlink()

    def touch(self, digest: str, now: float) -> None:
        self._touched[digest] = now

    def held(self) -> Iterator[Held]:
        import obstore

        try:
            for batch in obstore.list(self._store):
                for found in batch:
                    digest = found["path"]
                    if _DIGEST.fullmatch(digest):
                        modified = max(found["last_modified"].timestamp(), self._touched.get(digest, 0.0))
                        yield Held(digest, found["size"], modified)
        except obstore.exceptions.BaseError as error:
            raise self._trouble(error) from error

    def delete(self, digest: str) -> None:
        import obstore

        self._touched.pop(digest, None)
        try:
            obstore.delete(self._store, digest)
        except FileNotFoundError:
            return
        except obstore.exceptions.BaseError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: Exception) -> OSError:
        if isinstance(error, OSError):
            return error
        reason = str(error).strip().partition("\n")[0][:300]
        return OSError(f"object store {self.where}: {reason}")


def open_home(where: str) -> Home:
    """`where`: a folder's path, or the URL of an object store, `s3://BUCKET/PREFIX`, whose keys and endpoint come from the
    environment as its own tools take them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …).

    Raises ValueError where the URL is wrong or the library is missing, and OSError.
    """
    scheme, separator, rest = where.partition("://")
    if not separator:
        return FolderHome(Path(where))
    if scheme not in _SCHEMES:
        raise ValueError(f"artifacts: {scheme}:// is no object store fleet-controller knows: use s3://, gs:// or az://")
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise ValueError(
            "artifacts: an object store needs one more package: pip install 'fleetctl[object-store]'"
        ) from error
    if scheme == "file":
        Path(f"/{rest.lstrip('/')}").mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return ObjectHome(from_url(where), where.partition("?")[0])
    except (BaseError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0][:300]
        raise ValueError(f"artifacts: {where.partition('?')[0]} cannot be used: {reason}") from error


def file_chunks(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        stream.seek(offset)
        while data := stream.read(_READ_BYTES):
            yield data
