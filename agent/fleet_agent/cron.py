"""When a crontab(5) time was last due and is due next, in this host's local time. Pure but for the time zone."""

import math
from datetime import datetime, timedelta

_SECOND = timedelta(seconds=1)


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
