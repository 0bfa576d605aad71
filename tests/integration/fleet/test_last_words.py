"""What a worker printed last is kept by `up`, as by systemd, when it dies while its supervisor is down."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_agent.supervisor.processes import read_stat
from tests.integration.fleet.harness import Fleet, wait_for

LINES = 3000
SOURCE = f"""#!{sys.executable} -S
import os, signal, time
while not os.path.exists('go'):
    time.sleep(0.01)
if not os.path.exists('gone'):
    for number in range({LINES}):
        os.write(1, b'last word %d\\n' % number)
    open('gone', 'w').close()
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(1000)
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path / "fleet", hosts=1) as running:
        running.start()
        yield running


def _dead(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is None or stat.dead


@pytest.mark.parametrize("options", [(), ("--log-timestamps",)], ids=["plain", "timestamps"])
def test_no_line_is_lost_of_a_worker_that_dies_while_its_supervisor_is_down(
    small: Fleet, tmp_path: Path, options: tuple[str, ...]
) -> None:
    program = tmp_path / "program"
    program.write_text(SOURCE)
    program.chmod(0o755)
    small.do("start", str(program), "-n", "speaks", "-i", "1", "--listen", "none", *options)
    (pid,) = small.pids("speaks")
    folder = Path(f"/proc/{pid}/cwd").readlink()
    _, supervisor = small.daemon("supervisor")
    manager = small.up_pid
    os.kill(manager, signal.SIGSTOP)  # nothing starts the supervisor again before the worker is dead
    try:
        os.kill(supervisor, signal.SIGKILL)
        wait_for(lambda: _dead(supervisor), "the supervisor is dead")
        (folder / "go").touch()
        wait_for(lambda: _dead(pid), "the worker is dead")
    finally:
        os.kill(manager, signal.SIGCONT)
    log = small.data_dir / "hosts" / "host1" / "log" / "speaks" / "1.out.log"
    wait_for(
        lambda: log.exists() and log.read_bytes().endswith(b"last word %d\n" % (LINES - 1)), "its last line is there"
    )
    words = [line.split()[-1] for line in log.read_text().splitlines()]
    assert words == [str(number) for number in range(LINES)]
    wait_for(lambda: small.pids("speaks") - {0, pid}, "another took its place")
