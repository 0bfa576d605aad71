"""A log that somebody else empties, appends to, removes or moves away while it is written to."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet_agent.supervisor import log_file
from fleet_agent.supervisor.log_file import LogFile


class Writer:
    """Sends lines through a pipe, as workers do, or appends them, as formatted ones are."""

    def __init__(self, path: Path, way: str) -> None:
        self.log = LogFile(path)
        self._way = way
        self._read, self._write = os.pipe2(os.O_NONBLOCK)

    def line(self, text: str) -> None:
        if self._way == "spliced":
            os.write(self._write, f"{text}\n".encode())
            self.log.take(self._read)
        elif self.log.opened():
            self.log.append(f"{text}\n".encode())
        else:
            self.log.lose(f"{text}\n".encode())

    def close(self) -> None:
        self.log.close()
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1.out.log"


@pytest.fixture(params=["spliced", "appended"])
def writer(request: pytest.FixtureRequest, path: Path) -> Iterator[Writer]:
    writer = Writer(path, request.param)
    yield writer
    writer.close()


def test_a_log_that_was_emptied_begins_anew(writer: Writer, path: Path) -> None:
    writer.line("one")
    os.truncate(path, 0)
    writer.line("two")
    assert path.read_text() == "two\n"
    assert writer.log.size == len("two\n")


def test_what_somebody_else_appended_is_kept(writer: Writer, path: Path) -> None:
    writer.line("one")
    with path.open("a") as file:
        file.write("a note\n")
    writer.line("two")
    assert path.read_text() == "one\na note\ntwo\n"


def test_a_log_that_was_removed_is_begun_again_with_the_next_line(writer: Writer, path: Path) -> None:
    writer.line("one")
    path.unlink()
    writer.line("two")
    writer.line("three")
    assert path.read_text() == "two\nthree\n"


def test_a_folder_that_was_removed_with_its_logs_is_made_again(writer: Writer, path: Path) -> None:
    writer.line("one")
    path.unlink()
    path.parent.rmdir()
    writer.line("two")
    assert path.read_text() == "two\n"


def test_a_log_that_was_moved_away_is_soon_begun_again(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As logrotate(8) does, without telling anybody."""
    seconds = iter(range(0, 1000, 10))
    monkeypatch.setattr(log_file, "now", lambda: next(seconds))
    writer.line("one")
    moved = path.rename(path.with_name("moved"))
    writer.line("two")
    assert moved.read_text() + path.read_text() == "one\ntwo\n"
    assert path.read_text() == "two\n"


def test_a_log_that_was_removed_and_put_there_by_somebody_else_is_added_to(writer: Writer, path: Path) -> None:
    writer.line("one")
    path.unlink()
    path.write_text("theirs\n")
    writer.line("two")
    assert path.read_text() == "theirs\ntwo\n"


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes (setrlimit(2), RLIMIT_FSIZE)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_that_found_no_room_are_counted_and_leave_no_line_in_pieces(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    times = iter(range(100))
    monkeypatch.setattr(log_file, "complain", said.append)
    monkeypatch.setattr(log_file, "now", lambda: float(next(times)))
    writer.line("one")
    with disk_full_at(len("one\ntw")):
        for line in ("two", "three", "four"):
            writer.line(line)
    assert said == [f"{path} cannot be written, its lines are lost: File too large"]
    for line in ("five", "six"):
        writer.line(line)
    assert path.read_text() == "one\ntw\nfive\nsix\n", "what comes after a line that was cut is a line of its own"
    lost = len("two\nthree\nfour\n") - len("tw")
    assert said[1:] == [f"{path} is written again; 3 lines ({lost} bytes) were lost"]


def test_a_disk_that_is_full_again_and_again_is_told_of_once(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(log_file, "complain", said.append)
    monkeypatch.setattr(log_file, "now", lambda: 1.0)
    for _ in range(5):
        with disk_full_at(path.stat().st_size if path.exists() else 0):
            writer.line("lost")
        writer.line("kept")
    assert path.read_text() == "kept\n" * 5
    assert len(said) == 1
