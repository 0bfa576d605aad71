"""Compression beside a supervisor that rotates as fast as it can, and readers that follow: every line once, in order."""

import fcntl
import gzip
import os
import threading
import time
from pathlib import Path

from fleet_agent.log_compression import compress_folder
from fleet_agent.log_names import gzip_writer, log_names, origin_of
from fleet_agent.log_tail import LogTail
from fleet_agent.supervisor.rotation import rotate

LINES_EACH = 20
ROTATIONS = 150


def never() -> bool:
    return False


def contents(log: Path) -> list[bytes]:
    lines: list[bytes] = []
    for name in log_names(log):
        data = name.path.read_bytes()
        lines.extend((gzip.decompress(data) if name.compressed else data).splitlines())
    return lines


def test_no_line_is_lost_repeated_or_moved_while_logs_are_rotated_compressed_and_read(tmp_path: Path) -> None:
    log = tmp_path / "1.out.log"
    log.touch()
    done = threading.Event()
    tail = LogTail(log)
    tail.start(None)
    followed: list[bytes] = []

    def flood() -> None:
        for rotation in range(ROTATIONS):
            first = rotation * LINES_EACH
            log.write_bytes(b"".join(b"%d\n" % number for number in range(first, first + LINES_EACH)))
            while not rotate(log, 10_000):
                time.sleep(0.0001)
            time.sleep(0.002)
        log.touch()
        done.set()

    def compress() -> None:
        while not done.is_set():
            compress_folder(tmp_path, never)

    threads = [threading.Thread(target=flood), threading.Thread(target=compress)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while not done.is_set() and time.monotonic() < deadline:
        followed.extend(tail.read())
    for thread in threads:
        thread.join(60)
    while lines := tail.read():
        followed.extend(lines)
    tail.close()
    compress_folder(tmp_path, never)
    wanted = [b"%d" % number for number in range(ROTATIONS * LINES_EACH)]
    assert contents(log) == wanted
    assert followed == wanted
    assert {path.suffix for path in tmp_path.iterdir() if path != log} == {".gz"}


def test_what_a_kill_left_behind_is_finished_by_the_next_pass(tmp_path: Path) -> None:
    log = tmp_path / "1.out.log"
    log.write_text("2\n")
    old = tmp_path / "1.out.log.1"
    old.write_text("1\n")
    with (tmp_path / "1.out.log.1.gz").open("wb") as stream, gzip_writer(stream, origin_of(old.stat())) as writer:
        writer.write(b"1\n")
    (tmp_path / "1.out.log.abc.gz-unfinished").write_text("half")
    assert contents(log) == [b"1", b"2"], "readers see each line once meanwhile"
    compress_folder(tmp_path, never)
    assert contents(log) == [b"1", b"2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.out.log", "1.out.log.1.gz"]


def test_the_supervisor_does_not_wait_for_a_compressor_that_holds_the_folder(tmp_path: Path) -> None:
    log = tmp_path / "1.out.log"
    log.write_text("1\n")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        assert not rotate(log, 5)
        assert log.exists()
    finally:
        os.close(folder)
    assert rotate(log, 5)
    assert not log.exists()


def test_a_copy_bears_the_age_and_the_rights_of_its_original(tmp_path: Path) -> None:
    old = tmp_path / "1.err.log.1"
    old.write_text("x\n")
    old.chmod(0o640)
    os.utime(old, (1_000_000, 1_000_000))
    compress_folder(tmp_path, never)
    status = (tmp_path / "1.err.log.1.gz").stat()
    assert (status.st_mtime, status.st_mode & 0o777) == (1_000_000, 0o640)


def test_what_is_stopped_on_the_way_leaves_the_original_alone(tmp_path: Path) -> None:
    old = tmp_path / "1.err.log.1"
    old.write_text("x\n")
    asked: list[None] = []

    def soon() -> bool:
        asked.append(None)
        return len(asked) > 1

    compress_folder(tmp_path, soon)
    assert [path.name for path in tmp_path.iterdir()] == ["1.err.log.1"]
