"""Archives of strangers: what is unpacked, and what is refused in one line."""

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet_agent.unpack import HostileArchiveError, Limits, unpack

Fill = Callable[[tarfile.TarFile], None]


def _file(archive: tarfile.TarFile, name: str, content: bytes = b"x", mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))


def _special(archive: tarfile.TarFile, name: str, kind: bytes, target: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    archive.addfile(member)


def _archive(path: Path, *fills: Fill, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for fill in fills:
            fill(archive)
    return path


def _unpacked(tmp_path: Path, *fills: Fill, limits: Limits | None = None) -> Path:
    folder = tmp_path / "inside" / "code"
    folder.mkdir(parents=True)
    unpack(_archive(tmp_path / "it.tar.gz", *fills), folder, limits)
    return folder


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_files_folders_and_links_come_out_as_they_were(tmp_path: Path, mode: str) -> None:
    path = _archive(
        tmp_path / "it.tar",
        lambda a: _special(a, "./", tarfile.DIRTYPE),
        lambda a: _special(a, "./bin", tarfile.DIRTYPE),
        lambda a: _file(a, "./bin/run", b"#!/bin/sh", 0o700),
        lambda a: _file(a, "lib/.hidden/deep.js", b"1"),
        lambda a: _special(a, "bin/again", tarfile.SYMTYPE, "../bin/run"),
        lambda a: _special(a, "early", tarfile.SYMTYPE, "later"),
        lambda a: _file(a, "later", b"2"),
        lambda a: _special(a, "same", tarfile.LNKTYPE, "later"),
        mode=mode,
    )
    folder = tmp_path / "code"
    folder.mkdir()

    unpack(path, folder)

    assert (folder / "bin/again").read_bytes() == b"#!/bin/sh"
    assert stat.S_IMODE((folder / "bin/run").stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "lib/.hidden/deep.js").stat().st_mode) == 0o644
    assert (folder / "early").read_bytes() == (folder / "same").read_bytes() == b"2"


def _header_of(kind: bytes) -> Fill:
    """A name so long that reading it would fill the memory."""

    def fill(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo("x")
        member.type, member.size = kind, 1_000_000
        archive.addfile(member, io.BytesIO(bytes(member.size)))

    return fill


_HOSTILE: dict[str, tuple[list[Fill], str]] = {
    "absolute": ([lambda a: _file(a, "/etc/cron.d/x")], "is an absolute path"),
    "up": ([lambda a: _file(a, "../x")], "leads out"),
    "up inside": ([lambda a: _file(a, "a/../../x")], "leads out"),
    "folder up": ([lambda a: _special(a, "a/..", tarfile.DIRTYPE)], "leads out"),
    "no name": ([lambda a: _file(a, ".")], "has no name"),
    "too deep": ([lambda a: _file(a, "/".join("a" * 101 + "x"))], "folders deep"),
    "too long": ([lambda a: _file(a, "/".join(["a" * 200] * 30))], "no name of a file"),
    "absolute link": ([lambda a: _special(a, "x", tarfile.SYMTYPE, "/etc/passwd")], "absolute path"),
    "link up": ([lambda a: _special(a, "x", tarfile.SYMTYPE, "../../x")], "leads out"),
    "link to its own root's parent": ([lambda a: _special(a, "x", tarfile.SYMTYPE, "..")], "leads out"),
    "link through a link": (
        [
            lambda a: _file(a, "d/e/f/file"),
            lambda a: _special(a, "d/e/f/root", tarfile.SYMTYPE, "../../.."),
            lambda a: _special(a, "out", tarfile.SYMTYPE, "d/e/f/root/.."),
        ],
        "leads out",
    ),
    "dangling link out": ([lambda a: _special(a, "x", tarfile.SYMTYPE, "../nothing/here")], "leads out"),
    "write through a link": (
        [lambda a: _special(a, "d", tarfile.SYMTYPE, "."), lambda a: _file(a, "d/x")],
        "a folder and something else",
    ),
    "write over a link": (
        [lambda a: _special(a, "d", tarfile.SYMTYPE, "y"), lambda a: _file(a, "d")],
        "is in it twice",
    ),
    "link over a folder": (
        [lambda a: _file(a, "d/x"), lambda a: _special(a, "d", tarfile.SYMTYPE, ".")],
        "is in it twice",
    ),
    "file as a folder": ([lambda a: _file(a, "d"), lambda a: _file(a, "d/x")], "a folder and something else"),
    "twice": ([lambda a: _file(a, "x"), lambda a: _file(a, "./x")], "is in it twice"),
    "empty link": ([lambda a: _special(a, "x", tarfile.SYMTYPE)], "leads nowhere"),
    "hard link out": ([lambda a: _special(a, "x", tarfile.LNKTYPE, "../../etc/passwd")], "leads out"),
    "absolute hard link": ([lambda a: _special(a, "x", tarfile.LNKTYPE, "/etc/passwd")], "absolute path"),
    "hard link to nothing": ([lambda a: _special(a, "x", tarfile.LNKTYPE, "y")], "no file before it"),
    "hard link to a link": (
        [lambda a: _special(a, "y", tarfile.SYMTYPE, "z"), lambda a: _special(a, "x", tarfile.LNKTYPE, "y")],
        "no file before it",
    ),
    "character device": ([lambda a: _special(a, "x", tarfile.CHRTYPE)], "is a device"),
    "block device": ([lambda a: _special(a, "x", tarfile.BLKTYPE)], "is a device"),
    "fifo": ([lambda a: _special(a, "x", tarfile.FIFOTYPE)], "a FIFO"),
    "setuid": ([lambda a: _file(a, "x", mode=0o4755)], "setuid"),
    "setgid": ([lambda a: _file(a, "x", mode=0o2755)], "setuid or setgid"),
    "long header": ([_header_of(tarfile.XHDTYPE)], "a header of 1000000 bytes"),
    "long global header": ([_header_of(tarfile.XGLTYPE)], "a header of 1000000 bytes"),
    "long name": ([_header_of(tarfile.GNUTYPE_LONGNAME)], "a header of 1000000 bytes"),
    "bomb": ([lambda a: _file(a, "x", bytes(1_000_001))], "would fill more than"),
    "many bombs": ([lambda a, n=n: _file(a, f"x{n}", bytes(600_000)) for n in range(2)], "would fill more than"),  # type: ignore[misc]
    "a million files": ([lambda a, n=n: _file(a, f"x{n}") for n in range(101)], "more than 100 members"),  # type: ignore[misc]
    "folders nobody listed": (
        [lambda a: _file(a, f"{'d/' * 99}x")] * 1 + [lambda a: _file(a, f"{'e/' * 99}x")],
        "more than",
    ),
}


@pytest.mark.parametrize("kind", _HOSTILE)
def test_a_hostile_archive_is_refused_in_one_line_and_nothing_is_written_outside(tmp_path: Path, kind: str) -> None:
    fills, reason = _HOSTILE[kind]

    with pytest.raises(HostileArchiveError) as refusal:
        _unpacked(tmp_path, *fills, limits=Limits(bytes=1_000_000, members=100))

    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "it.tar.gz"]
    assert [path.name for path in (tmp_path / "inside").iterdir()] == ["code"]


@pytest.mark.parametrize(
    "content",
    [b"not a tar" * 100, b"\x1f\x8bnot gzip", b"\x28\xb5\x2f\xfd zstd", b"BZh9 bzip2", b"\xfd7zXZ\0 xz"],
    ids=["text", "gzip", "zstd", "bzip2", "xz"],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "it"
    path.write_bytes(content)
    folder = tmp_path / "code"
    folder.mkdir()

    with pytest.raises(HostileArchiveError, match="no tar archive"):
        unpack(path, folder)


def test_an_archive_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = _archive(tmp_path / "it.tar.gz", lambda a: _file(a, "x", os.urandom(100_000)))
    path.write_bytes(path.read_bytes()[:50_000])
    folder = tmp_path / "code"
    folder.mkdir()

    with pytest.raises(HostileArchiveError):
        unpack(path, folder)


def test_a_name_with_line_breaks_is_shown_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(HostileArchiveError) as refusal:
        _unpacked(tmp_path, lambda a: _file(a, "/x\n\x1b[2Jx"))

    assert "\n" not in str(refusal.value)
    assert "\x1b" not in str(refusal.value)
