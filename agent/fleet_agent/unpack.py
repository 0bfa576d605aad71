"""Unpacks deployed code, which anybody may have made, into a folder of its own and nowhere else.

Nothing is written through a link: files and folders come first, links last, once it is clear where each leads.
Owners, times and all permissions but "executable" are this host's, not the archive's.
"""

import errno
import os
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from fleet_agent.tar_stream import Kind, Member, TarError, TarStream, TrickError, shown

_LONGEST_NAME = 4096
"""Bytes (PATH_MAX of Linux)."""
_DEEPEST = 100
"""Folders within folders."""
_MOST_HOPS = 40
"""Links on one way: nobody who asks Linux gets further (path_resolution(7), ELOOP)."""
_MOST_STEPS = 20_000_000
"""Of looking where links lead, in all: seconds."""
_HEADER_BYTES = 4096
"""Of an archive, for each member it may have."""
_NAMES_OF_NO_FILE = frozenset(
    {errno.ENAMETOOLONG, errno.EEXIST, errno.EINVAL, errno.EILSEQ, errno.ELOOP, errno.EMLINK, errno.ENOTDIR}
)
"""What the disk says of an archive's names, not of itself."""


class HostileArchiveError(Exception):
    """It will not be unpacked; one line says why."""


@dataclass(frozen=True)
class Limits:
    """Of what one archive may become."""

    bytes: int = 4 * 1024**3
    members: int = 300_000
    name_bytes: int = 64 * 1024**2
    """All names and all targets of links, which are kept in memory."""


def unpack(archive: Path, folder: Path, limits: Limits | None = None) -> None:
    """Fill `folder`, which exists and is empty. Raises HostileArchiveError, OSError; what was written stays for the caller
    to remove."""
    limits = limits or Limits()
    unpacking = _Unpacking(folder, limits)
    try:
        with archive.open("rb", buffering=0) as stream:
            unpacking.take(TarStream(stream, limits.bytes + limits.members * _HEADER_BYTES))
    except TrickError as error:
        raise HostileArchiveError(str(error)) from error
    except (TarError, zlib.error, EOFError, ValueError) as error:
        raise HostileArchiveError(
            f"it is no tar archive, plain or gzip, that can be read to its end: {error}"
        ) from error
    except OSError as error:
        if error.errno not in _NAMES_OF_NO_FILE:
            raise
        raise HostileArchiveError(f"{shown(unpacking.at)} cannot be made here: {error.strerror}") from error


