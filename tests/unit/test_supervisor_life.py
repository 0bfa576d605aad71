"""A worker's life, told event by event."""

from dataclasses import replace

import pytest

from fleet_agent.supervisor import life as lives
from fleet_agent.supervisor.life import SIGKILL, Ask, Life, Signal, Start
from fleet_agent.supervisor.protocol import Key, Launch

KEY = Key("shop", 1, 1)
LAUNCH = Launch(
    ["server"],
    "/",
    {},
    stop_signal=15,
    grace_seconds=10,
    backoff_initial_seconds=1,
    backoff_max_seconds=8,
    max_restarts=6,
    window_seconds=100,
    stable_seconds=10,
)


def alive(now: float = 0.0, launch: Launch = LAUNCH) -> Life:
    return lives.started(lives.begin(KEY, launch)[0], 100, 7, now)


def ready(now: float = 0.0) -> Life:
    return lives.note(alive(now), 100, ready=True)[0]


def test_a_new_worker_is_started_at_once() -> None:
    life, effects = lives.begin(KEY, LAUNCH)
    assert (life.state, effects) == ("starting", (Start(),))


def test_the_first_crash_is_followed_by_a_start_at_once_and_loses_readiness() -> None:
    life, effects = lives.ended(ready(), "exit code 1", 20.0, 0.0)
    assert effects == (Start(),)
    assert (life.state, life.pid, life.restarts, life.reason, life.ever_ready) == (
        "starting",
        0,
        1,
        "exit code 1",
        False,
    )


def test_crashes_in_a_row_wait_longer_and_longer_up_to_the_limit() -> None:
    life, now, pauses = alive(), 0.0, []
    for _ in range(6):
        life, effects = lives.ended(life, "exit code 1", now, 0.0)
        if effects != (Start(),):
            assert life.state == "backoff"
            assert life.deadline is not None
            pauses.append(life.deadline - now)
            now = life.deadline
            assert lives.due(life, now - 0.001) == (life, ())
            life, effects = lives.due(life, now)
            assert effects == (Start(),)
        life = lives.started(life, 100, 7, now)
    assert pauses == [1, 2, 4, 8, 8]


def test_jitter_shortens_a_pause_by_up_to_half() -> None:
    life, _ = lives.ended(alive(), "exit code 1", 0.0, 0.0)
    life, _ = lives.ended(lives.started(life, 101, 7, 0.0), "exit code 1", 0.0, 0.999)
    assert life.deadline == pytest.approx(0.5005)


def test_a_stable_run_makes_the_next_crash_a_first_one_again() -> None:
    life, _ = lives.ended(alive(), "exit code 1", 0.0, 0.0)
    life, effects = lives.ended(lives.started(life, 101, 7, 1.0), "exit code 1", 11.0, 0.0)
    assert effects == (Start(),)
    assert life.restarts == 2


def test_more_restarts_than_allowed_in_the_window_end_in_failed() -> None:
    life = alive(launch=replace(LAUNCH, max_restarts=1))
    life, _ = lives.ended(life, "exit code 1", 0.0, 0.0)
    life, effects = lives.ended(lives.started(life, 101, 7, 0.0), "exit code 1", 1.0, 0.0)
    assert (life.state, effects) == ("failed", ())
    assert life.reason == "exit code 1; given up after 1 restarts in 100 s"


def test_a_failed_worker_stays_failed_until_it_is_given_another_launch() -> None:
    life = alive(launch=replace(LAUNCH, max_restarts=0))
    failed, _ = lives.ended(life, "exit code 1", 0.0, 0.0)
    assert lives.run(failed, replace(LAUNCH, max_restarts=0)) == (failed, ())
    again, effects = lives.run(failed, LAUNCH)
    assert (again.state, again.restarts, effects) == ("starting", 0, (Start(),))


def test_run_again_leaves_a_running_process_alone_and_counts_from_the_next_start() -> None:
    other = replace(LAUNCH, argv=["other"])
    life, effects = lives.run(ready(), other)
    assert effects == ()
    assert (life.launch, life.state) == (LAUNCH, "running")
    life, _ = lives.ended(life, "killed by SIGKILL", 1.0, 0.0)
    assert lives.started(life, 101, 7, 1.0).launch == other


