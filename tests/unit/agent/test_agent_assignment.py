from pathlib import Path

import pytest

from fleet.v1 import agent_pb2, types_pb2
from fleet_agent.assignment import (
    AssignmentRefusedError,
    HeldAssignment,
    SpecMissingError,
    read_assignment,
    write_assignment,
)
from fleet_core.ids import Epoch
from fleet_core.spec import AppSpec, spec_digest

SPEC = AppSpec.model_validate(
    {"name": "web", "argv": ["serve"], "cwd": "/", "ready": {"min_uptime_seconds": 0.1}}
).to_proto()
DIGEST = spec_digest(SPEC)
OLD, NEW = Epoch(1, 10), Epoch(1, 11)


def assignment(sequence: int, slots: int = 1, *, allow_empty: bool = False) -> agent_pb2.Assignment:
    targets = [
        agent_pb2.Target(app="web", slot=slot, generation=1, phase=types_pb2.PHASE_RUN, spec_digest=DIGEST)
        for slot in range(1, slots + 1)
    ]
    return agent_pb2.Assignment(sequence=sequence, targets=targets, allow_empty=allow_empty)


def held(sequence: int = 5, epoch: Epoch = OLD) -> HeldAssignment:
    return HeldAssignment().accept(epoch, assignment(sequence), {DIGEST: SPEC})


def test_a_higher_sequence_replaces_and_an_equal_or_lower_one_changes_nothing() -> None:
    start = held(5)
    assert start.accept(OLD, assignment(5, slots=2), {}) == start
    assert start.accept(OLD, assignment(4, slots=2), {}) == start
    assert len(start.accept(OLD, assignment(6, slots=2), {}).targets) == 2


def test_a_higher_epoch_replaces_even_with_a_lower_sequence() -> None:
    assert held(5).accept(NEW, assignment(1, slots=2), {}).epoch == NEW


def test_once_a_higher_epoch_was_seen_a_lower_one_is_refused() -> None:
    """Guards invariant 4."""
    obeying = held(5).obey(NEW)
    with pytest.raises(AssignmentRefusedError, match=r"epoch 1\.10 is lower than 1\.11"):
        obeying.accept(OLD, assignment(6), {})


def test_emptiness_must_be_asked_for() -> None:
    with pytest.raises(AssignmentRefusedError, match="without allow_empty"):
        held().accept(OLD, assignment(6, slots=0), {})
    assert held().accept(OLD, assignment(6, slots=0, allow_empty=True), {}).targets == ()
    assert HeldAssignment().accept(OLD, assignment(1, slots=0), {}).sequence == 1


def test_a_spec_nobody_sent_is_refused_and_specs_no_longer_named_are_dropped() -> None:
    with pytest.raises(SpecMissingError, match="a spec of web that was not sent"):
        HeldAssignment().accept(OLD, assignment(1), {})
    assert held().accept(OLD, assignment(6, slots=0, allow_empty=True), {}).specs == {}


def test_what_is_held_survives_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "assignment.json"
    assert read_assignment(path) == HeldAssignment()
    write_assignment(path, held().obey(NEW))
    again = read_assignment(path)
    assert again == held().obey(NEW)
    assert spec_digest(again.specs[DIGEST]) == DIGEST


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"highest_epoch": 1}', "\x00"])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "assignment.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="not an assignment") as caught:
        read_assignment(path)
    assert "\n" not in str(caught.value)


def test_a_spec_of_a_newer_version_fails_its_targets_in_words_and_nothing_else() -> None:
    broken = types_pb2.AppSpec()
    broken.CopyFrom(SPEC)
    broken.cwd = "../relative"
    message = assignment(1)
    message.targets[0].spec_digest = "other"
    (wanted,) = HeldAssignment().accept(OLD, message, {"other": broken}).wanted().values()
    assert isinstance(wanted.spec, str)
    assert "must be absolute" in wanted.spec


def test_an_assignment_of_an_etcd_older_than_one_seen_before_is_refused() -> None:
    """Guards invariant 4: its leader's epoch may well be higher."""
    seen = HeldAssignment().accept(OLD, _of_revision(assignment(5), 200), {DIGEST: SPEC})
    with pytest.raises(AssignmentRefusedError, match=r"revision 150, and this host was told of 200: etcd is older"):
        seen.accept(NEW, _of_revision(assignment(1), 150), {})
    assert seen.accept(NEW, _of_revision(assignment(1), 200), {}).epoch == NEW
    # A restore raised the era, and etcd's revisions may have begun anew.
    restored = seen.accept(Epoch(2, 3), _of_revision(assignment(1), 9), {})
    assert (restored.epoch, restored.etcd_revision) == (Epoch(2, 3), 9)


def test_one_fleet_is_obeyed(tmp_path: Path) -> None:
    joined = held().belong("f1")
    assert joined.belong("f1") == joined
    assert joined.belong("") == joined, "a controller that does not say"
    with pytest.raises(AssignmentRefusedError, match="leads fleet f2, this host obeys f1"):
        joined.belong("f2")
    path = tmp_path / "assignment.json"
    write_assignment(path, joined.accept(NEW, _of_revision(assignment(1), 30), {}))
    assert (read_assignment(path).fleet_id, read_assignment(path).etcd_revision) == ("f1", 30)


def _of_revision(message: agent_pb2.Assignment, revision: int) -> agent_pb2.Assignment:
    message.etcd_revision = revision
    return message
