"""Links that are cut, each direction for itself: which packets a machine then drops. Pure; iptables(8) carries it out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

_CHAIN = "FLEET_FAULTS"


class Direction(StrEnum):
    """As seen from the machine that drops."""

    IN = "in"
    OUT = "out"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Cut:
    """TCP between a machine and one peer, by the port of whoever listens: so machines that share other links keep them."""

    peer: str
    """Its address."""
    port: int
    direction: Direction = Direction.BOTH
    share: float = 1.0
    """Of the packets, at random: less than 1 is a bad link, which TCP makes a slow one."""


def rules(cuts: Sequence[Cut]) -> list[list[str]]:
    """Arguments of iptables, one call after another, that cut where nothing is cut."""
    if not cuts:
        return []
    begin = [["-N", _CHAIN], ["-I", "INPUT", "-j", _CHAIN], ["-I", "OUTPUT", "-j", _CHAIN]]
    return begin + [["-A", _CHAIN, *match, "-j", "DROP"] for cut in cuts for match in _matches(cut)]


def mended() -> list[list[str]]:
    """Arguments that leave nothing cut. Each may fail: there may be nothing."""
    return [["-D", "INPUT", "-j", _CHAIN], ["-D", "OUTPUT", "-j", _CHAIN], ["-F", _CHAIN], ["-X", _CHAIN]]


def _matches(cut: Cut) -> Iterator[list[str]]:
    for direction, option in ((Direction.IN, "-s"), (Direction.OUT, "-d")):
        if cut.direction in (direction, Direction.BOTH):
            # Either end may be the one that listens.
            match = [option, cut.peer, "-p", "tcp", "-m", "multiport", "--ports", str(cut.port)]
            if cut.share < 1:
                match += ["-m", "statistic", "--mode", "random", "--probability", f"{cut.share:g}"]
            yield match