def test_stop_signals_waits_the_grace_and_then_kills() -> None:
    life, effects = lives.stop(ready(), 15, 10, 100.0)
    assert (life.state, life.deadline, effects) == ("stopping", 110.0, (Signal(15),))
    life, effects = lives.due(life, 110.0)
    assert effects == (Signal(SIGKILL),)
    assert life.killed
    life, effects = lives.ended(life, "killed by SIGKILL", 110.1, 0.0)
    assert (life.state, life.reason, effects) == ("exited", "killed by SIGKILL", ())


def test_a_repeated_stop_sends_no_second_signal_and_never_extends_the_grace() -> None:
    life, _ = lives.stop(ready(), 15, 10, 100.0)
    assert lives.stop(life, 15, 10, 105.0) == (life, ())
    sooner, effects = lives.stop(life, 15, 0, 105.0)
    assert (sooner.deadline, effects) == (105.0, ())


def test_a_worker_in_backoff_that_is_stopped_is_exited_and_never_starts() -> None:
    life, _ = lives.ended(alive(), "exit code 1", 0.0, 0.0)
    life, _ = lives.ended(lives.started(life, 101, 7, 0.0), "exit code 1", 0.0, 0.0)
    life, effects = lives.stop(life, 15, 10, 0.1)
    assert (life.state, life.deadline, effects) == ("exited", None, ())


def test_a_worker_that_shall_run_again_while_it_stops_starts_after_its_end_and_counts_no_restart() -> None:
    life, _ = lives.stop(ready(), 15, 10, 0.0)
    life, effects = lives.run(life, LAUNCH)
    assert (life.state, effects) == ("stopping", ())
    life, effects = lives.ended(life, "exit code 0", 1.0, 0.0)
    assert (life.state, life.restarts, effects) == ("starting", 0, (Start(),))


def test_a_given_up_process_goes_down_the_ladder_and_counts_as_a_crash() -> None:
    life, effects = lives.fail(ready(), 100, "no answer on /health", 50.0)
    assert (life.state, life.deadline, effects) == ("stopping", 60.0, (Signal(15),))
    life, effects = lives.ended(life, "killed by SIGTERM", 51.0, 0.0)
    assert effects == (Start(),)
    assert (life.state, life.reason, life.restarts) == ("starting", "no answer on /health", 1)


def test_stop_takes_over_from_fail() -> None:
    life, _ = lives.fail(ready(), 100, "no answer", 50.0)
    life, effects = lives.stop(life, 15, 5, 51.0)
    assert (life.deadline, effects) == (56.0, ())
    assert lives.ended(life, "killed by SIGTERM", 52.0, 0.0)[0].state == "exited"


def test_notes_move_between_starting_running_and_unready() -> None:
    assert lives.note(alive(), 100, ready=False)[0].state == "starting"
    life = ready()
    assert (life.state, life.ever_ready) == ("running", True)
    life, _ = lives.note(life, 100, ready=False)
    assert (life.state, life.ever_ready) == ("unready", True)
    assert lives.note(life, 100, ready=True)[0].state == "running"


@pytest.mark.parametrize("pid", [0, 99])
def test_a_finding_about_another_process_means_nothing(pid: int) -> None:
    assert lives.note(alive(), pid, ready=True) == (alive(), ())
    assert lives.fail(alive(), pid, "x", 0.0) == (alive(), ())
    waiting = lives.ended(alive(), "exit code 1", 0.0, 0.0)[0]
    assert lives.note(waiting, pid, ready=True) == (waiting, ())


def test_after_a_reboot_what_was_wanted_starts_and_what_was_not_is_exited() -> None:
    life, effects = lives.resume(ready(), 5.0)
    assert (life.state, life.pid, life.restarts, effects) == ("starting", 0, 0, (Start(),))
    stopping, _ = lives.stop(ready(), 15, 10, 0.0)
    assert lives.resume(stopping, 5.0)[0].state == "exited"


def test_a_pause_taken_over_never_lasts_longer_than_the_longest_one() -> None:
    waiting = lives.begin(KEY, LAUNCH)[0]._replace(state="backoff", deadline=1e9)
    assert lives.resume(waiting, 5.0)[0].deadline == 13.0


ASKED = replace(LAUNCH, channel=True, shutdown_message=True)


def test_a_program_that_takes_the_shutdown_message_has_half_the_grace_before_the_signal() -> None:
    life, effects = lives.stop(alive(launch=ASKED), 15, 10, 100.0)
    assert (life.state, effects) == ("stopping", (Ask(),))
    assert lives.due(life, 104.9) == (life, ())
    life, effects = lives.due(life, 105.0)
    assert (effects, life.deadline, life.killed) == ((Signal(15),), 110.0, False)
    life, effects = lives.due(life, 110.0)
    assert (effects, life.killed) == ((Signal(SIGKILL),), True)


