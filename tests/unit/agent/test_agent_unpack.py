"""Archives of strangers: what is unpacked, and what is refused in one line."""

import io
import os
import stat
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def _raw(*blocks: bytes) -> Fill:
    """What tarfile would not write."""

    def fill(archive: tarfile.TarFile) -> None:
        assert archive.fileobj is not None
        for block in blocks:
            archive.fileobj.write(block + bytes(-len(block) % 512))

    return fill


def _header(name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, mtime: bytes = b"", target: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, target
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    if mtime:
        header[136:148] = mtime
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _pax(text: bytes, kind: bytes = tarfile.XHDTYPE) -> Fill:
    return _raw(_header("pax", kind, size=len(text)), text)


def _record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = next(n for n in range(len(rest), len(rest) + 9) if len(str(n)) + len(rest) == n)
    return str(length).encode() + rest


def _sparse() -> bytes:
    """GNU's old form, which says that more of its map follows."""
    header = bytearray(_header("x", tarfile.GNUTYPE_SPARSE))
    header[482] = 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


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
    "a chain of headers": ([_pax(_record("a", "b"))] * 9, "more than 8 headers"),
    "a chain of long names": (
        [_raw(_header("x", tarfile.GNUTYPE_LONGNAME, size=2), b"x")] * 2000,
        "more than 8 headers",
    ),
    "sparse, GNU": ([_raw(_sparse(), *[b"1" * 512] * 50)], "'x' is a sparse file: pack it without --sparse"),
    "sparse, pax": ([_pax(_record("GNU.sparse.major", "1")), lambda a: _file(a, "x")], "is a sparse file"),
    "sparse for all": ([_pax(_record("GNU.sparse.map", "0,0"), tarfile.XGLTYPE)], "gives all members one"),
    "one path for all": ([_pax(_record("path", "x"), tarfile.XGLTYPE)], "gives all members one path"),
    "a size of -512": ([_raw(_header("x", size=-512))], "has -512 bytes"),
    "a size of thousands of digits": (
        [_pax(_record("size", "9" * 5000)), lambda a: _file(a, "x")],
        "a number that is none",
    ),
    "a pax header that is none": ([_pax(b"1" * 65_000)], "a pax header cannot be read"),
    "a wrong checksum": ([_raw(_header("x").replace(b"x", b"y", 1))], "wrong checksum"),
    "a header and no member": ([_pax(_record("a", "b"))], "belongs to a member"),
    "a name no disk has": ([lambda a: _file(a, "x" * 256)], "File name too long"),
    "4096 bytes of a name": ([_pax(_record("path", "é" * 2048)), lambda a: _file(a, "x")], "no name of a file"),
    "a link of 4096 bytes": (
        [_pax(_record("linkpath", "./" * 2048)), _raw(_header("x", tarfile.SYMTYPE))],
        "leads nowhere",
    ),
    "a NUL in a name": ([_pax(_record("path", "a\0b")), _raw(_header("x"))], "no name of a file"),
    "a bomb of headers": (
        [fill for n in range(30) for fill in (_pax(_record("a", "b" * 60_000)), lambda a, n=n: _file(a, f"x{n}"))],  # type: ignore[misc]
        "has more than 1409600 bytes",
    ),
    "a bomb of names": (
        [lambda a, n=n: _special(a, f"x{n}", tarfile.SYMTYPE, "./" * 1000 + "y") for n in range(60)],  # type: ignore[misc]
        "its names have more than",
    ),
    "folders nobody listed": (
        [lambda a: _file(a, f"{'d/' * 99}x")] * 1 + [lambda a: _file(a, f"{'e/' * 99}x")],
        "more than",
    ),
}


_BROKEN = {
    "a size of -512",
    "a size of thousands of digits",
    "a pax header that is none",
    "a wrong checksum",
    "a header and no member",
}
"""Where the headers themselves cannot be read."""


@pytest.mark.parametrize("kind", _HOSTILE)
def test_a_hostile_archive_is_refused_in_one_line_and_nothing_is_written_outside(tmp_path: Path, kind: str) -> None:
    fills, reason = _HOSTILE[kind]

    with pytest.raises(HostileArchiveError) as refusal:
        _unpacked(tmp_path, *fills, limits=Limits(bytes=1_000_000, members=100, name_bytes=100_000))

    assert reason in str(refusal.value)
    assert "no tar archive" not in str(refusal.value) or kind in _BROKEN
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


_TIMES = {"infinite": "inf", "too late": "1e30", "before 1970": "-5", "no number": "soon"}


@pytest.mark.parametrize("time", _TIMES.values(), ids=_TIMES)
def test_a_time_that_no_file_can_have_is_no_reason_to_refuse(tmp_path: Path, time: str) -> None:
    folder = _unpacked(tmp_path, _pax(_record("mtime", time)), lambda a: _file(a, "x"))

    assert (folder / "x").read_bytes() == b"x"


