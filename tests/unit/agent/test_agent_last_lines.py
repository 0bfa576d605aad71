"""What a worker printed last."""

import os
from pathlib import Path

from fleet_agent.last_lines import TICK_SECONDS, mark_logs, read_last_lines


def write(folder: Path, stream: str, lines: list[str]) -> Path:
    path = folder / "web" / f"1.{stream}.log"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_stderr_counts_most_and_stdout_fills_what_is_left(tmp_path: Path) -> None:
    write(tmp_path, "out", [f"out {number}" for number in range(20)])
    write(tmp_path, "err", [f"err {number}" for number in range(20)])
    assert read_last_lines(tmp_path, "web", 1, 0.0) == [
        *[f"out {number}" for number in range(16, 20)],
        *[f"err {number}" for number in range(4, 20)],
    ]
    write(tmp_path, "err", ["Traceback", "", "KeyError"])
    assert read_last_lines(tmp_path, "web", 1, 0.0)[-4:] == ["out 18", "out 19", "Traceback", "KeyError"]
    assert len(read_last_lines(tmp_path, "web", 1, 0.0)) == 20


def test_lines_of_an_earlier_process_and_of_nobody_are_left_out(tmp_path: Path) -> None:
    old = write(tmp_path, "out", ["old"])
    os.utime(old, (1000.0, 1000.0))
    assert read_last_lines(tmp_path, "web", 1, 1001.0) == []
    assert read_last_lines(tmp_path, "web", 2, 0.0) == []


def test_a_write_counts_whose_time_is_of_the_tick_before(tmp_path: Path) -> None:
    """The time of a write is that of the last tick, which may lie before the start of a program that ends at once."""
    fresh = write(tmp_path, "out", ["last words"])
    os.utime(fresh, (1000.0, 1000.0))
    assert read_last_lines(tmp_path, "web", 1, 1000.0 + 0.9 * TICK_SECONDS) == ["last words"]


def test_what_a_predecessor_printed_into_the_same_log_is_left_out(tmp_path: Path) -> None:
    log = write(tmp_path, "out", ["listening", "bye"])
    marks = mark_logs(tmp_path, "web", 1)
    assert read_last_lines(tmp_path, "web", 1, 0.0, marks) == []
    with log.open("a") as more:
        more.write("thinking\n")
    assert read_last_lines(tmp_path, "web", 1, 0.0, marks) == ["thinking"]
    log.rename(log.with_suffix(".log.1"))
    write(tmp_path, "out", ["after a rotation"])
    assert read_last_lines(tmp_path, "web", 1, 0.0, marks) == ["after a rotation"]


def test_they_are_short_whatever_was_printed(tmp_path: Path) -> None:
    write(tmp_path, "err", ["x" * 100_000, "y" * 390, *["z" * 399] * 7])
    lines = read_last_lines(tmp_path, "web", 1, 0.0)
    assert sum(len(line) for line in lines) <= 2048
    assert lines[-1] == "z" * 399
    path = write(tmp_path, "err", [])
    path.write_bytes(b"\xff\xfe not text")
    assert read_last_lines(tmp_path, "web", 1, 0.0) == ["\ufffd\ufffd not text"]
