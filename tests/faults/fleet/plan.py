"""What is done to the fleet, and when: pure, and the same for the same seed.

A history is a row of episodes. In each, one to three faults and up to two operations meet; then all faults end, and the fleet
must be as it should be before the next begins. A seed gives the same faults and operations at the same times; which instruction
each meets is the kernels' to say, so a seed that found something may need several runs to find it again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from tests.hosts.links import Direction

EPISODE_SECONDS = 20.0
"""When the last fault of an episode ends, at the latest; a reboot may take longer."""
_SIZES = (6, 7, 9)


@dataclass(frozen=True, slots=True)
class Link:
    """Between `machine` and all of `peers`, where they listen on `port`."""

    name: str
    machine: str
    peers: tuple[str, ...]
    port: int


@dataclass(frozen=True, slots=True)
class Topology:
    """What there is to be struck."""

    workers: tuple[str, ...]
    controllers: tuple[str, ...]
    balancers: tuple[str, ...]
    units: tuple[tuple[str, str], ...]
    """(machine, unit)"""
    links: tuple[Link, ...]

    @property
    def machines(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.workers, *self.controllers, *self.balancers)))


@dataclass(frozen=True, slots=True)
class Blow:
    """A fault, `at` seconds after the episode began, for `seconds`; 0: it ends by itself."""

    at: float
    kind: str
    machine: str
    seconds: float = 0.0
    unit: str = ""
    link: Link | None = None
    direction: Direction = Direction.BOTH
    share: float = 1.0
    pick: float = 0.0
    """Which worker, in [0, 1)."""

    @property
    def detail(self) -> str:
        if self.link is not None:
            lossy = f", {self.share:.0%} of the packets" if self.share < 1 else ""
            return f"{self.link.name}, {self.direction}{lossy}"
        return self.unit


@dataclass(frozen=True, slots=True)
class Command:
    """Of fleetctl, on the app, `at` seconds after the episode began."""

    at: float
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Episode:
    actions: tuple[Blow | Command, ...]
    """In order of time."""
    afterwards: tuple[tuple[str, ...], ...] = ()
    """Commands when the faults are over: what an operator puts right."""


def episodes(seed: int, app: str, topology: Topology) -> Iterator[Episode]:
    """For ever."""
    dice = Random(seed)
    number = 0
    while True:
        number += 1
        yield _episode(dice, f"{seed}-{number}", app, topology)


def _episode(dice: Random, name: str, app: str, topology: Topology) -> Episode:
    actions: list[Blow | Command] = []
    taken: set[str] = set()
    for _ in range(dice.choice((1, 1, 2, 2, 3))):
        blow = _blow(dice, topology)
        # One machine of a kind at a time is wholly gone: two balancers, or two of three hosts, are all there is.
        if blow.kind in ("power cut", "reboot", "freeze"):
            kind = "host" if blow.machine in topology.workers else "other"
            if kind in taken:
                continue
            taken.add(kind)
        actions.append(blow)
    afterwards: list[tuple[str, ...]] = []
    for command in range(dice.choice((0, 1, 1, 2))):
        argv = _argv(dice, f"{name}-{command}", app, topology)
        if argv[:2] == ("host", "drain"):
            if afterwards:
                continue
            afterwards.append(("host", "uncordon", argv[2]))
        actions.append(Command(dice.uniform(0.0, 8.0), argv))
    return Episode(tuple(sorted(actions, key=lambda action: action.at)), tuple(afterwards))


def _argv(dice: Random, name: str, app: str, topology: Topology) -> tuple[str, ...]:
    kind = dice.choice(("soft-restart", "soft-restart", "set-size", "set-size", "env-set", "drain"))
    if kind == "soft-restart":
        return ("soft-restart", app)
    if kind == "set-size":
        return ("set-size", app, str(dice.choice(_SIZES)))
    if kind == "env-set":
        return ("env-set", app, f"NUMBER={name}")
    return ("host", "drain", dice.choice(topology.workers))


def _blow(dice: Random, topology: Topology) -> Blow:
    at = dice.uniform(0.0, 8.0)
    seconds = dice.uniform(1.0, EPISODE_SECONDS - at)
    kind = dice.random()
    machine, unit = dice.choice(topology.units)
    if kind < 0.25:
        return Blow(at, "kill", machine, unit=unit)
    if kind < 0.35:
        return Blow(at, "restart", machine, unit=unit)
    if kind < 0.45:
        return Blow(at, "halt", machine, seconds, unit=unit)
    if kind < 0.52:
        return Blow(at, "slow", machine, seconds, unit=unit)
    if kind < 0.75:
        link = dice.choice(topology.links)
        share = dice.choice((1.0, 1.0, 0.3))
        return Blow(
            at, "partition", link.machine, seconds, link=link, direction=dice.choice(list(Direction)), share=share
        )
    if kind < 0.80:
        return Blow(at, "worker killed", dice.choice(topology.workers), pick=dice.random())
    if kind < 0.88:
        return Blow(at, "freeze", dice.choice(topology.machines), seconds)
    if kind < 0.94:
        return Blow(at, "reboot", dice.choice(topology.machines))
    return Blow(at, "power cut", dice.choice(topology.machines), seconds)


def describe(episode: Episode) -> Sequence[str]:
    """A line for each action."""
    lines = []
    for action in episode.actions:
        if isinstance(action, Blow):
            lasting = f" for {action.seconds:.1f} s" if action.seconds else ""
            lines.append(f"{action.at:5.1f} s  {action.kind} {action.machine} {action.detail}{lasting}".rstrip())
        else:
            lines.append(f"{action.at:5.1f} s  fleetctl {' '.join(action.argv)}")
    return lines
