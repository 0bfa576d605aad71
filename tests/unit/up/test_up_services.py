"""When a daemon is started again."""

from fleetctl.up.services import STABLE_SECONDS, Life, Phase


def test_a_daemon_that_ran_well_is_started_again_at_once() -> None:
    life = Life()
    life.started(now=100.0)
    life.ready()
    assert life.ended(now=100.0 + STABLE_SECONDS) == 0.0


def test_one_that_keeps_ending_quickly_waits_longer_each_time_and_is_never_given_up() -> None:
    life = Life()
    delays = []
    for now in range(1000):
        life.started(float(now))
        delays.append(life.ended(now + 0.5))
    assert delays[0] == 0.0
    assert delays == sorted(delay for delay in delays if delay is not None)
    assert delays[-1] == 5.0


def test_a_stable_run_makes_the_next_restart_immediate_again() -> None:
    life = Life()
    for now in (0.0, 1.0, 2.0):
        life.started(now)
        life.ended(now + 0.1)
    life.started(10.0)
    assert life.ended(10.0 + STABLE_SECONDS) == 0.0


def test_one_that_was_told_to_stop_stays_down() -> None:
    life = Life()
    life.started(0.0)
    life.stopping()
    assert life.ended(1.0) is None
    assert life.phase is Phase.DOWN


def test_one_that_waits_for_its_restart_is_down_once_told_to_stop() -> None:
    life = Life()
    life.started(0.0)
    life.ended(0.1)
    life.stopping()
    assert life.phase is Phase.DOWN


def test_a_late_word_of_readiness_does_not_bring_a_stopping_daemon_back() -> None:
    life = Life()
    life.started(0.0)
    life.stopping()
    life.ready()
    assert life.phase is Phase.STOPPING


def test_a_restarted_daemon_is_ready_only_when_it_says_so_again() -> None:
    life = Life()
    life.started(0.0)
    life.ready()
    life.ended(20.0)
    life.started(20.0)
    assert life.phase is Phase.STARTING
    assert life.ever_ready


def test_an_adopted_daemon_counts_as_ready() -> None:
    life = Life()
    life.adopted(5.0)
    assert life.phase is Phase.READY
