"""When the agent is told of what."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest

from fleet_agent.supervisor import life as lives
from fleet_agent.supervisor.life import Life
from fleet_agent.supervisor.loop import Loop, now
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
        self.becoming = False
        self.on_news: Callable[[], None] = lambda: None
        self.news = News(loop, self._take, lambda: self.busy, lambda: self.becoming)

    def _take(self, message: Mapping[str, Any]) -> None:
        self.pids.append(message["worker"]["pid"])
        self.on_news()


def _running(launch: Launch, pid: int) -> Life:
    life, _ = lives.begin(Key("shop", 1, 1), launch)
    return lives.started(life, pid, 7, 1.5)


def test_news_come_after_what_is_to_be_started(loop: Loop) -> None:
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


def test_a_start_is_told_once_the_process_has_become_its_program(loop: Loop) -> None:
    told = _Told(loop)
    told.becoming = True
    told.news.changed(_running(_LAUNCH, 41), None)

    def become() -> None:
        assert told.pids == []
        told.becoming = False
        told.news.became()
        loop.stop()

    loop.soon(lambda: loop.soon(become))
    loop.at(0.0, lambda: None)
    loop.run()
    assert told.pids == [41]


def test_a_process_that_does_not_become_its_program_keeps_no_news_back(loop: Loop) -> None:
    told = _Told(loop)
    told.becoming = True
    told.news.changed(_running(_LAUNCH, 41), None)
    loop.soon(lambda: loop.at(now() + 0.05, loop.stop) and None)
    loop.at(0.0, lambda: None)
    loop.run()
    assert told.pids == [41]
    told.news.became()
    assert told.pids == [41]
