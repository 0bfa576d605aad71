"""Makes one archive of code, the same bytes for the same files wherever and whenever it is made.

Names are sorted; owners are left out; of permissions only "executable" stays. A file's time follows from its content: one time
for all would let a server that makes ETags from size and time (Express does) take a changed file for the old one.
"""

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from fleetctl.errors import CliError, ExitCode
from fleetctl.ignore_rules import NEVER, IgnoreRules

_FIRST_TIME = 473_385_600
"""1985-01-01: archives, file systems and HTTP all know later times only."""
_TIMES = 1 << 29
_GZIP, _ZEROS = b"\x1f\x8b", bytes(512)
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Archive:
    """Code ready to be sent. `stream` is its owner's to close, and nothing of it is left on the disk then."""

    stream: BinaryIO
    digest: str
    size: int
    files: int
    """0: it was made by others."""


@dataclass(frozen=True)
class _Entry:
    name: str
    mode: int = 0o644
    link: str | None = None
    path: Path | None = None
    content: bytes | None = None


def pack_folder(folder: Path, left_out: Collection[str] = ()) -> Archive:
    """All files but those its ignore files name, and `left_out`, names relative to it. Raises CliError."""
    try:
        return _pack([entry for entry in _walk(folder) if entry.name not in left_out], str(folder))
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(ExitCode.FAILED, f"{folder} cannot be packed: {error}") from error


def pack_ref(folder: Path, ref: str, left_out: Collection[str] = ()) -> Archive:
    """What git has of `folder` in the commit that `ref` names, without `left_out`. Raises CliError."""
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", ref=ref).strip()
    content = _git(folder, "archive", "--format=tar", commit.decode(), ".", ref=ref)
    entries: list[_Entry] = []
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if set(name.split("/")) & NEVER or name in left_out:
                continue
            if member.issym():
                entries.append(_Entry(name, link=member.linkname))
            elif member.isreg() and (file := archive.extractfile(member)) is not None:
                entries.append(_Entry(name, member.mode, content=file.read()))
    return _pack(entries, f"{ref} of {folder}")


def pack_npm(folder: Path, left_out: Collection[str] = ()) -> Archive:
    """What `npm pack` would publish of `folder`: package.json's `files`, .npmignore and npm's own rules, without `left_out`.

    Raises CliError.
    """
    if not (folder / "package.json").is_file():
        raise CliError(ExitCode.USAGE, f"--npm-pack needs a package, and there is no package.json in {folder}")
    command = ["npm", "pack", "--dry-run", "--json", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120)
    except FileNotFoundError as error:
        raise CliError(ExitCode.NOT_FOUND, "--npm-pack needs npm, which is not on PATH: install it") from error
    except subprocess.TimeoutExpired as error:
        raise CliError(ExitCode.FAILED, f"npm took longer than 120 s in {folder}") from error
    try:
        names = sorted(str(file["path"]) for file in json.loads(done.stdout)[0]["files"])
    except (ValueError, LookupError, TypeError) as error:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("npm error")]
        why = said[0].removeprefix("npm error ") if said else f"exit code {done.returncode}"
        raise CliError(ExitCode.FAILED, f"npm pack cannot list {folder}: {why}") from error
    if (folder / "package-lock.json").is_file():
        names = sorted({*names, "package-lock.json"})  # npm never publishes it, and `npm ci` on the hosts needs it
    try:
        kept = (name for name in names if name not in left_out)
        entries = [_Entry(name, (folder / name).stat().st_mode, path=folder / name) for name in kept]
        return _pack(entries, str(folder))
    except OSError as error:
        raise CliError(ExitCode.FAILED, f"{folder} cannot be packed: {error}") from error


def open_archive(path: Path) -> Archive:
    """A tar archive somebody else made, plain or gzip, sent as it is. Raises CliError."""
    try:
        stream = path.open("rb")
        begin = stream.read(512)
        if begin[:2] != _GZIP and begin[257:262] != b"ustar" and begin != _ZEROS:
            stream.close()
            raise CliError(ExitCode.USAGE, f"{path} is no tar archive, plain or gzip: name one, or a folder")
        return _measured(stream, 0)
    except OSError as error:
        raise CliError(ExitCode.FAILED, f"{path} cannot be read: {error.strerror}") from error


