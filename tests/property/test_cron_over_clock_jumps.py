"""Cron restarts while the host's clock is set forward and back: no time twice, none left out."""

import math

from hypothesis import given
from hypothesis import strategies as st

from fleet_agent.cron import CronClock

_HOUR = 3600.0
_BEGIN = 490_000 * _HOUR + 1_800
_LOOK_SECONDS = 120.0


def last_hour(wall: float) -> float:
    """When `0 * * * *` was due last."""
    return math.floor(wall / _HOUR) * _HOUR


class Host:
    """Looks at its clocks as `Upkeep` does: now and then, and at each cron time. One worker, replaced when it is older."""

    def __init__(self) -> None:
        self.boot = 5_000.0
        self.wall = _BEGIN
        self.latest = _BEGIN
        self.started = self.boot - 1
        self.clock = CronClock()
        self.replaced_for: list[float] = []
        self.look()

    def run(self, seconds: float) -> None:
        while seconds > 0:
            step = min(seconds, _LOOK_SECONDS, max(0.001, last_hour(self.wall) + _HOUR - self.wall))
            self.boot += step
            self.wall += step
            seconds -= step
            self.look()

    def set_clock(self, by: float) -> None:
        """Between two looks, a moment after the last one."""
        self.boot += 0.05
        self.wall += 0.05 + by

    def look(self) -> None:
        self.latest = max(self.latest, self.wall)
        self.clock.read(self.wall, self.boot)
        last = last_hour(self.wall)
        if self.started < self.clock.since_boot(last):
            self.replaced_for.append(last)
            self.started = self.boot + 0.01


_JUMPS = st.lists(st.tuples(st.floats(0, 5_400), st.floats(-5_000, 5_000)), max_size=5)


@given(_JUMPS)
def test_no_time_is_due_twice_and_none_is_left_out(jumps: list[tuple[float, float]]) -> None:
    host = Host()
    for seconds, by in jumps:
        # Further back than three hours from the latest time it showed, a clock was wrong before.
        if host.latest - (host.wall + seconds + by) > 10_000:
            continue
        host.run(seconds)
        host.set_clock(by)
        host.look()
    host.run(_LOOK_SECONDS)
    assert host.replaced_for == sorted(set(host.replaced_for))
    newest = last_hour(host.latest)
    assert host.replaced_for[-1:] == ([newest] if newest > _BEGIN else [])


@given(st.floats(4 * 3600, 10 * 365 * 86_400))
def test_a_clock_that_was_far_ahead_is_believed_again_once_it_is_right(ahead: float) -> None:
    host = Host()
    host.set_clock(ahead)
    host.look()
    host.set_clock(-ahead)
    host.look()
    before = len(host.replaced_for)
    host.run(3_600)
    assert len(host.replaced_for) == before + 1


def test_an_hour_that_is_shown_twice_is_due_once_and_one_that_is_skipped_is_due_at_the_change() -> None:
    host = Host()
    host.run(1_801)  # 10:00:01
    assert len(host.replaced_for) == 1
    host.set_clock(-1_200)  # 9:40:01
    host.run(1_300)  # past 10:00 again
    assert len(host.replaced_for) == 1
    host.set_clock(3_500)  # past 11:00
    host.run(60)
    assert len(host.replaced_for) == 2