def test_a_message_that_nobody_takes_is_followed_by_the_signal_at_once_with_the_whole_grace() -> None:
    life, _ = lives.stop(alive(launch=ASKED), 15, 10, 100.0)
    life, effects = lives.unheard(life, 100.0)
    assert (effects, life.deadline, life.unsent) == ((Signal(15),), 110.0, 0)
    assert lives.unheard(life, 101.0) == (life, ())


def test_a_second_stop_without_grace_ends_the_wait_for_the_message() -> None:
    life, _ = lives.stop(alive(launch=ASKED), 15, 10, 100.0)
    life, effects = lives.stop(life, 15, 0, 101.0)
    assert effects == ()
    life, effects = lives.due(life, 101.0)
    assert effects == (Signal(15),)
    assert lives.due(life, 101.0)[1] == (Signal(SIGKILL),)


def test_the_first_word_of_being_ready_counts_only_from_whom_the_launch_names() -> None:
    starting = alive(launch=replace(LAUNCH, notify=True, ready_by="notify"))
    assert lives.note(starting, 100, ready=True) == (starting, ())
    assert lives.note(starting, 100, ready=True, by="message") == (starting, ())
    running, _ = lives.note(starting, 100, ready=True, by="notify")
    assert running.state == "running"
    unready, _ = lives.note(running, 100, ready=False)
    assert lives.note(unready, 100, ready=True)[0].state == "running"


def test_what_a_process_said_of_itself_ends_with_it() -> None:
    life, _ = lives.status(alive(), 100, "loading")
    assert lives.report(life).status_text == "loading"
    assert lives.status(life, 99, "of another") == (life, ())
    assert lives.ended(life, "exit code 1", 1.0, 0.0)[0].status_text == ""


def test_a_missed_watchdog_is_told_with_its_own_signal() -> None:
    life, effects = lives.fail(ready(), 100, "watchdog: nothing heard for 5 s", 20.0, 6)
    assert (life.state, life.reason, effects) == ("stopping", "watchdog: nothing heard for 5 s", (Signal(6),))


@pytest.mark.parametrize(
    ("mode", "exit_code", "state"),
    [
        ("always", 0, "starting"),
        ("always", 1, "starting"),
        ("always", None, "starting"),
        ("always", 42, "exited"),
        ("on_failure", 0, "exited"),
        ("on_failure", 1, "starting"),
        ("on_failure", None, "starting"),
        ("on_failure", 42, "exited"),
        ("never", 0, "exited"),
        ("never", 1, "failed"),
        ("never", None, "failed"),
        ("never", 42, "exited"),
    ],
)
def test_the_restart_mode_and_the_stop_exit_codes_decide_what_follows_an_end(
    mode: str, exit_code: int | None, state: str
) -> None:
    launch = replace(LAUNCH, restart_mode=mode, stop_exit_codes=[42])
    life, effects = lives.ended(alive(launch=launch), "as it ended", 1.0, 0.0, exit_code)
    assert (life.state, effects) == (state, (Start(),) if state == "starting" else ())
    assert life.reason == "as it ended"


def test_what_exited_for_good_comes_back_only_under_another_launch_or_after_a_stop() -> None:
    launch = replace(LAUNCH, restart_mode="never")
    life, _ = lives.ended(alive(launch=launch), "exit code 0", 1.0, 0.0, 0)
    assert lives.run(life, launch) == (life, ())
    assert lives.run(life, replace(launch, argv=["other"]))[1] == (Start(),)
    stopped, effects = lives.stop(life, 15, 10, 2.0)
    assert (stopped.state, effects) == ("exited", ())
    assert lives.run(stopped, launch)[1] == (Start(),)


def test_a_process_given_up_by_its_checks_is_a_failure_whatever_its_exit_code() -> None:
    launch = replace(LAUNCH, restart_mode="on_failure")
    life, _ = lives.fail(alive(launch=launch), 100, "no answer", 1.0)
    assert lives.ended(life, "exit code 0", 2.0, 0.0, 0)[1] == (Start(),)


def test_what_ran_before_the_machine_started_anew_is_not_started_under_never() -> None:
    launch = replace(LAUNCH, restart_mode="never")
    assert lives.resume(alive(launch=launch), 5.0)[0].state == "exited"
    assert lives.resume(lives.begin(KEY, launch)[0], 5.0)[1] == (Start(),)
