"""Links that are cut: what a machine is told to drop."""

from tests.hosts.links import Cut, Direction, mended, rules

_DROP = ["-p", "tcp", "-m", "multiport", "--ports", "7400"]


def test_nothing_is_cut_by_nothing() -> None:
    assert rules([]) == []


def test_each_direction_is_a_rule_of_its_own_for_either_end_of_the_link() -> None:
    def of(direction: Direction) -> list[list[str]]:
        return [rule[2:] for rule in rules([Cut("10.0.0.11", 7400, direction)]) if rule[0] == "-A"]

    received, sent = ["-s", "10.0.0.11", *_DROP, "-j", "DROP"], ["-d", "10.0.0.11", *_DROP, "-j", "DROP"]
    assert of(Direction.IN) == [received]
    assert of(Direction.OUT) == [sent]
    assert of(Direction.BOTH) == [received, sent]


def test_a_bad_link_loses_a_share_of_the_packets() -> None:
    *_, rule = rules([Cut("10.0.0.11", 7400, Direction.IN, 0.3)])
    assert rule[-8:] == ["-m", "statistic", "--mode", "random", "--probability", "0.3", "-j", "DROP"]


def test_mending_takes_away_what_cutting_made() -> None:
    chain = rules([Cut("10.0.0.11", 7400)])[0][1]
    assert all(chain in arguments for arguments in mended())
