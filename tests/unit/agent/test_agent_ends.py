"""Ends of real processes, as the kernel tells them."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_agent.ends import EndWatch
from fleet_agent.supervisor.protocol import Key, Launch, Worker

_KEY, _OTHER = Key("shop", 1, 1), Key("shop", 2, 1)


class Ends:
    """What was called back."""

    def __init__(self) -> None:
        self.seen: list[tuple[Key, int]] = []
        self._news = asyncio.Event()

    def __call__(self, key: Key, pid: int) -> None:
        self.seen.append((key, pid))
        self._news.set()

    async def next(self) -> None:
        async with asyncio.timeout(10):
            await self._news.wait()
        self._news.clear()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as started:
        yield started
        started.kill()


def worker(pid: int, key: Key = _KEY, *, port: int = 20_001, state: str = "running") -> Worker:
    return Worker(key, Launch(argv=["sleep"], cwd="/", env={}, port=port), state, pid=pid)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_an_end_is_told_once(process: subprocess.Popen[bytes]) -> None:
    ends = Ends()
    before = descriptors()
    with closing(EndWatch(ends)) as watch:
        workers = {_KEY: worker(process.pid)}
        watch.watch(workers)
        watch.watch(workers)
        process.kill()
        await ends.next()
        watch.watch(workers)
        process.wait()
        watch.watch({_KEY: replace(workers[_KEY], state="unready"), _OTHER: worker(os.getpid(), _OTHER)})
        assert ends.seen == [(_KEY, process.pid)]
    assert descriptors() == before


async def test_who_ended_before_anybody_looked_is_told_too(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    ends = Ends()
    with closing(EndWatch(ends)) as watch:
        watch.watch({_KEY: worker(process.pid)})
        assert ends.seen == [], "whoever looks is not called back meanwhile"
        await ends.next()
    assert ends.seen == [(_KEY, process.pid)]


async def test_the_next_process_of_a_worker_is_watched_in_its_turn(process: subprocess.Popen[bytes]) -> None:
    ends = Ends()
    with closing(EndWatch(ends)) as watch, subprocess.Popen(["sleep", "60"]) as following:
        watch.watch({_KEY: worker(process.pid)})
        watch.watch({_KEY: worker(following.pid)})
        process.kill()
        process.wait()
        following.kill()
        await ends.next()
    assert ends.seen == [(_KEY, following.pid)]


@pytest.mark.parametrize(
    "one", [worker(1, port=0), worker(1, state="starting"), worker(1, state="stopping"), worker(0)]
)
async def test_whom_no_balancer_sends_anything_is_not_watched(one: Worker) -> None:
    before = descriptors()
    with closing(EndWatch(Ends())) as watch:
        watch.watch({_KEY: one})
        assert descriptors() == before


async def test_without_descriptors_the_supervisors_word_must_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    ends = Ends()
    with closing(EndWatch(ends)) as watch:
        watch.watch({_KEY: worker(os.getpid())})
        await asyncio.sleep(0)
    assert ends.seen == []
