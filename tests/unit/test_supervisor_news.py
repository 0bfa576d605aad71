"""When the agent is told of what."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from fleet_agent.supervisor import life as lives
from fleet_agent.supervisor.life import Life
from fleet_agent.supervisor.loop import Loop
from fleet_agent.supervisor.news import News
from fleet_agent.supervisor.protocol import Key, Launch

_LAUNCH = Launch(argv=["true"], cwd="/", env={})


@pytest.fixture
def loop() -> Iterator[Loop]:
    with closing(Loop()) as made:
        yield made


class _Told:
    """The pids told, in their order."""

    def __init__(self, loop: Loop, *, busy: bool = False) -> None:
        self.pids: list[int] = []
        self.busy = busy
        self.news = News(loop, self._take, lambda: self.busy)

    def _take(self, message: Mapping[str, Any]) -> None:
        self.pids.append(message["worker"]["pid"])


def _running(launch: Launch, pid: int) -> Life:
    life, _ = lives.begin(Key("shop", 1, 1), launch)
    return lives.started(life, pid, 7, 1.5)


@pytest.mark.parametrize("port", ["port", "listen_port"])
def test_the_end_of_a_worker_with_a_port_is_told_before_anything_is_started(loop: Loop, port: str) -> None:
    told = _Told(loop, busy=True)
    life = _running(replace(_LAUNCH, **{port: 3000}), 41)
    ended, _ = lives.ended(life, "killed by SIGKILL", 2.0, 0.5)
    told.news.changed(life, None)
    told.news.changed(ended, life)
    assert told.pids == [41, 0]


def test_whatever_else_is_told_after_what_is_started(loop: Loop) -> None:
    told = _Told(loop, busy=True)
    life = _running(_LAUNCH, 41)
    ended, _ = lives.ended(life, "killed by SIGKILL", 2.0, 0.5)
    told.news.changed(ended, life)
    assert told.pids == []

    def started() -> None:
        told.busy = False
        told.news.changed(lives.started(ended, 42, 8, 2.0), None)

    loop.soon(started)
    loop.soon(loop.stop)
    loop.at(0.0, lambda: None)
    loop.run()
    assert told.pids == [0, 42]
