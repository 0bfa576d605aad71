"""What happens to the host, and when: pure, and the same for the same seed.

A seed gives the same faults at the same times; which instruction each hits is the kernel's to say, so a seed that found something
may need several runs to find it again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

APPS = ("plain", "stamped", "watched", "linked")
"""The second has its lines stamped with the time; the third has JSON lines and notifies, its watchdog shorter than the longest
outage; the fourth is Node's, and has its message channel open."""
SERVICES = ("supervisor", "agent")
MAX_SIZE = 4


@dataclass(frozen=True)
class Strike:
    """A signal to a daemon. STOP is followed by CONT after `seconds`; after KILL and TERM the next one starts after `seconds`."""

    at: float
    service: str
    signal: str
    seconds: float


@dataclass(frozen=True)
class Crash:
    """SIGKILL to the worker at `pick`, in [0, 1), of those alive."""

    at: float
    pick: float


@dataclass(frozen=True)
class Resize:
    at: float
    app: str
    size: int


@dataclass(frozen=True)
class Replace:
    """A new generation of the slot at `pick`, in [0, 1)."""

    at: float
    app: str
    pick: float


@dataclass(frozen=True)
class Ambush:
    """A crash, and a killed supervisor `delay` seconds later, in the midst of the restart; the next comes after `seconds`."""

    at: float
    pick: float
    delay: float
    seconds: float


@dataclass(frozen=True)
class Relapse:
    """SIGKILL to the supervisor, the next after `seconds`, and again `delay` seconds after that one is ready: it empties pipes
    that have filled meanwhile, then."""

    at: float
    seconds: float
    delay: float


Action = Strike | Crash | Resize | Replace | Ambush | Relapse
AMBUSH_SECONDS = 0.005
"""A crash is known, and its process started again, within a few milliseconds; as quickly are pipes emptied."""


def schedule(seed: int, seconds: float) -> list[Action]:
    """In order of time, from 0 to `seconds`."""
    random = Random(seed)
    actions: list[Action] = []
    at = random.uniform(0.1, 0.5)
    while at < seconds:
        actions += _scene(random, at)
        at += random.choice((random.uniform(0.1, 0.6), random.uniform(0.5, 2.0)))
    return sorted((action for action in actions if action.at < seconds), key=lambda action: action.at)


def _scene(random: Random, at: float) -> Iterator[Action]:
    """Mostly a change and a strike within milliseconds of each other, in any order: that is where starts and stops are hit."""
    kind = random.random()
    if kind < 0.2:
        yield Ambush(at, random.random(), random.uniform(0.0, AMBUSH_SECONDS), _pause(random))
    elif kind < 0.35:
        yield Relapse(at, random.uniform(0.3, 1.5), random.uniform(0.0, AMBUSH_SECONDS))
    elif kind < 0.65:
        yield _change(random, at)
        yield from _strikes(random, at + random.uniform(-0.02, 0.08))
    elif kind < 0.9:
        yield from _strikes(random, at)
    else:
        yield _change(random, at)


def _change(random: Random, at: float) -> Action:
    app = random.choice(APPS)
    kind = random.random()
    if kind < 0.45:
        return Crash(at, random.random())
    if kind < 0.75:
        return Replace(at, app, random.random())
    return Resize(at, app, random.randint(1, MAX_SIZE))


def _strikes(random: Random, at: float) -> Iterator[Strike]:
    """One daemon, the other, or both; sometimes the next of its kind too, while it starts."""
    for service in random.choice((("supervisor",), ("supervisor",), ("agent",), SERVICES, SERVICES[::-1])):
        yield _strike(random, at, service)
        while random.random() < 0.25:
            at += random.uniform(0.0, 0.7)
            yield _strike(random, at, service)
        at += random.choice((0.0, random.uniform(0.0, 0.3)))


def _strike(random: Random, at: float, service: str) -> Strike:
    signal = random.choice(("KILL", "KILL", "KILL", "TERM", "STOP"))
    return Strike(at, service, signal, _pause(random))


def _pause(random: Random) -> float:
    return random.choice((0.0, 0.0, random.uniform(0.0, 0.3), random.uniform(0.0, 0.3), random.uniform(0.3, 2.5)))
