"""What the agent is told of the workers.

It comes after all that is to be started has become its program: nobody shall wait for a process until a text is made, and its
reader, when it wakes, may take the processor for a millisecond or more. Nor has an end any hurry: the agent sees it itself.
"""

from collections.abc import Callable, Mapping
from typing import Any

from fleet_agent.supervisor.life import Life, report
from fleet_agent.supervisor.loop import Loop, Timer, now
from fleet_agent.supervisor.protocol import Key, worker_to_json

Emit = Callable[[Mapping[str, Any]], None]

_LATEST_SECONDS = 0.005
"""A process that has not become its program by then keeps nobody waiting."""


class News:
    """Told at the end of the turn, or of the next, while `busy` says that there is something to start; while processes are
    `becoming` their programs, soon afterwards."""

    def __init__(self, loop: Loop, emit: Emit, busy: Callable[[], bool], becoming: Callable[[], bool]) -> None:
        self._loop = loop
        self._emit = emit
        self._busy = busy
        self._becoming = becoming
        self._untold: list[Life | Key] = []
        self._asked = False
        self._latest: Timer | None = None

    def changed(self, life: Life, before: Life | None) -> None:
        """None before: tell it anyway."""
        if before is None or life.pid != before.pid or report(life) != report(before):
            self._tell_soon(life)

    def forgotten(self, key: Key) -> None:
        self._tell_soon(key)

    def became(self) -> None:
        """Nothing is becoming its program any more."""
        if self._latest is not None:
            self._tell_all()

    def _tell_soon(self, news: Life | Key) -> None:
        self._untold.append(news)
        if not self._asked:
            self._asked = True
            self._loop.soon(self._tell_rest)

    def _tell_rest(self) -> None:
        if not self._asked:
            return  # all that was to be told is told
        if self._busy():
            self._loop.soon(self._tell_rest)
        elif self._untold and self._becoming():
            if self._latest is None:
                self._latest = self._loop.at(now() + _LATEST_SECONDS, self._tell_all)
        else:
            self._tell_all()

    def _tell_all(self) -> None:
        if self._latest is not None:
            self._latest.cancel()
            self._latest = None
        self._asked = False
        untold, self._untold = self._untold, []
        for news in untold:
            if isinstance(news, Life):
                self._emit({"event": "worker", "worker": worker_to_json(report(news))})
            else:
                self._emit({"event": "removed", "key": news._asdict()})