class _Unpacking:
    def __init__(self, folder: Path, limits: Limits) -> None:
        self.at = ""
        """The member it is busy with."""
        self._folder = folder
        self._limits = limits
        self._bytes = 0
        self._name_bytes = 0
        self._files: set[str] = set()
        self._folders: set[str] = {""}
        self._links: dict[str, str] = {}

    def take(self, archive: TarStream) -> None:
        for number, member in enumerate(archive.members()):
            if number >= self._limits.members:
                raise HostileArchiveError(f"it has more than {self._limits.members} members")
            self.at = member.name
            name = _checked_name(member.name)
            self._count_names(name, member.target)
            if not name:
                if member.kind is Kind.FOLDER:
                    continue
                raise HostileArchiveError("a member has no name")
            if member.mode & (stat.S_ISUID | stat.S_ISGID):
                raise HostileArchiveError(f"{shown(name)} has a setuid or setgid bit")
            if member.kind is Kind.FOLDER:
                self._make_folder(name)
            elif member.kind is Kind.FILE:
                self._write(archive, member, name)
            elif member.kind is Kind.LINK:
                self._note_link(member.target, name)
            elif member.kind is Kind.HARD_LINK:
                self._link_hard(member.target, name)
            else:
                raise HostileArchiveError(f"{shown(name)} is a device, a FIFO or of an unknown kind")
        self._make_links()

    def _count_names(self, *names: str) -> None:
        self._name_bytes += sum(len(os.fsencode(name)) for name in names)
        if self._name_bytes > self._limits.name_bytes:
            raise HostileArchiveError(f"its names have more than {self._limits.name_bytes} bytes")

    def _write(self, archive: TarStream, member: Member, name: str) -> None:
        self._bytes += member.size
        if self._bytes > self._limits.bytes:
            raise HostileArchiveError(f"it would fill more than {self._limits.bytes} bytes")
        path = self._new(name)
        mode = 0o755 if member.mode & 0o111 else 0o644
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(descriptor, "wb", buffering=0) as stream:  # noqa: PTH123 (a descriptor)
            for data in archive.content():
                _write_all(stream, data)
            os.fchmod(descriptor, mode)
            if member.modified is not None:
                os.utime(descriptor, (member.modified, member.modified))
        self._files.add(name)

    def _note_link(self, target: str, name: str) -> None:
        if not target or "\0" in target or len(os.fsencode(target)) >= _LONGEST_NAME:
            raise HostileArchiveError(f"{shown(name)} is a link that leads nowhere")
        if target.startswith("/"):
            raise HostileArchiveError(f"{shown(name)} is a link to the absolute path {shown(target)}")
        self._new(name)
        self._links[name] = target

    def _link_hard(self, target: str, name: str) -> None:
        found = _checked_name(target)
        if found not in self._files:
            raise HostileArchiveError(f"{shown(name)} is a link to {shown(found)}, which is no file before it")
        os.link(self._folder / found, self._new(name), follow_symlinks=False)
        self._files.add(name)

    def _make_links(self) -> None:
        steps = 0
        for name in self._links:
            taken = _steps_within(name, self._links)
            if taken is None:
                raise HostileArchiveError(f"{shown(name)} is a link that leads out of the archive")
            steps += taken
            if steps > _MOST_STEPS:
                raise HostileArchiveError("its links lead on to links too often")
        for name, target in self._links.items():
            self.at = name
            (self._folder / name).symlink_to(target)

    def _new(self, name: str) -> Path:
        """The path of a member that is not a folder, its folders made."""
        if name in self._files or name in self._folders or name in self._links:
            raise HostileArchiveError(f"{shown(name)} is in it twice")
        self._make_folder(name.rpartition("/")[0])
        return self._folder / name

    def _make_folder(self, name: str) -> None:
        if name in self._folders:
            return
        if name in self._files or name in self._links:
            raise HostileArchiveError(f"{shown(name)} is a folder and something else")
        self._make_folder(name.rpartition("/")[0])
        if len(self._folders) + len(self._files) > self._limits.members:
            raise HostileArchiveError(f"it has more than {self._limits.members} files and folders")
        path = self._folder / name
        path.mkdir(mode=0o755)
        path.chmod(0o755)
        self._folders.add(name)


def _write_all(stream: FileIO, data: memoryview) -> None:
    """A write to a disk that is nearly full may be a short one."""
    while data:
        data = data[stream.write(data) :]


def _steps_within(name: str, links: Mapping[str, str]) -> int | None:
    """How many names it takes to see where a link leads; None: out of the archive.

    As path_resolution(7), but for names that are not there, of which nothing is assumed. What goes in a circle leads nowhere.
    """
    at = name.split("/")[:-1]
    ahead = links[name].split("/")[::-1]
    hops = steps = 0
    while ahead:
        part = ahead.pop()
        steps += 1
        if part in ("", "."):
            continue
        if part == "..":
            if not at:
                return None
            at.pop()
            continue
        at.append(part)
        if len(at) > _DEEPEST + 1:
            continue  # no member lies so deep
        target = links.get("/".join(at))
        if target is not None:
            hops += 1
            if hops > _MOST_HOPS:
                return steps
            at.pop()
            ahead += target.split("/")[::-1]
    return steps


def _checked_name(name: str) -> str:
    """Relative to the archive, without empty parts and dots; "" for the archive itself."""
    if name.startswith("/"):
        raise HostileArchiveError(f"{shown(name)} is an absolute path")
    if "\0" in name or len(os.fsencode(name)) >= _LONGEST_NAME:
        raise HostileArchiveError(f"{shown(name)} is no name of a file")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise HostileArchiveError(f"{shown(name)} leads out of the archive")
    if len(parts) > _DEEPEST:
        raise HostileArchiveError(f"{shown(name)} lies more than {_DEEPEST} folders deep")
    return "/".join(parts)
