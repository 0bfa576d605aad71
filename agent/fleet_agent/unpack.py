"""Unpacks deployed code, which anybody may have made, into a folder of its own and nowhere else.

Nothing is written through a link: files and folders come first, links last, and where each leads is looked at once all are there.
Owners, times and all permissions but "executable" are this host's, not the archive's.
"""

import os
import stat
import tarfile
import zlib
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Self

_COPY_BYTES = 1024 * 1024
_GZIP = b"\x1f\x8b"
_LONGEST_NAME = 4096
_MEMBERS = {*tarfile.SUPPORTED_TYPES} - {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_LONGEST_HEADER = 64 * 1024
_DEEPEST = 100
"""Folders within folders."""


class HostileArchiveError(Exception):
    """It will not be unpacked; one line says why."""


@dataclass(frozen=True)
class Limits:
    """Of what one archive may become."""

    bytes: int = 4 * 1024**3
    members: int = 300_000


def unpack(archive: Path, folder: Path, limits: Limits | None = None) -> None:
    """Fill `folder`, which exists and is empty. Raises HostileArchiveError, OSError; what was written stays for the caller
    to remove."""
    try:
        with archive.open("rb") as stream:
            # Only these two: every further format is one more decoder for strangers to attack.
            mode = "r|gz" if stream.read(2) == _GZIP else "r|"
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode=mode, tarinfo=_Member) as opened:  # type: ignore[call-overload]
                _Unpacking(folder, limits or Limits()).take(opened)
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        raise HostileArchiveError(
            f"it is no tar archive, plain or gzip, that can be read to its end: {error}"
        ) from error


class _Member(tarfile.TarInfo):
    """Headers that tarfile reads whole into memory may not be long."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type not in _MEMBERS and found.size > _LONGEST_HEADER:
            raise HostileArchiveError(f"it has a header of {found.size} bytes")
        return found


class _Unpacking:
    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._bytes = 0
        self._files: set[str] = set()
        self._folders: set[str] = {""}
        self._links: dict[str, str] = {}

    def take(self, archive: tarfile.TarFile) -> None:
        number = 0
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
            number += 1
            if number > self._limits.members:
                raise HostileArchiveError(f"it has more than {self._limits.members} members")
            name = _checked_name(member.name)
            if not name:
                if member.isdir():
                    continue
                raise HostileArchiveError("a member has no name")
            if member.mode & (stat.S_ISUID | stat.S_ISGID):
                raise HostileArchiveError(f"{_shown(name)} has a setuid or setgid bit")
            if member.isdir():
                self._make_folder(name)
            elif member.isreg():
                self._write(archive, member, name)
            elif member.issym():
                self._note_link(member, name)
            elif member.islnk():
                self._link_hard(member, name)
            else:
                raise HostileArchiveError(f"{_shown(name)} is a device, a FIFO or of an unknown kind")
        self._make_links()

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        self._bytes += member.size
        if self._bytes > self._limits.bytes:
            raise HostileArchiveError(f"it would fill more than {self._limits.bytes} bytes")
        content = archive.extractfile(member)
        if content is None:
            raise HostileArchiveError(f"{_shown(name)} has no content")
        path = self._new(name)
        mode = 0o755 if member.mode & 0o111 else 0o644
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(descriptor, "wb", buffering=0) as stream:  # noqa: PTH123 (a descriptor)
            while data := content.read(_COPY_BYTES):
                _write_all(stream, data)
            os.fchmod(descriptor, mode)
            os.utime(descriptor, (member.mtime, member.mtime))
        self._files.add(name)

    def _note_link(self, member: tarfile.TarInfo, name: str) -> None:
        target = member.linkname
        if not target or "\0" in target or len(target) > _LONGEST_NAME:
            raise HostileArchiveError(f"{_shown(name)} is a link that leads nowhere")
        if target.startswith("/"):
            raise HostileArchiveError(f"{_shown(name)} is a link to the absolute path {_shown(target)}")
        self._new(name)
        self._links[name] = target

    def _link_hard(self, member: tarfile.TarInfo, name: str) -> None:
        target = _checked_name(member.linkname)
        if target not in self._files:
            raise HostileArchiveError(f"{_shown(name)} is a link to {_shown(target)}, which is no file before it")
        os.link(self._folder / target, self._new(name), follow_symlinks=False)
        self._files.add(name)

    def _make_links(self) -> None:
        for name, target in self._links.items():
            (self._folder / name).symlink_to(target)
        root = os.path.realpath(self._folder)
        for name in self._links:
            found = os.path.realpath(self._folder / name)
            if found != root and not found.startswith(root + os.sep):
                raise HostileArchiveError(f"{_shown(name)} is a link that leads out of the archive")

    def _new(self, name: str) -> Path:
        """The path of a member that is not a folder, its folders made."""
        if name in self._files or name in self._folders or name in self._links:
            raise HostileArchiveError(f"{_shown(name)} is in it twice")
        self._make_folder(name.rpartition("/")[0])
        return self._folder / name

    def _make_folder(self, name: str) -> None:
        if name in self._folders:
            return
        if name in self._files or name in self._links:
            raise HostileArchiveError(f"{_shown(name)} is a folder and something else")
        self._make_folder(name.rpartition("/")[0])
        if len(self._folders) + len(self._files) > self._limits.members:
            raise HostileArchiveError(f"it has more than {self._limits.members} files and folders")
        path = self._folder / name
        path.mkdir(mode=0o755)
        path.chmod(0o755)
        self._folders.add(name)


def _write_all(stream: FileIO, data: bytes) -> None:
    """A write to a disk that is nearly full may be a short one."""
    left = memoryview(data)
    while left:
        left = left[stream.write(left) :]


def _checked_name(name: str) -> str:
    """Relative to the archive, without empty parts and dots; "" for the archive itself."""
    if name.startswith("/"):
        raise HostileArchiveError(f"{_shown(name)} is an absolute path")
    if "\0" in name or len(name) > _LONGEST_NAME:
        raise HostileArchiveError(f"{_shown(name)} is no name of a file")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise HostileArchiveError(f"{_shown(name)} leads out of the archive")
    if len(parts) > _DEEPEST:
        raise HostileArchiveError(f"{_shown(name)} lies more than {_DEEPEST} folders deep")
    return "/".join(parts)


def _shown(name: str) -> str:
    """A name of a stranger's in one line."""
    return repr(name if len(name) <= 200 else f"{name[:200]}…")
