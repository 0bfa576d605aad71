"""Whom to ask for a session next."""

from random import Random

from fleet_core.leader_search import TRIED_METADATA, LeaderSearch

ADDRESSES = ["a:1", "b:1", "c:1"]


def search(spread: float = 1.0) -> LeaderSearch:
    return LeaderSearch(ADDRESSES, spread, Random(3))


def test_each_address_is_asked_in_turn_with_growing_jittered_pauses() -> None:
    asking = search()
    asked, pauses = [], []
    for _ in range(7):
        asked.append(asking.address)
        pauses.append(asking.ended())
    assert set(asked[:3]) == set(ADDRESSES)
    assert asked[3:6] == asked[:3]
    for number, pause in enumerate(pauses):
        longest = min(0.1 * 2**number, 2.0)
        assert longest / 2 <= pause <= longest


def test_searches_begin_at_different_addresses() -> None:
    assert {LeaderSearch(ADDRESSES, 1.0, Random(seed)).address for seed in range(20)} == set(ADDRESSES)


def test_a_named_leader_is_asked_at_once() -> None:
    asking = search()
    assert asking.ended("x:1") == 0.0
    assert asking.address == "x:1"
    assert asking.metadata == ()


def test_a_named_leader_that_cannot_be_reached_is_told_to_whom_is_asked_next() -> None:
    asking = search()
    follower = asking.address
    asking.ended("x:1")
    asking.ended()
    assert asking.address == follower
    assert asking.metadata == ((TRIED_METADATA, "x:1"),)
    assert asking.ended("y:1") == 0.0
    assert (asking.address, asking.metadata) == ("y:1", ())


def test_controllers_that_name_each_other_are_not_asked_without_a_pause_for_ever() -> None:
    asking = search()
    pauses = [asking.ended(("x:1", "y:1")[number % 2]) for number in range(6)]
    assert pauses[:3] == [0.0] * 3
    assert all(pauses[3:])


def test_who_names_itself_names_nobody() -> None:
    asking = search()
    first = asking.address
    assert asking.ended(first) > 0
    assert asking.address != first


def test_whoever_loses_a_session_asks_another_after_a_spread_pause() -> None:
    pauses = []
    for seed in range(50):
        asking = LeaderSearch(ADDRESSES, 1.0, Random(seed))
        leader = asking.address
        asking.welcomed()
        pauses.append(asking.ended())
        assert asking.address in ADDRESSES
        assert asking.address != leader
    assert max(pauses) > 0.9
    assert min(pauses) < 0.1


def test_a_lone_controller_is_asked_again() -> None:
    asking = LeaderSearch(["a:1"], 1.0, Random(1))
    asking.welcomed()
    asking.ended()
    assert asking.address == "a:1"


def test_a_session_makes_the_pauses_short_again() -> None:
    asking = search()
    for _ in range(9):
        asking.ended()
    asking.welcomed()
    asking.ended()
    assert asking.ended() <= 0.1
