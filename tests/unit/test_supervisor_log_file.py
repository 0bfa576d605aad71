"""A log that somebody else empties, appends to, removes or moves away while it is written to."""

import os
from collections.abc import Iterator
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
        else:
            assert self.log.opened()
            self.log.append(f"{text}\n".encode())

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
