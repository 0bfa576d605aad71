"""What the judge of changes finds, on records made by hand."""

import json
from typing import Any

from fleet_controller.store.interface import Item
from tests.faults.change_judge import Change, Kind, Recorder, judge
from tests.unit.memory_store import MemoryStore

ENV = Change("r1", Kind.ENV, "app0", 0, 1)
SIZE = Change("r2", Kind.SIZE, "app0", 0, 2, amount=1)
LABELS = (Change("r3", Kind.LABEL, "host1", 0, 3), Change("r4", Kind.LABEL, "host1", 0, 4))
CHANGES = (ENV, SIZE, *LABELS)


class Story:
    """Writes as etcd would tell of them."""

    def __init__(self) -> None:
        self.recorder = Recorder(MemoryStore())
        self.revision = 10
        self._created: dict[str, int] = {}
        self.write("apps/app0", revision=1, placement={"host1": 3})
        self.write("revisions/app0/1", app="app0", spec={"env": {}})
        self.recorder.first = {key: item.value for key, item in self.recorder.writes if item is not None}
        self.recorder.writes.clear()

    def write(self, name: str, **record: Any) -> None:
        self.revision += 1
        created = self._created.setdefault(name, self.revision)
        key = f"/fleet/v1/{name}"
        self.recorder.writes.append((key, Item(key, json.dumps(record).encode(), created, self.revision)))

    def set_variable(self, number: int = 2, **variables: str) -> None:
        self.write(f"revisions/app0/{number}", app="app0", spec={"env": variables})
        self.write("apps/app0", revision=number, placement={"host1": 3})
        self.write("rollouts/r1")

    def resize(self, size: int) -> None:
        self.write("apps/app0", revision=2, placement={"host1": size})
        self.write("rollouts/r2")

    def label(self, *numbers: str) -> None:
        for number in numbers:
            self.write("hosts/host1", given_labels={"client0": number})

    def broken(self) -> list[str]:
        return judge(CHANGES, {change.request for change in CHANGES}, self.recorder, first_size=3)


def test_each_change_once_is_as_promised() -> None:
    story = Story()
    story.set_variable(CHANGE_1="1")
    story.label("3")
    story.resize(4)
    story.label("3", "4")
    assert story.broken() == []


def test_a_lost_variable_is_found() -> None:
    story = Story()
    story.set_variable()
    story.resize(4)
    story.label("3", "4")
    assert story.broken() == ["app0: lost ['CHANGE_1'], not asked for []"]


def test_a_change_that_took_effect_twice_is_found() -> None:
    story = Story()
    story.set_variable(CHANGE_1="1")
    story.set_variable(3, CHANGE_1="1")
    story.resize(5)
    story.label("3", "4", "3", "4")
    assert story.broken() == [
        "app0: 2 revisions for 1 changes",
        "app0: size 5, not 4",
        "labels of client 0: ['3', '4', '3', '4'] instead of ['3', '4']",
    ]


def test_a_change_overwritten_by_a_leader_that_knew_less_is_found() -> None:
    story = Story()
    story.set_variable(CHANGE_1="1")
    story.resize(4)
    story.write("apps/app0", revision=1, placement={"host1": 3})
    story.label("3", "4")
    broken = story.broken()
    assert "app0: lost ['CHANGE_1'], not asked for []" in broken
    assert "app0: size 3, not 4" in broken


def test_a_change_that_never_began_and_one_that_nobody_asked_for_are_found() -> None:
    story = Story()
    story.set_variable(CHANGE_1="1")
    story.write("apps/app0", revision=2, placement={"host1": 4})
    story.write("rollouts/other")
    story.label("3", "4")
    broken = story.broken()
    assert any("'r2'" in what and "0 rollouts" in what for what in broken)
    assert "rollout other, which nobody asked for" in broken
