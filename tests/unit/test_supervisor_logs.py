"""How lines are formatted, and how old logs are numbered and deleted."""

import json
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fleet_agent.supervisor import rotation
from fleet_agent.supervisor.log_format import MAX_LINE_BYTES, Format, JsonLines, Stamps, rfc3339

TIME = 1769903999.9996
STAMP = b"2026-01-31T23:59:59.999Z "


def test_a_time_is_told_in_utc_with_milliseconds() -> None:
    assert rfc3339(TIME) == "2026-01-31T23:59:59.999Z"


def stamped(piece: bytes, *, continues: bool) -> bytes:
    return Stamps().text(piece, TIME, continues=continues)


def formatted(wanted: Format, printed: list[bytes]) -> tuple[bytes, bytes]:
    """(text, what waits for its end) of a stream that came in these parts."""
    text = rest = b""
    for part in printed:
        rest += part
        while size := wanted.cut(rest[: wanted.piece_bytes]) if rest else 0:
            text += wanted.text(rest[:size], TIME, continues=bool(text) and not text.endswith(b"\n"))
            rest = rest[size:]
    return text, rest


def test_every_line_that_begins_gets_one_stamp() -> None:
    assert stamped(b"one\ntwo\n", continues=False) == STAMP + b"one\n" + STAMP + b"two\n"
    assert stamped(b"half", continues=False) == STAMP + b"half"
    assert stamped(b" more\nnext\n", continues=True) == b" more\n" + STAMP + b"next\n"
    assert stamped(b"\n", continues=True) == b"\n"
    assert stamped(b"\n\n", continues=False) == (STAMP + b"\n") * 2


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_without_its_stamps_a_stream_is_what_was_printed_however_it_was_cut(parts: list[bytes]) -> None:
    written, rest = formatted(Stamps(), parts)
    assert rest == b""
    assert written.replace(STAMP, b"") == b"".join(parts)
    lines = written.split(b"\n")
    assert all(line.startswith(STAMP) for line in lines[:-1])


@given(st.text(alphabet='aé\n☃\\"', max_size=60).map(str.encode), st.integers(1, 7))
def test_json_lines_hold_the_lines_however_they_were_cut(printed: bytes, size: int) -> None:
    parts = [printed[at : at + size] for at in range(0, len(printed), size)]
    written, rest = formatted(JsonLines("shop", 3, "err"), parts)
    objects = [json.loads(line) for line in written.splitlines()]
    *expected, unfinished = printed.decode().split("\n")
    assert [value["message"] for value in objects] == expected
    assert rest == unfinished.encode()
    assert all(value["app"] == "shop" and value["slot"] == 3 and value["stream"] == "err" for value in objects)
    assert all(value["time"] == "2026-01-31T23:59:59.999Z" for value in objects)


def test_a_line_without_end_is_kept_up_to_a_bound() -> None:
    written, rest = formatted(JsonLines("shop", 1, "out"), [b"x" * 1000] * 1000)
    messages = [json.loads(line)["message"] for line in written.splitlines()]
    assert messages == ["x" * MAX_LINE_BYTES] * (1_000_000 // MAX_LINE_BYTES)
    assert len(rest) == 1_000_000 % MAX_LINE_BYTES


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
