"""The judge of the journals against the plainest possible judge: look at every instant."""

from hypothesis import given
from hypothesis import strategies as st

from tests.load.journal import Life, Place, doubles, faults, fewest_ready, most_alive

_END = 12
_INSTANTS = [step / 2 for step in range(2 * _END + 1)]
"""Whole numbers, where everything begins and ends, and one instant between each two."""


@st.composite
def _life(draw: st.DrawFn) -> Life:
    started = draw(st.integers(-3, _END + 3))
    listening = draw(st.none() | st.integers(started, _END + 4))
    last_beat = draw(st.integers(listening if listening is not None else started, _END + 6))
    closing = draw(st.none() | st.integers(listening, last_beat)) if listening is not None else None
    return Life(
        pid=draw(st.integers(1, 99)),
        place=Place("app", draw(st.sampled_from(["host1", "host2"])), draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        started=started,
        last_beat=last_beat,
        listening=listening,
        closing=closing,
    )


_lives = st.lists(_life(), max_size=8)


def _ready(life: Life, at: float) -> bool:
    return life.listening is not None and life.listening <= at <= life.ready_until


def _alive(life: Life, at: float) -> bool:
    return life.started <= at <= life.last_beat


@given(_lives)
def test_the_fewest_ready_workers_are_those_of_the_worst_instant(lives: list[Life]) -> None:
    worst = min(sum(_ready(life, at) for life in lives) for at in _INSTANTS)

    assert fewest_ready(lives, 0, _END).count == worst


@given(_lives)
def test_the_most_live_workers_are_those_of_the_fullest_instant(lives: list[Life]) -> None:
    fullest = max(sum(_alive(life, at) for life in lives) for at in _INSTANTS)

    assert most_alive(lives, 0, _END).count == fullest


@given(_lives)
def test_two_processes_are_doubles_when_some_instant_saw_both_as_one_worker(lives: list[Life]) -> None:
    instants = [step / 2 for step in range(-6, 2 * (_END + 6) + 1)]
    seen = sum(
        any(_alive(first, at) and _alive(second, at) for at in instants)
        for index, first in enumerate(lives)
        for second in lives[index + 1 :]
        if first.place == second.place
    )

    assert len(doubles(lives)) == seen


@given(_lives, st.integers(0, 4), st.integers(0, 4))
def test_there_is_no_fault_exactly_when_every_instant_was_right(lives: list[Life], size: int, most: int) -> None:
    hosts = {life.place.host for life in lives}
    right = all(
        sum(_ready(life, at) for life in lives) >= size
        and all(sum(_alive(life, at) for life in lives if life.place.host == host) <= most for host in hosts)
        for at in _INSTANTS
    )

    found = faults(lives, begin=0, end=_END, size=size, most_on_host=lambda _host: most)

    assert (found == []) == (right and not doubles(lives))