def test_a_time_in_gnus_binary_form_that_no_file_can_have_is_no_reason_to_refuse(tmp_path: Path) -> None:
    folder = _unpacked(tmp_path, _raw(_header("x", mtime=b"\x80" + b"\xff" * 11)))

    assert (folder / "x").read_bytes() == b""


def test_links_in_a_long_row_and_in_a_circle_cost_little_and_lead_nowhere_else(tmp_path: Path) -> None:
    links = [_raw(_header(f"l{n}", tarfile.SYMTYPE, target=f"l{n + 1}")) for n in range(1100)]
    circle = _raw(_header("l1100", tarfile.SYMTYPE, target="l0"))

    folder = _unpacked(tmp_path, *links, circle)

    assert len(list(folder.iterdir())) == 1101


def test_links_whose_ways_multiply_cost_little(tmp_path: Path) -> None:
    first = _raw(_header("l0", tarfile.SYMTYPE, target="."))
    rest = [_raw(_header(f"l{n}", tarfile.SYMTYPE, target="/".join([f"l{n - 1}"] * 9))) for n in range(1, 60)]
    folder = _unpacked(tmp_path, first, *rest)

    assert (folder / "l1").resolve() == folder


def test_many_global_headers_take_no_memory(tmp_path: Path) -> None:
    """git archive writes one; tarfile would keep them all."""
    fills = [
        fill
        for n in range(50)
        for fill in (_pax(_record(f"k{n}", "v" * 60_000), tarfile.XGLTYPE), lambda a, n=n: _file(a, f"x{n}"))  # type: ignore[misc]
    ]
    tracemalloc.start()
    try:
        _unpacked(tmp_path, *fills)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 2_000_000, "3 MB of headers were kept"


_NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda name: name.strip(".") and len(name.encode()) < 250
)
_PATHS = st.lists(_NAMES, min_size=1, max_size=6).map("/".join)
_CONTENT = st.binary(max_size=3000)


@given(
    files=st.dictionaries(_PATHS, st.tuples(_CONTENT, st.booleans(), st.integers(0, 2**33 - 1)), max_size=12),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    mode=st.sampled_from(["w", "w:gz"]),
)
@settings(max_examples=30, deadline=None)
def test_what_tarfile_writes_is_read_as_it_was_written(
    files: dict[str, tuple[bytes, bool, int]], form: int, mode: str
) -> None:
    with TemporaryDirectory() as name:
        path, folder = Path(name, "it.tar"), Path(name, "code")
        folder.mkdir()
        written = {}
        with tarfile.open(path, mode, format=form) as archive:  # type: ignore[call-overload]
            for file, (content, runs, time) in files.items():
                if any(
                    other != file and (f"{other}/".startswith(f"{file}/") or f"{file}/".startswith(f"{other}/"))
                    for other in files
                ):
                    continue
                member = tarfile.TarInfo(file)
                member.size, member.mode, member.mtime = len(content), 0o755 if runs else 0o644, time
                try:
                    archive.addfile(member, io.BytesIO(content))
                except ValueError:
                    continue  # ustar has no room for the name
                written[file] = content, runs, time

        unpack(path, folder)

        found = {
            str(file.relative_to(folder)): (
                file.read_bytes(),
                bool(file.stat().st_mode & 0o100),
                int(file.stat().st_mtime),
            )
            for file in folder.rglob("*")
            if file.is_file()
        }
    assert found == written


@given(st.binary(max_size=4096), st.integers(0, 4000))
@settings(max_examples=60, deadline=None)
def test_whatever_the_bytes_are_they_are_unpacked_or_refused(noise: bytes, at: int) -> None:
    with TemporaryDirectory() as name:
        path, folder = Path(name, "it.tar"), Path(name, "code")
        folder.mkdir()
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            _file(archive, "a/" + "é" * 100, b"1" * 700)
            _special(archive, "link", tarfile.SYMTYPE, "a")
        whole = path.read_bytes()
        path.write_bytes(whole[:at] + noise + whole[at + len(noise) :])

        with suppress(HostileArchiveError):
            unpack(path, folder, Limits(bytes=100_000, members=20))
        assert [each.name for each in Path(name).iterdir() if each != path] == ["code"]


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7", "oldgnu"])
def test_what_gnu_tar_writes_is_read_as_it_was_written(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    part = 90 if form in ("gnu", "pax", "oldgnu") else 40
    long = source / ("d" * part) / ("f" * part)
    long.parent.mkdir(parents=True)
    long.write_bytes(b"x" * 70_000)
    (source / "again").hardlink_to(long)
    (source / "link").symlink_to(long.relative_to(source))
    (source / "empty").mkdir()
    subprocess.run(["tar", f"--format={form}", "-C", str(source), "-czf", str(tmp_path / "it.tgz"), "."], check=True)
    folder = tmp_path / "code"
    folder.mkdir()

    unpack(tmp_path / "it.tgz", folder)

    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == sorted(
        path.relative_to(source) for path in source.rglob("*")
    )
    assert (folder / "link").read_bytes() == (folder / "again").read_bytes() == b"x" * 70_000
    assert (folder / "again").stat().st_nlink == 2
