"""One thread, one epoll(7): calls back when descriptors are ready and when times have come.

Idle costs nothing: with no deadline pending the wait has no end.
"""

import heapq
import itertools
import select
import time
from collections.abc import Callable
from typing import NamedTuple

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANG_UP = select.EPOLLHUP
_MAX_EVENTS = 256

Ready = Callable[[int], None]


def now() -> float:
    """CLOCK_BOOTTIME seconds: they run on through suspend and mean the same in every process of this boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Timer:
    """A callback at a time; `cancel` may be called at any time, again and again."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    @property
    def cancelled(self) -> bool:
        return self._callback is None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class _Watched(NamedTuple):
    callback: Ready
    bulk: bool
    since: int
    """The turn in which it was registered."""


class Loop:
    """Owns the epoll descriptor, not those registered with it."""

    def __init__(self) -> None:
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._watched: dict[int, _Watched] = {}
        self._turn_number = 0
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._soon: list[Callable[[], None]] = []
        self._stopped = False

    def close(self) -> None:
        self._epoll.close()

    def watch(self, descriptor: int, events: int, callback: Ready, *, bulk: bool = False) -> None:
        """Call `callback(events)` while any of `events`, or a hang-up, is so. `bulk` ones have their turn last."""
        self._epoll.register(descriptor, events)
        self._watched[descriptor] = _Watched(callback, bulk, self._turn_number)

    def change(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)

    def unwatch(self, descriptor: int) -> None:
        """To be called before the descriptor is closed: a copy in a child would keep it registered (epoll(7), Q6)."""
        if self._watched.pop(descriptor, None):
            self._epoll.unregister(descriptor)

    def at(self, when: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def soon(self, callback: Callable[[], None]) -> None:
        """At the end of this turn, in the order of asking: what many events of a turn want done can then be done at once."""
        self._soon.append(callback)

    def stop(self) -> None:
        """Return from `run` after the present turn."""
        self._stopped = True

    def run(self) -> None:
        while not self._stopped:
            self._turn()

    def _turn(self) -> None:
        events = self._epoll.poll(self._seconds_to_wait(), _MAX_EVENTS)
        self._turn_number += 1
        bulk = []
        for descriptor, mask in events:
            watched = self._watched.get(descriptor)
            if watched is not None and watched.bulk:
                bulk.append((descriptor, mask))
            else:
                self._call(descriptor, mask)
        self._fire()
        while self._soon:
            asked, self._soon = self._soon, []
            for callback in asked:
                callback()
        for descriptor, mask in bulk:
            self._call(descriptor, mask)

    def _call(self, descriptor: int, mask: int) -> None:
        """An event of this turn may be about a closed descriptor whose number was given out again meanwhile."""
        watched = self._watched.get(descriptor)
        if watched is not None and watched.since < self._turn_number:
            watched.callback(mask)

    def _seconds_to_wait(self) -> float | None:
        if self._soon:
            return 0.0
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - now()) if self._timers else None

    def _fire(self) -> None:
        if not self._timers:
            return
        time_now = now()
        while self._timers and self._timers[0][0] <= time_now:
            heapq.heappop(self._timers)[2].fire()
