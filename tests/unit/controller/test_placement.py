"""Placement: even, and moving as few workers as possible."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_controller.planning.placement import moved, spread, with_host

_hosts = st.sets(st.sampled_from([f"host{number}" for number in range(6)]), min_size=1)
_present = st.dictionaries(st.sampled_from([f"host{number}" for number in range(8)]), st.integers(1, 20))


@given(total=st.integers(0, 200), hosts=_hosts, present=_present)
def test_a_spread_is_complete_and_even(total: int, hosts: set[str], present: dict[str, int]) -> None:
    placement = spread(total, hosts, present)
    counts = [placement.get(host, 0) for host in hosts]
    assert sum(counts) == total == sum(placement.values())
    assert max(counts) - min(counts) <= 1


@given(total=st.integers(0, 200), hosts=_hosts, present=_present)
def test_no_other_even_spread_takes_fewer_workers_away(total: int, hosts: set[str], present: dict[str, int]) -> None:
    placement = spread(total, hosts, present)
    share, odd = divmod(total, len(hosts))
    taken = sum(max(0, count - placement.get(host, 0)) for host, count in present.items())
    # At best every odd worker goes to a host that would otherwise lose one.
    bare = sum(max(0, count - (share if host in hosts else 0)) for host, count in present.items())
    losing = sum(1 for host in hosts if present.get(host, 0) > share)
    assert taken == bare - min(odd, losing)


@given(total=st.integers(0, 200), hosts=_hosts)
def test_what_is_even_already_does_not_move(total: int, hosts: set[str]) -> None:
    placement = spread(total, hosts, {})
    assert spread(total, hosts, placement) == placement


def test_nothing_can_be_placed_without_a_host() -> None:
    with pytest.raises(ValueError, match="no host"):
        spread(1, [], {})
    assert spread(0, [], {}) == {}


def test_one_host_changes_and_the_others_stay() -> None:
    assert with_host({"a": 2, "b": 2}, "a", 5) == {"a": 5, "b": 2}
    assert with_host({"a": 2, "b": 2}, "c", 1) == {"a": 2, "b": 2, "c": 1}
    assert with_host({"a": 2, "b": 2}, "b", 0) == {"a": 2}


def test_moves_are_counted_per_host() -> None:
    assert moved({"a": 2, "b": 2}, {"a": 5, "c": 1}) == {"a": 3, "b": 2, "c": 1}
