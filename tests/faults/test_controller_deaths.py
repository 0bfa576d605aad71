"""The controller is killed in the middle of rollouts; `make faults-controller` does it thirty times."""

from pathlib import Path

from tests.faults.controller_deaths import run, schedule
from tests.integration.fleet.harness import Fleet


def test_the_next_leader_finishes_what_the_killed_one_began(tmp_path: Path) -> None:
    """Guards invariants 1, 2, 3, 5 and 6."""
    with Fleet(tmp_path / "fleet") as fleet:
        fleet.start()
        assert run(fleet, schedule(seed=4, deaths=4)) == []


def test_a_seed_gives_the_same_deaths() -> None:
    assert schedule(7, 30) == schedule(7, 30)
    assert len({death.command[0] for death in schedule(7, 30)}) == 3
