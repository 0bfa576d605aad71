"""The journal of real Node processes: what it says is what happened."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.load.journal import Life, fewest_ready, read_journals

_JOURNAL = Path(__file__).parents[1] / "load" / "journal.js"
_SERVER = "require('node:http').createServer().listen(0, '127.0.0.1')"
_Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[_Start]:
    """Start Node on a program's text with a journal in tmp_path."""
    started: list[subprocess.Popen[bytes]] = []

    def start_node(program: str) -> "subprocess.Popen[bytes]":
        environment = {
            "PATH": os.environ["PATH"],
            "NODE_OPTIONS": f"--require {_JOURNAL}",
            "WORKER_JOURNAL_DIR": str(tmp_path),
        }
        started.append(subprocess.Popen(["node", "-e", program], env=environment))
        return started[-1]

    yield start_node
    for process in started:
        process.kill()
        process.wait(10)


def _wait_for(folder: Path, condition: Callable[[list[Life]], bool]) -> list[Life]:
    deadline = time.monotonic() + 20
    while not condition(lives := read_journals(folder)):
        assert time.monotonic() < deadline, lives
        time.sleep(0.02)
    return lives


def test_a_killed_worker_was_ready_from_its_listening_to_its_end(tmp_path: Path, start: _Start) -> None:
    before = time.monotonic()
    process = start(_SERVER)
    _wait_for(tmp_path, lambda lives: any(life.listening for life in lives))
    seen_listening = time.monotonic()
    _wait_for(tmp_path, lambda lives: lives[0].last_beat > seen_listening)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    dead = time.monotonic()

    (life,) = read_journals(tmp_path)

    assert life.pid == process.pid
    assert life.listening is not None
    assert before < life.started < life.listening < seen_listening < life.last_beat < dead
    assert fewest_ready([life], life.listening, seen_listening).count == 1
    assert fewest_ready([life], seen_listening, dead).count == 0


def test_a_worker_that_closes_its_server_says_so(tmp_path: Path, start: _Start) -> None:
    start("const s = require('node:http').createServer().listen(0, () => s.close()); setTimeout(() => {}, 60000)")

    (life,) = _wait_for(tmp_path, lambda lives: bool(lives) and lives[0].closing is not None)

    assert life.listening is not None
    assert life.ready_until == life.closing


def test_the_journal_does_not_keep_a_finished_program_alive(tmp_path: Path, start: _Start) -> None:
    assert start("0").wait(10) == 0
    assert [life.listening for life in read_journals(tmp_path)] == [None]
