from pathlib import Path

import pytest

from fleet_agent.ports import PortsBusyError, PortsExhaustedError, PortTable, read_ports, write_ports
from fleet_agent.supervisor.protocol import Key

WEB1, WEB2, WEB3 = (Key("web", 1, generation) for generation in (1, 2, 3))


def test_generations_of_a_slot_alternate_between_two_ports() -> None:
    table = PortTable(100, 109).give(WEB1, used=(), listening=())
    first = table.port_of(WEB1)
    table = table.give(WEB2, used=[first], listening=())
    second = table.port_of(WEB2)
    table = table.keep_only([WEB2]).give(WEB3, used=[second], listening=())
    assert first != second
    assert table.port_of(WEB3) == first


def test_a_worker_that_has_a_port_keeps_it() -> None:
    table = PortTable(100, 109).give(WEB1, used=(), listening=())
    assert table.give(WEB1, used=(), listening=()) is table


def test_a_generation_of_the_same_parity_takes_the_other_port_while_the_old_one_lives() -> None:
    table = PortTable(100, 109).give(WEB1, used=(), listening=())
    table = table.give(WEB3, used=[table.port_of(WEB1)], listening=())
    assert table.port_of(WEB3) != table.port_of(WEB1)


def test_a_third_live_generation_of_a_slot_waits() -> None:
    table = PortTable(100, 109).give(WEB1, used=(), listening=())
    table = table.give(WEB2, used=[table.port_of(WEB1)], listening=())
    with pytest.raises(PortsBusyError, match="waiting until one has exited"):
        table.give(WEB3, used=[table.port_of(WEB1), table.port_of(WEB2)], listening=())


def test_a_port_another_program_listens_on_is_replaced() -> None:
    table = PortTable(100, 109).give(WEB1, used=(), listening=[100])
    assert table.port_of(WEB1) != 100
    taken = table.port_of(WEB1)
    moved = table.give(WEB1, used=(), listening=[100, taken])
    assert moved.port_of(WEB1) not in (100, taken)


def test_a_port_given_back_is_the_last_to_be_given_again() -> None:
    table = PortTable(100, 105).give(WEB1, used=(), listening=())
    gone = table.slots["web", 1].pair
    table = table.keep_only([])
    given: list[int] = []
    for slot in (1, 2):
        table = table.give(Key("api", slot, 1), used=(), listening=())
        given.extend(table.slots["api", slot].pair)
    assert not set(gone) & set(given)
    table = table.give(Key("api", 3, 1), used=(), listening=())
    assert set(table.slots["api", 3].pair) == set(gone)


def test_an_exhausted_range_says_what_to_do() -> None:
    table = PortTable(100, 102).give(WEB1, used=(), listening=())
    with pytest.raises(PortsExhaustedError, match=r"no free port in 100-102: widen `ports`"):
        table.give(Key("api", 1, 1), used=(), listening=())


def test_a_live_workers_port_wins_over_a_lost_or_different_table() -> None:
    table = PortTable(100, 109).adopt({WEB1: 104})
    assert table.port_of(WEB1) == 104
    table = table.give(WEB2, used=[104], listening=())
    assert table.port_of(WEB2) != 104
    stolen = table.adopt({Key("api", 1, 1): 104})
    assert stolen.port_of(Key("api", 1, 1)) == 104
    assert stolen.port_of(WEB1) == 0


def test_the_table_survives_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    assert read_ports(path, 100, 109) == PortTable(100, 109)
    table = PortTable(100, 109).give(WEB1, used=(), listening=()).keep_only([]).give(WEB2, used=(), listening=())
    write_ports(path, table)
    assert read_ports(path, 100, 109) == table


@pytest.mark.parametrize(
    "content", ["", "[]", '{"slots": [{}], "returned": []}', '{"slots": 1, "returned": []}', "\x00"]
)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ports.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="not a table of ports") as caught:
        read_ports(path, 100, 109)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_workers_that_share_a_socket_keep_its_port_while_any_of_them_is_there() -> None:
    table = PortTable(100, 105).share("web", used=[100], listening=[101])
    assert table.shared == {"web": 102}
    assert table.share("web", used=[], listening=[102]) == table, "what listens there is that socket"
    assert table.give(Key("shop", 1, 1), [], []).slots["shop", 1].pair == (100, 101)
    assert table.share("shop", [], []).shared == {"web": 102, "shop": 100}
    assert table.keep_only([], ["web"]) == table
    given_back = table.keep_only([])
    assert (given_back.shared, given_back.returned) == ({}, (102,))


def test_the_socket_live_workers_share_wins_over_the_file() -> None:
    table = PortTable(100, 105).share("shop", [], []).share("web", [], [])
    assert table.shared == {"shop": 100, "web": 101}
    assert table.adopt_shared({"web": 101}) == table
    assert table.adopt_shared({"web": 100}).shared == {"web": 100}
    assert table.adopt({Key("shop", 1, 1): 101}).shared == {"shop": 100}


def test_shared_ports_survive_in_the_file_and_older_files_have_none(tmp_path: Path) -> None:
    table = PortTable(100, 105).share("web", [], [])
    write_ports(tmp_path / "ports.json", table)
    assert read_ports(tmp_path / "ports.json", 100, 105) == table
    (tmp_path / "old.json").write_text('{"slots": [], "returned": []}')
    assert read_ports(tmp_path / "old.json", 100, 105) == PortTable(100, 105)
