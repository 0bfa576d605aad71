"""The model that plays the controller."""

from tests.faults.evidence import Key
from tests.faults.wishes import RUN, STOP, Wishes


def test_a_replacement_stops_the_old_once_the_new_is_ready_and_drops_it_once_it_exited() -> None:
    wishes = Wishes({"plain": 1})
    old, new = Key("plain", 1, 1), Key("plain", 1, 2)
    wishes.replace("plain", 0.0)
    assert wishes.targets == {old: RUN, new: RUN}
    assert not wishes.observe({old: "READY", new: "STARTING"})
    assert wishes.settled is None
    wishes.observe({old: "READY", new: "READY"})
    assert wishes.targets == {old: STOP, new: RUN}
    wishes.observe({old: "EXITED", new: "READY"})
    assert wishes.settled == {new}


def test_no_generation_comes_back() -> None:
    wishes = Wishes({"plain": 2})
    wishes.resize("plain", 1)
    wishes.observe({Key("plain", 1, 1): "READY", Key("plain", 2, 1): "EXITED"})
    wishes.resize("plain", 2)
    assert wishes.settled == {Key("plain", 1, 1), Key("plain", 2, 2)}
