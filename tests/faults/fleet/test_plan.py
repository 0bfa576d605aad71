"""The plan of faults: the same for the same seed, and rich enough to be worth its name."""

from itertools import islice

from tests.faults.fleet.plan import Blow, Command, Episode, episodes
from tests.faults.fleet.topologies import WIDE as TOPOLOGY


def first(seed: int, count: int) -> list[Episode]:
    return list(islice(episodes(seed, "my-app", TOPOLOGY), count))


def test_a_seed_names_one_plan() -> None:
    assert first(7, 10) == first(7, 10)
    assert first(7, 10) != first(8, 10)


def test_sixty_episodes_of_any_seed_hold_every_kind_of_fault_and_operation() -> None:
    for seed in range(10):
        actions = [action for episode in first(seed, 60) for action in episode.actions]
        kinds = {action.kind for action in actions if isinstance(action, Blow)}
        assert kinds == {
            *("kill", "restart", "halt", "slow", "partition"),
            *("worker killed", "freeze", "reboot", "power cut"),
        }
        commands = {action.argv[0] for action in actions if isinstance(action, Command)}
        assert commands == {"soft-restart", "set-size", "env-set", "host"}


def test_a_host_that_is_drained_is_opened_again_and_at_most_one_host_is_gone_at_a_time() -> None:
    for episode in first(3, 200):
        drained = [a.argv[2] for a in episode.actions if isinstance(a, Command) and a.argv[:2] == ("host", "drain")]
        assert [argv[2] for argv in episode.afterwards] == drained
        gone = [a for a in episode.actions if isinstance(a, Blow) and a.kind in ("power cut", "reboot", "freeze")]
        assert sum(blow.machine in TOPOLOGY.workers for blow in gone) <= 1
        assert sum(blow.machine not in TOPOLOGY.workers for blow in gone) <= 1


def test_no_two_settings_of_a_variable_are_alike() -> None:
    values = [
        action.argv[2]
        for episode in first(5, 200)
        for action in episode.actions
        if isinstance(action, Command) and action.argv[0] == "env-set"
    ]
    assert len(values) > 20
    assert len(set(values)) == len(values)
