"""A reader that begins while the log is being rotated."""

import os
from pathlib import Path

import pytest

from fleet_agent import log_tail
from fleet_agent.log_names import LogName
from fleet_agent.log_tail import LogTail


def test_a_rotation_while_the_files_are_opened_hides_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was the second file is the third one a moment later, under a name that was not looked at."""
    log = tmp_path / "1.out.log"
    for name, text in (("1.out.log.2", "one\n"), ("1.out.log.1", "two\n"), ("1.out.log", "three\n")):
        (tmp_path / name).write_text(text)
    really_open = log_tail._open
    rotations = iter([None])

    def rotate_after_the_first(name: LogName) -> object:
        opened = really_open(name)
        for _ in rotations:
            for number in (2, 1):
                (tmp_path / f"1.out.log.{number}").rename(tmp_path / f"1.out.log.{number + 1}")
            log.rename(tmp_path / "1.out.log.1")
            log.write_text("four\n")
        return opened

    monkeypatch.setattr(log_tail, "_open", rotate_after_the_first)
    tail = LogTail(log)
    tail.start(100)
    lines: list[bytes] = []
    while more := tail.read():
        lines += more
    tail.close()
    assert lines == [b"one", b"two", b"three", b"four"]


def everything(tail: LogTail) -> list[bytes]:
    lines: list[bytes] = []
    while more := tail.read():
        lines += more
    return lines


def test_a_log_that_somebody_removes_is_followed_on_and_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    log = tmp_path / "1.out.log"
    for seconds, (name, text) in enumerate(
        (("1.out.log.2", "one\n"), ("1.out.log.1", "two\n"), ("1.out.log", "three\n"))
    ):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (1_700_000_000 + seconds, 1_700_000_000 + seconds))
    tail = LogTail(log)
    tail.start(100)
    assert everything(tail) == [b"one", b"two", b"three"]
    log.unlink()
    assert everything(tail) == []
    log.write_text("four\n")
    assert everything(tail) == [b"four"]
    tail.close()


def test_a_reader_that_falls_behind_rotation_goes_on_with_the_oldest_file_there_is(tmp_path: Path) -> None:
    log = tmp_path / "1.out.log"
    log.write_text("one\n")
    os.utime(log, (1_700_000_000, 1_700_000_000))
    tail = LogTail(log)
    tail.start(100)
    assert everything(tail) == [b"one"]
    for number, text in ((2, "three\n"), (1, "four\n"), (0, "five\n")):
        path = tmp_path / f"1.out.log.{number}" if number else log
        path.unlink(missing_ok=True)
        path.write_text(text)
    assert everything(tail) == [b"three", b"four", b"five"]
    tail.close()
