"""How fast sessions may begin."""

import asyncio

import pytest

from fleet_controller.admission import Admission, Crowded


async def test_who_comes_alone_does_not_wait() -> None:
    admission = Admission(per_second=0.001)
    await asyncio.wait_for(admission.turn(), 1.0)


async def test_a_crowd_is_let_in_one_after_another() -> None:
    admission = Admission(per_second=100.0, longest_wait=10.0)
    clock = asyncio.get_running_loop().time
    began = clock()
    times: list[float] = []

    async def come() -> None:
        await admission.turn()
        times.append(clock() - began)

    await asyncio.gather(*(come() for _ in range(20)))
    # A timer may come late, never early (but for the clock's resolution).
    assert all(time >= number / 100 - 0.005 for number, time in enumerate(times))


async def test_who_would_wait_too_long_is_sent_away_at_once_and_takes_no_turn() -> None:
    admission = Admission(per_second=1.0, longest_wait=1.5)
    waiting = [asyncio.ensure_future(admission.turn()) for _ in range(2)]
    await asyncio.sleep(0)
    for _ in range(100):
        with pytest.raises(Crowded):
            await admission.turn()
    await asyncio.wait_for(asyncio.gather(*waiting), 5.0)
    await asyncio.wait_for(admission.turn(), 5.0)
