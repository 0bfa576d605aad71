"""A worker that promised to be heard from every so often (WatchdogSec= of systemd.service(5))."""

from collections.abc import Callable

from fleet_agent.supervisor.loop import Loop, Timer, now

_SECOND_LOOK_SECONDS = 0.25
"""Timers fire before messages are read: after a stall of this process the worker's word may wait in the socket."""


class Watchdog:
    """Calls `missed` once nothing was heard for `seconds`. Without `arm` it has no timer; hearing moves none."""

    def __init__(self, loop: Loop, seconds: float, missed: Callable[[], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._missed = missed
        self._heard = 0.0
        self._timer: Timer | None = None
        self._late = False

    def arm(self) -> None:
        """From now on. May be repeated."""
        if self._timer is None:
            self._heard = now()
            self._timer = self._loop.at(self._heard + self._seconds, self._look)

    def heard(self) -> None:
        self._heard = now()

    def close(self) -> None:
        """May be repeated."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        time_now, due = now(), self._heard + self._seconds
        if time_now < due:
            self._late = False
            self._timer = self._loop.at(due, self._look)
        elif not self._late:
            self._late = True
            self._timer = self._loop.at(time_now + _SECOND_LOOK_SECONDS, self._look)
        else:
            self._missed()
