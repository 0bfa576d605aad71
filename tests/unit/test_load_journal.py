"""Journals as files: what a worker wrote, and what was left of it when it was killed."""

import json
import struct
from pathlib import Path

from tests.load.journal import Extreme, Life, Place, fewest_ready, read_journals

_SECOND = 1_000_000_000
_PLACE = Place("my-app", "host1", 3, 2)


def _write(folder: Path, *, pid: int, lines: list[str], beat: bytes) -> None:
    (folder / f"{pid}-1.jsonl").write_text("".join(lines))
    (folder / f"{pid}-1.beat").write_bytes(beat)


def _who(pid: int) -> str:
    environment = {"FLEET_APP": "my-app", "FLEET_HOST": "host1", "FLEET_WORKER_ID": "3", "FLEET_GENERATION": "2"}
    return json.dumps({"pid": pid, "started": 10 * _SECOND, "argv": [], "env": environment}) + "\n"


def _event(kind: str, second: int) -> str:
    return json.dumps({"event": kind, "at": second * _SECOND, "port": 3000}) + "\n"


def test_a_journal_tells_who_listened_from_when_to_the_last_beat(tmp_path: Path) -> None:
    _write(tmp_path, pid=7, lines=[_who(7), _event("listening", 11)], beat=struct.pack("<Q", 15 * _SECOND))

    assert read_journals(tmp_path) == [Life(7, _PLACE, started=10, last_beat=15, listening=11)]


def test_a_line_cut_short_by_a_kill_is_not_read(tmp_path: Path) -> None:
    cut = _event("listening", 11)[:-5]
    _write(tmp_path, pid=7, lines=[_who(7), cut], beat=struct.pack("<Q", 12 * _SECOND))

    assert read_journals(tmp_path) == [Life(7, _PLACE, started=10, last_beat=12)]


def test_a_process_killed_before_it_wrote_who_it_is_has_no_life(tmp_path: Path) -> None:
    _write(tmp_path, pid=7, lines=[_who(7)[:20]], beat=b"")

    assert read_journals(tmp_path) == []


def test_a_worker_that_closed_its_server_is_not_ready_although_it_lives(tmp_path: Path) -> None:
    lines = [_who(7), _event("listening", 11), _event("closing", 13)]
    _write(tmp_path, pid=7, lines=lines, beat=struct.pack("<Q", 20 * _SECOND))

    assert fewest_ready(read_journals(tmp_path), 12, 14) == Extreme(0, 13)
