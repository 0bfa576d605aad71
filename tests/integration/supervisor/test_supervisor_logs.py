"""What workers print reaches their logs once, whoever dies meanwhile, and whoever floods beside them."""

import json
import os
import random
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from fleet_agent.supervisor.protocol import Key
from tests.integration.supervisor.fd_store import FdStore
from tests.integration.supervisor.running import KEY, RunningSupervisor, alive, eventually, launch, python

OTHER = Key("shop", 2, 1)
FORMATS: list[dict[str, Any]] = [{}, {"log_timestamps": True}, {"log_json": True}]
NAMES = ["plain", "timestamps", "JSON"]
COUNT = """
import os, time
n = 0
progress = os.open('progress', os.O_RDWR | os.O_CREAT)
while True:
    for _ in range(20):
        n += 1
        os.write(1, b'line %d %s\\n' % (n, b'x' * 80))
    os.pwrite(progress, b'%012d' % n, 0)
    time.sleep(0.005)
"""
LAST_WORDS = """
import os, signal, time
os.write(1, b'begun\\n')
while not os.path.exists('go'):
    time.sleep(0.005)
for n in range(2000):
    os.write(1, b'line %d %s\\n' % (n, b'x' * 80))
os.write(1, b'half')
os.kill(os.getpid(), signal.SIGKILL)
"""
FLOOD = "import os\nline = b'x' * 99 + b'\\n'\nwhile True: os.write(1, line)"
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")


def printed(host: RunningSupervisor, key: Key = KEY) -> list[str]:
    """The lines of its log, without times and objects around them; an object that is only half there is none yet."""
    lines = host.log(key).splitlines(keepends=True)
    return [
        json.loads(line)["message"] if line.startswith("{") else _STAMP.sub("", line.rstrip("\n"), count=1)
        for line in lines
        if line.endswith("\n") or not line.startswith("{")
    ]


