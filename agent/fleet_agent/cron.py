"""When a crontab(5) time was last due and is due next, in this host's local time, and what a jump of its clock makes of that.

Pure but for the time zone.
"""

import math
from collections import deque
from datetime import datetime, timedelta

_SECOND = timedelta(seconds=1)
_CORRECTION_SECONDS = 3 * 3600.0
"""A clock set by less leaves out times, or shows them again; one set by more was wrong before (cron(8), Debian)."""
_STEP_SECONDS = 0.001
"""Both clocks are kept right together (clock_gettime(2)): a greater difference between two looks is a step."""
_STEPS_REMEMBERED = 16


class CronClock:
    """Tells when a cron time was due, in seconds since boot, although the wall clock may be set meanwhile.

    Set forward, it leaves times out: they are due at that moment. Set back, it shows times again: they are not due again. What it
    knows of that ends with the process.
    """

    def __init__(self) -> None:
        self._wall, self._boot = math.inf, 0.0
        self._past: deque[tuple[float, float | None, float]] = deque(maxlen=_STEPS_REMEMBERED)
        """Of times up to the first, and after the one before: by how much the wall clock was ahead of the time since boot; or
        None, and when all of them were due, in seconds since boot."""

    def read(self, wall: float, boot: float) -> None:
        """Both clocks, at one moment; to be called again and again, and at every cron time."""
        expected = self._wall + (boot - self._boot)
        latest = self._past[-1][0] if self._past else -math.inf
        if math.isfinite(expected) and abs(wall - expected) > _STEP_SECONDS and wall - expected <= _CORRECTION_SECONDS:
            if expected > latest:
                self._past.append((expected, expected - boot, 0.0))
                latest = expected
            if wall > latest:
                self._past.append((wall, None, boot))
                latest = wall
        if wall < latest - _CORRECTION_SECONDS:
            self._past.clear()
        self._wall, self._boot = wall, boot

    def since_boot(self, time: float) -> float:
        """When a time of the wall clock that has come was due, in seconds since boot."""
        for until, offset, boot in self._past:
            if time <= until:
                return boot if offset is None else time - offset
        return time - (self._wall - self._boot)


def cron_times(expression: str, now: float) -> tuple[float, float]:
    """(last time it was due, `now` included; next one), as seconds since 1970; infinite where there is none (30 February).

    Local times are compared without their offset, so that a time the clock shows twice is due once, and one it leaves out is
    due at the change.
    """
    from croniter import CroniterBadDateError, croniter  # 2 MiB that most hosts do not need

    local = datetime.fromtimestamp(math.floor(now))
    try:
        last = croniter(expression, local + _SECOND).get_prev(datetime)
        following = croniter(expression, local).get_next(datetime)
    except CroniterBadDateError:
        return -math.inf, math.inf
    return last.timestamp(), following.timestamp()