def _walk(root: Path) -> Iterator[_Entry]:
    """Files and links below `root`, sorted by name. Raises CliError, OSError, UnicodeDecodeError."""
    rules = IgnoreRules(root)
    real_root = os.path.realpath(root)

    def within(folder: str) -> Iterator[_Entry]:
        rules.enter(folder)
        for found in sorted(os.scandir(root / folder), key=lambda entry: entry.name):
            name = f"{folder}/{found.name}" if folder else found.name
            name.encode()  # a name that is not UTF-8 could not be written the same everywhere
            is_folder = found.is_dir(follow_symlinks=False)
            if rules.leaves_out(name, is_folder=is_folder):
                continue
            if is_folder:
                yield from within(name)
            elif found.is_symlink():
                yield _Entry(name, link=_link(Path(found.path), real_root))
            elif found.is_file(follow_symlinks=False):
                yield _Entry(name, found.stat().st_mode, path=Path(found.path))
            else:
                raise CliError(ExitCode.FAILED, f"{found.path} is no file, folder or link: leave it out by .gitignore")

    yield from within("")


def _link(path: Path, real_root: str) -> str:
    target = str(path.readlink())
    found = os.path.realpath(path)
    if target.startswith("/") or not found.startswith(real_root + os.sep):
        raise CliError(
            ExitCode.FAILED,
            f"{path} is a link out of the folder, to {target}: copy it in, or leave it out by .gitignore",
        )
    return target


def _pack(entries: list[_Entry], what: str) -> Archive:
    if not entries:
        raise CliError(ExitCode.USAGE, f"there are no files to deploy in {what}")
    stream = tempfile.TemporaryFile()  # noqa: SIM115 (its owner closes it)
    try:
        with (
            gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for entry in sorted(entries, key=lambda entry: entry.name):
                _add(archive, entry)
        return _measured(stream, len(entries))
    except BaseException:
        stream.close()
        raise


def _add(archive: tarfile.TarFile, entry: _Entry) -> None:
    member = tarfile.TarInfo(entry.name)
    if entry.link is not None:
        member.type, member.linkname, member.mode, member.mtime = tarfile.SYMTYPE, entry.link, 0o777, _FIRST_TIME
        archive.addfile(member)
        return
    member.mode = 0o755 if entry.mode & stat.S_IXUSR else 0o644
    with _content(entry) as content:
        digest = hashlib.file_digest(content, "sha256").digest()  # type: ignore[arg-type]
        member.size = content.seek(0, os.SEEK_END)
        member.mtime = _FIRST_TIME + int.from_bytes(digest[:4]) % _TIMES
        content.seek(0)
        try:
            archive.addfile(member, content)
        except OSError as error:
            raise OSError(f"{entry.name} changed while it was packed: say it again") from error


@contextmanager
def _content(entry: _Entry) -> Iterator[IO[bytes]]:
    if entry.path is None:
        yield io.BytesIO(entry.content or b"")
        return
    with entry.path.open("rb") as stream:
        yield stream


def _measured(stream: IO[bytes], files: int) -> Archive:
    stream.flush()
    stream.seek(0)
    digest = hashlib.sha256()
    size = 0
    while data := stream.read(_READ_BYTES):
        digest.update(data)
        size += len(data)
    stream.seek(0)
    return Archive(stream, digest.hexdigest(), size, files)  # type: ignore[arg-type]


def _git(folder: Path, *arguments: str, ref: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False, timeout=120)
    except FileNotFoundError as error:
        raise CliError(ExitCode.NOT_FOUND, "--ref needs git, which is not on PATH: install it") from error
    except subprocess.TimeoutExpired as error:
        raise CliError(ExitCode.FAILED, f"git took longer than 120 s in {folder}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1].removeprefix("fatal: ") if said else "there is no such commit"
        raise CliError(ExitCode.NOT_FOUND, f"--ref {ref}: {why}", f"`git -C {folder} log` shows the commits")
    return done.stdout
