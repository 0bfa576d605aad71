"""The descriptors a service left with its manager."""

import os
import socket
from collections.abc import Iterator

import pytest

from fleetctl.up.fdstore import DescriptorStore


@pytest.fixture
def store() -> Iterator[DescriptorStore]:
    made = DescriptorStore()
    yield made
    made.close()


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_descriptors_come_back_by_name_and_in_order(store: DescriptorStore) -> None:
    first, second = os.memfd_create("a"), os.memfd_create("b")
    store.add("x", (first,))
    store.add("y", (second,))
    assert store.items() == [("x", first), ("y", second)]


def test_a_removed_name_is_closed_and_others_stay(store: DescriptorStore) -> None:
    gone, also, stays = (os.memfd_create("m") for _ in range(3))
    store.add("x", (gone, also))
    store.add("y", (stays,))
    store.remove("x")
    assert [is_open(each) for each in (gone, also, stays)] == [False, False, True]


def test_a_name_that_could_not_be_passed_on_is_replaced(store: DescriptorStore) -> None:
    store.add("a:b", (os.memfd_create("m"),))
    assert [name for name, _ in store.items()] == ["stored"]


def test_a_socket_whose_other_end_is_gone_is_dropped(store: DescriptorStore) -> None:
    ours, theirs = socket.socketpair()
    memory = os.memfd_create("m")
    store.add("x", (ours.detach(),))
    store.add("y", (memory,))
    store.drop_broken()
    assert len(store) == 2
    theirs.close()
    store.drop_broken()
    assert store.items() == [("y", memory)]


def test_the_same_socket_is_kept_once(store: DescriptorStore) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert store.add("x", (os.dup(ours.fileno()),)) == 1
        assert store.add("x", (os.dup(ours.fileno()),)) == 0
        assert len(store) == 1
