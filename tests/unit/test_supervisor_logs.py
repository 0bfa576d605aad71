"""How lines are formatted, and how old logs are numbered and deleted."""

import json
import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fleet_agent.supervisor import rotation
from fleet_agent.supervisor.log_format import MAX_LINE_BYTES, JsonLines, rfc3339, stamp_lines
from fleet_agent.supervisor.logs import LogFile

TIME = 1769903999.9996
STAMP = b"2026-01-31T23:59:59.999Z "


def test_a_time_is_told_in_utc_with_milliseconds() -> None:
    assert rfc3339(TIME) == "2026-01-31T23:59:59.999Z"


def test_every_line_that_begins_gets_one_stamp() -> None:
    assert stamp_lines(b"one\ntwo\n", TIME, continues=False) == STAMP + b"one\n" + STAMP + b"two\n"
    assert stamp_lines(b"half", TIME, continues=False) == STAMP + b"half"
    assert stamp_lines(b" more\nnext\n", TIME, continues=True) == b" more\n" + STAMP + b"next\n"
    assert stamp_lines(b"\n", TIME, continues=True) == b"\n"
    assert stamp_lines(b"\n\n", TIME, continues=False) == (STAMP + b"\n") * 2


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_without_its_stamps_a_stream_is_what_was_printed_however_it_was_cut(pieces: list[bytes]) -> None:
    written = b""
    for piece in filter(None, pieces):
        written += stamp_lines(piece, TIME, continues=bool(written) and not written.endswith(b"\n"))
    assert written.replace(STAMP, b"") == b"".join(pieces)
    lines = written.split(b"\n")
    assert all(line.startswith(STAMP) for line in lines[:-1])


@given(st.text(alphabet='aé\n☃\\"', max_size=60).map(str.encode), st.integers(1, 7))
def test_json_lines_hold_the_lines_however_they_were_cut(printed: bytes, size: int) -> None:
    lines = JsonLines("shop", 3, "err")
    written = b"".join(lines.feed(printed[at : at + size], TIME) for at in range(0, len(printed), size))
    written += lines.finish(TIME)
    objects = [json.loads(line) for line in written.splitlines()]
    expected = printed.decode().split("\n")
    assert [value["message"] for value in objects] == (expected if expected[-1] else expected[:-1])
    assert all(value["app"] == "shop" and value["slot"] == 3 and value["stream"] == "err" for value in objects)
    assert all(value["time"] == "2026-01-31T23:59:59.999Z" for value in objects)


def test_a_line_without_end_is_kept_up_to_a_bound() -> None:
    lines = JsonLines("shop", 1, "out")
    written = b"".join(lines.feed(b"x" * 1000, TIME) for _ in range(1000))
    messages = [json.loads(line)["message"] for line in written.splitlines()]
    assert messages == ["x" * MAX_LINE_BYTES] * (1_000_000 // MAX_LINE_BYTES)


@given(st.lists(st.integers(1, 12_000), min_size=1, max_size=12))
def test_a_stamped_line_is_never_parted_by_a_rotation_however_it_was_read(sizes: list[int]) -> None:
    printed = b"".join(b"%05d %s\n" % (number, b"x" * 60) for number in range(sum(sizes) // 67 + 1))
    with tempfile.TemporaryDirectory() as folder:
        log = LogFile(Path(folder) / "1.out.log")
        log.max_bytes, log.files = 4096, 1000
        at = 0
        for size in sizes:
            log.append(stamp_lines(printed[at : at + size], TIME, continues=log.in_line()))
            at += size
        log.close()
        files = sorted(Path(folder).iterdir(), key=lambda path: -int(path.suffix[1:]) if path.suffix != ".log" else 0)
        contents = [content for file in files if (content := file.read_bytes())]
    assert all(content.startswith(STAMP) for content in contents)
    assert b"".join(contents).replace(STAMP, b"") == printed[:at]
    assert b"".join(contents).count(STAMP) == len(printed[:at].splitlines())


def test_rotation_renumbers_what_the_agent_has_compressed_and_keeps_so_many(tmp_path: Path) -> None:
    log = tmp_path / "1.out.log"
    for name in ("1.out.log", "1.out.log.1", "1.out.log.2.gz", "1.out.log.3.gz", "1.out.log.9", "11.out.log.1"):
        (tmp_path / name).write_text(name)
    rotation.rotate(log, 3)
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert left == {
        "1.out.log.1": "1.out.log",
        "1.out.log.2": "1.out.log.1",
        "1.out.log.3.gz": "1.out.log.2.gz",
        "11.out.log.1": "11.out.log.1",
    }


def test_rotation_that_keeps_nothing_leaves_nothing(tmp_path: Path) -> None:
    log = tmp_path / "1.out.log"
    log.write_text("x")
    rotation.rotate(log, 0)
    assert list(tmp_path.iterdir()) == []


def test_old_logs_are_deleted_by_age_and_tell_when_the_present_one_began(tmp_path: Path) -> None:
    log = tmp_path / "1.out.log"
    for name, age in (("1.out.log", 0), ("1.out.log.1", 100), ("1.out.log.2.gz", 1000)):
        (tmp_path / name).write_text("x")
        at = (tmp_path / "1.out.log").stat().st_mtime - age
        os.utime(tmp_path / name, (at, at))
    assert abs(log.stat().st_mtime - 100 - rotation.began(log)) < 1
    rotation.delete_older(log, 500)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.out.log", "1.out.log.1"]
