"""Names: what is allowed, how they are read and how they are ordered."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_core.ids import Epoch, SlotId, WorkerId, check_name


@given(st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=63))
def test_a_name_is_a_dns_label(name: str) -> None:
    if name[0] == "-" or name[-1] == "-":
        with pytest.raises(ValueError, match="app name"):
            check_name("app", name)
    else:
        assert check_name("app", name) == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "a.b", "a/b", "a b", "ü", "a\n", "x" * 64])
def test_what_is_no_dns_label_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        check_name("host", name)


_epochs = st.builds(Epoch, st.integers(0, 5), st.integers(0, 2**63 - 1))


@given(_epochs, _epochs)
def test_an_epoch_of_a_higher_era_is_higher_whatever_its_revision(one: Epoch, other: Epoch) -> None:
    if one.era != other.era:
        assert (one < other) == (one.era < other.era)
    else:
        assert (one < other) == (one.election_revision < other.election_revision)


@given(_epochs)
def test_an_epoch_crosses_the_wire_unchanged(epoch: Epoch) -> None:
    assert Epoch.from_proto(epoch.to_proto()) == epoch


def test_no_epoch_is_before_the_first() -> None:
    assert Epoch() <= Epoch(0, 1) < Epoch(1, 0)


@given(st.integers(1, 1000), st.integers(0, 2**63))
def test_a_worker_crosses_the_wire_unchanged(slot: int, generation: int) -> None:
    worker = WorkerId("my-app", "prod1", slot, generation)

    assert WorkerId.from_proto(worker.to_proto()) == worker


@given(st.integers(1, 10_000))
def test_a_slot_is_read_back_as_it_is_written(slot: int) -> None:
    identifier = SlotId("my-app", "prod1", slot)

    assert SlotId.parse(str(identifier)) == identifier
    assert WorkerId("my-app", "prod1", slot, 7).slot_id == identifier


@pytest.mark.parametrize(
    "text",
    [
        "",
        "my-app",
        "my-app/prod1",
        "my-app/prod1/",
        "my-app/prod1/0",
        "my-app/prod1/x",
        "/prod1/1",
        "a/b/1/2",
        "a/b/²",
    ],
)
def test_what_is_no_slot_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="write APP/HOST/SLOT"):
        SlotId.parse(text)
