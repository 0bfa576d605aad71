"""A complaint that cannot be made ends nothing."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_agent.supervisor.complaints import complain
from fleet_agent.supervisor.log_file import LogFile


@pytest.fixture
def stderr() -> Iterator[int]:
    """Number 2, for the test to change; its own is put back."""
    saved = os.dup(2)
    try:
        yield 2
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _replace(stderr: int, path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.dup2(descriptor, stderr)
    os.close(descriptor)


def test_a_complaint_is_a_line_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    complain("the disk \udcff is full")
    assert capfd.readouterr().err == "fleet-supervisor: the disk \\udcff is full\n"


def test_a_full_disk_takes_no_complaint_and_raises_nothing(stderr: int) -> None:
    _replace(stderr, "/dev/full")
    with pytest.raises(OSError, match="No space left"):
        os.write(stderr, b"x")
    complain("nobody reads this")


def test_a_closed_stderr_raises_nothing(stderr: int) -> None:
    os.close(stderr)
    complain("nobody reads this")


def test_a_pipe_whose_reader_is_gone_or_asleep_holds_nobody_up(stderr: int) -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.dup2(write, stderr)
    os.close(write)
    for _ in range(100):
        complain("x" * 200)  # more than the pipe takes, and it blocks
    os.close(read)
    complain("nobody is there")


def test_a_log_that_cannot_be_written_while_stderr_cannot_either_loses_lines_and_nothing_else(
    stderr: int, tmp_path: Path
) -> None:
    _replace(stderr, "/dev/full")
    (tmp_path / "1.out.log").mkdir()
    log = LogFile(tmp_path / "1.out.log")
    assert not log.opened()
    read, write = os.pipe2(os.O_NONBLOCK)
    try:
        os.write(write, b"lost as well\n")
        log.take(read)
        with pytest.raises(BlockingIOError):
            os.read(read, 1)
    finally:
        os.close(read)
        os.close(write)
