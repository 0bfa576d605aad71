"""The schedule of faults: the same for the same seed, and rich enough to be worth its name."""

from tests.faults.schedule import Ambush, Crash, Relapse, Replace, Resize, Strike, schedule


def test_a_seed_names_one_schedule() -> None:
    assert schedule(7, 30) == schedule(7, 30)
    assert schedule(7, 30) != schedule(8, 30)


def test_actions_come_in_order_and_end_in_time() -> None:
    times = [action.at for action in schedule(3, 60)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 60


def test_two_minutes_of_any_seed_holds_every_kind_of_fault() -> None:
    for seed in range(20):
        actions = schedule(seed, 120)
        strikes = {(action.service, action.signal) for action in actions if isinstance(action, Strike)}
        assert strikes >= {("supervisor", "KILL"), ("agent", "KILL")}
        assert {type(action) for action in actions} == {Strike, Crash, Resize, Replace, Ambush, Relapse}
