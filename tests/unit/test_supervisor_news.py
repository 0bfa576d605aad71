"""When the agent is told of what."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from fleet_agent.supervisor import life as lives
from fleet_agent.supervisor.life import Life
from fleet_agent.supervisor.loop import Loop, now
from fleet_agent.supervisor.news import WITHDRAWAL_SECONDS, News
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


def _after_a_crash(told: _Told) -> Life:
    """A worker with a port ended, and that is told. Returns the life of its next process, which is not."""
    life = _running(replace(_LAUNCH, port=3000), 41)
    ended, _ = lives.ended(life, "killed by SIGKILL", 2.0, 0.5)
    told.news.changed(ended, life)
    assert told.pids == [0]
    return lives.started(ended, 42, 8, 2.0)


def test_what_starts_after_a_crash_is_told_when_the_balancers_had_their_time(loop: Loop) -> None:
    told = _Told(loop)
    began = now()
    told.news.changed(_after_a_crash(told), None)
    loop.at(began + 10.0, loop.stop)
    told.on_news = loop.stop
    loop.run()
    assert told.pids == [0, 42]
    assert WITHDRAWAL_SECONDS <= now() - began < 10.0


def test_whatever_else_is_news_meanwhile_takes_what_waits_along(loop: Loop) -> None:
    told = _Told(loop)
    started = _after_a_crash(told)
    told.news.changed(started, None)
    ready, _ = lives.note(started, 42, ready=True, by=started.launch.ready_by)
    told.news.changed(ready, started)
    loop.at(0.0, loop.stop)
    loop.run()
    assert told.pids == [0, 42, 42]


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
