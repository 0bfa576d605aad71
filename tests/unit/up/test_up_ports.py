"""Blocks of ports, and the settings that record them."""

import pytest

from fleetctl.up.errors import UpError
from fleetctl.up.ports import BLOCK_PORTS, BLOCKS, FIRST_PORT, LAST_PORT, choose_blocks
from fleetctl.up.settings import ETCD_MEMBERS, MAX_CONTROLLERS, Settings, Wanted, etcd_members_of, resolve


def recorded(hosts: int = 2) -> Settings:
    blocks = tuple(FIRST_PORT + BLOCK_PORTS * (1 + index) for index in range(hosts))
    return Settings(
        fleet_id="0123456789ab", hosts=hosts, balancers=1, controllers=2, system_block=FIRST_PORT, host_blocks=blocks
    )


def test_free_blocks_are_taken_in_order_from_the_preferred_one() -> None:
    assert choose_blocks(3, 0, lambda _: True) == [20_000, 20_200, 20_400]


def test_a_block_that_is_not_free_is_passed_over() -> None:
    assert choose_blocks(2, 0, lambda first: first != 20_000) == [20_200, 20_400]


def test_the_search_goes_round_once_and_stays_below_the_ports_of_outgoing_connections() -> None:
    asked: list[int] = []

    def none_is_free(first: int) -> bool:
        asked.append(first)
        return False

    with pytest.raises(UpError, match="2 blocks of 200 are needed, 0 are free"):
        choose_blocks(2, BLOCKS - 1, none_is_free)
    assert len(asked) == len(set(asked)) == BLOCKS
    assert all(first >= FIRST_PORT and first + BLOCK_PORTS - 1 <= LAST_PORT for first in asked)


def test_no_more_blocks_are_asked_about_than_are_needed() -> None:
    asked: list[int] = []
    choose_blocks(1, 0, lambda first: not asked.append(first))
    assert asked == [20_000]


def test_every_port_of_a_fleet_belongs_to_one_holder() -> None:
    most = {"controllers": MAX_CONTROLLERS, "etcd_members": max(ETCD_MEMBERS)}
    settings = recorded(hosts=3).model_copy(update=most)
    ports = [*settings.etcd_client_ports, *settings.etcd_peer_ports, *settings.controller_ports]
    for index in range(3):
        first, last = settings.worker_ports(index)
        ports.extend(range(first, last + 1))
    assert len(ports) == len(set(ports))


def test_what_was_not_asked_for_stays_as_recorded() -> None:
    assert resolve(Wanted(), recorded()) == (2, 1, 2)
    assert resolve(Wanted(), None) == (1, 1, 1)


def test_a_fleet_may_grow() -> None:
    assert resolve(Wanted(hosts=5), recorded()) == (5, 1, 2)


def test_a_fleet_may_not_shrink() -> None:
    with pytest.raises(UpError, match="has 2 hosts and cannot shrink to 1"):
        resolve(Wanted(hosts=1), recorded())


def test_the_number_of_etcd_members_is_chosen_once() -> None:
    assert etcd_members_of(Wanted(), None) == 1
    assert etcd_members_of(Wanted(etcd_members=3), None) == 3
    three = recorded().model_copy(update={"etcd_members": 3})
    assert etcd_members_of(Wanted(), three) == etcd_members_of(Wanted(etcd_members=3), three) == 3
    with pytest.raises(UpError, match="has 3 members, for good"):
        etcd_members_of(Wanted(etcd_members=5), three)


def test_a_record_from_before_etcd_had_members_means_one() -> None:
    text = recorded().model_dump_json().replace('"etcd_members":1,', "")
    assert "etcd_members" not in text
    assert Settings.parse(text, "up.json").etcd_members == 1


def test_settings_survive_their_file() -> None:
    assert Settings.parse(recorded().model_dump_json(), "up.json") == recorded()


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"version": 2}', recorded().model_dump_json().replace('"hosts":2', '"hosts":3')]
)
def test_a_damaged_record_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UpError, match=r"up\.json is damaged") as caught:
        Settings.parse(text, "up.json")
    assert "\n" not in str(caught.value)
