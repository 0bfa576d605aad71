"""Which lines are since a time."""

import os
from pathlib import Path

import pytest

from fleet_agent.log_tail import LogTail
from fleet_agent.log_times import SinceFilter, line_time

NOON = 1_798_718_400.0  # 2026-12-31T12:00:00Z


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"2026-12-31T12:00:00.000Z ready", NOON),
        (b'{"time":"2026-12-31T12:00:00.500Z","app":"web"}', NOON + 0.5),
        (b"[2026-12-31 13:00:00+01:00] ready", NOON),
        (b"ready at 2026-12-31T12:00:00Z", None),
        (b"2026-12-31T25:00:00Z no such hour", None),
        (b"2026-12-31T12:00:00 whose time?", None),
        (b"", None),
    ],
)
def test_the_time_a_line_begins_with(line: bytes, expected: float | None) -> None:
    assert line_time(line) == expected


def test_lines_without_a_time_belong_to_the_one_before() -> None:
    lines = [b"2026-12-31T11:59:59Z old", b"  trace", b"2026-12-31T12:00:01Z new", b"  trace"]
    assert SinceFilter(NOON).take(lines) == lines[2:]
    assert SinceFilter(NOON).take([b"no times at all"]) == [b"no times at all"]
    assert SinceFilter(0.0).take(lines) == lines


def test_files_last_written_to_before_are_not_read(tmp_path: Path) -> None:
    log = tmp_path / "1.out.log"
    log.write_text("new\n")
    (tmp_path / "1.out.log.1").write_text("recent\n")
    (tmp_path / "1.out.log.2").write_text("old\n")
    os.utime(tmp_path / "1.out.log.2", (1000, 1000))
    tail = LogTail(log)
    tail.start(None, since=2000.0)
    lines = [*tail.read(), *tail.read()]
    tail.close()
    assert lines == [b"recent", b"new"]
    for old in tmp_path.iterdir():
        os.utime(old, (1000, 1000))
    tail = LogTail(log)
    tail.start(10, since=2000.0)
    assert tail.read() == []
    tail.close()