@pytest.mark.parametrize("changes", FORMATS, ids=NAMES)
async def test_every_line_arrives_once_through_kills_of_the_supervisor_at_any_instruction(
    folders: RunningSupervisor, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Guards invariant 3."""
    instants = random.Random(7)
    await folders.start()
    worker = await folders.run(python(COUNT, tmp_path, log_max_bytes=100_000, log_files=10_000, **changes))

    def progress() -> int:
        file = tmp_path / "progress"
        return int(file.read_text() or 0) if file.exists() else 0

    async def go_on(lines: int) -> None:
        wanted = progress() + lines
        await eventually(lambda: progress() >= wanted, "the worker goes on")

    for _ in range(12):
        # It is killed while it empties what has filled the pipe meanwhile, or before, or soon after; a pipe holds it all.
        await folders.kill()
        await go_on(instants.randrange(40, 800))
        await folders.start()
        await go_on(instants.randrange(200))
    await folders.kill()
    await folders.start()
    assert folders.workers[KEY].pid == worker.pid
    await folders.client.stop_all(5)
    await folders.client.forget(KEY)
    lines = printed(folders)
    assert [line.split()[1] for line in lines] == [str(number) for number in range(1, len(lines) + 1)]
    assert len(lines) >= progress()
    assert list((folders.runtime_dir / "fifos").iterdir()) == []


@pytest.mark.parametrize("changes", FORMATS, ids=NAMES)
async def test_the_last_words_of_a_worker_that_dies_while_its_supervisor_is_away_are_kept(
    folders: RunningSupervisor, tmp_path: Path, changes: dict[str, Any]
) -> None:
    folders.store = FdStore(tmp_path / "manager.sock")
    await folders.start()
    worker = await folders.run(python(LAST_WORDS, tmp_path, restart_mode="never", **changes))
    await eventually(lambda: printed(folders) == ["begun"], "it runs")
    await folders.kill()
    (tmp_path / "go").touch()
    await eventually(lambda: not alive(worker.pid), "it is dead")
    await folders.start()
    await folders.until(lambda seen: seen.state in ("exited", "failed"))
    await folders.client.forget(KEY)
    assert printed(folders) == ["begun", *(f"line {number} {'x' * 80}" for number in range(2000)), "half"]
    assert folders.store.log_names == []


async def test_what_an_ended_worker_left_in_its_pipe_outlives_a_second_supervisor_too(
    folders: RunningSupervisor, tmp_path: Path
) -> None:
    """The first that comes is killed once it has written down that the worker is gone, and before its next turn."""
    folders.store = FdStore(tmp_path / "manager.sock")
    await folders.start()
    worker = await folders.run(python(LAST_WORDS, tmp_path, restart_mode="never"))
    await folders.kill()
    (tmp_path / "go").touch()
    await eventually(lambda: not alive(worker.pid), "it is dead")
    await folders.start()
    await folders.until(lambda seen: seen.state in ("exited", "failed"))
    await folders.kill()
    await folders.start()
    await folders.client.forget(KEY)
    assert len(printed(folders)) == 2002


async def test_pipes_are_stored_once_however_often_their_supervisor_comes_back(
    folders: RunningSupervisor, tmp_path: Path
) -> None:
    folders.store = FdStore(tmp_path / "manager.sock")
    await folders.start()
    await folders.run(launch("sleep", "1000"))
    for _ in range(3):
        assert folders.store.log_names == ["log.shop.1.1"] * 2
        await folders.kill()
        await folders.start()
    await folders.client.stop(KEY, signal.SIGTERM, 5)
    await folders.until(lambda seen: seen.state == "exited")
    await folders.client.forget(KEY)
    assert folders.store.log_names == []


async def test_another_format_ends_an_unfinished_line_and_loses_none(host: RunningSupervisor, tmp_path: Path) -> None:
    source = """
import os, time
os.write(1, b'one\\ntwo')
while not os.path.exists('go'): time.sleep(0.005)
os.write(1, b' more\\nthree\\n')
time.sleep(1000)
"""
    await host.run(python(source, tmp_path, log_json=True))
    await eventually(lambda: printed(host) == ["one"], "an unfinished line waits")
    await host.client.run(KEY, python(source, tmp_path, log_timestamps=True))
    await host.kill()
    await host.start()
    (tmp_path / "go").touch()
    await eventually(lambda: len(printed(host)) == 4, "all is written")
    assert printed(host) == ["one", "two", " more", "three"]


@pytest.mark.parametrize("changes", FORMATS, ids=NAMES)
async def test_workers_that_flood_keep_neither_neighbours_nor_the_supervisor_from_their_work(
    host: RunningSupervisor, tmp_path: Path, changes: dict[str, Any]
) -> None:
    flooders = [Key("flood", slot, 1) for slot in (1, 2)]
    for key in flooders:
        await host.run(python(FLOOD, tmp_path, log_max_bytes=200_000, log_files=2, **changes), key)
    (tmp_path / "n").mkdir()
    await host.run(python(COUNT, tmp_path / "n", log_max_bytes=10_000_000, **changes), KEY)
    for restarts in range(3):
        before = host.workers[KEY]
        count = len(printed(host))
        await eventually(lambda: len(printed(host)) > count + 100, "the neighbour's lines arrive")  # noqa: B023
        os.kill(before.pid, signal.SIGKILL)
        again = await host.until(lambda seen: seen.pid not in (0, before.pid))  # noqa: B023
        assert again.restarts == restarts + 1
        await host.run(launch("sleep", "1000"), Key("shop", 3, restarts + 1))
    memory = Path(f"/proc/{host.pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", memory)
    assert peak is not None
    assert int(peak[1]) < 64 * 1024
    for key in flooders:
        assert alive(host.workers[key].pid)
        size = sum(path.stat().st_size for path in (host.log_dir / "flood").glob(f"{key.slot}.out.log.[12]"))
        assert size < 40_000_000
