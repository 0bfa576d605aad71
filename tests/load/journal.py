"""Judging "ready ≥ size at every instant" from the workers' own journals (`journal.js`), not by polling.

A worker counts as ready from the moment its server listened to the moment it stopped listening or gave its last sign of life. A
sign is given every 20 ms, so a life is judged shorter than it was, never longer: the verdicts err against fleetctl.

Times are seconds of CLOCK_MONOTONIC. The judging functions are pure; `read_journals` alone touches files.
"""

import json
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BEAT = struct.Struct("<Q")
_NANOSECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Place:
    """Which worker of the fleet a process was told to be."""

    app: str
    host: str
    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Life:
    """One process, by its own journal."""

    pid: int
    place: Place
    started: float
    last_beat: float
    listening: float | None = None
    closing: float | None = None
    """When it closed its server by itself, as graceful apps do."""

    @property
    def ready_until(self) -> float:
        return self.last_beat if self.closing is None else min(self.closing, self.last_beat)


@dataclass(frozen=True, slots=True)
class Extreme:
    """The lowest or highest count in a window, and the first instant it was seen."""

    count: int
    at: float


def fewest_ready(lives: Iterable[Life], begin: float, end: float) -> Extreme:
    """The smallest number of ready workers at any instant of [begin, end]."""
    spans = [(life.listening, life.ready_until) for life in lives if life.listening is not None]
    return min(_counts(spans, begin, end), key=lambda extreme: extreme.count)


def most_alive(lives: Iterable[Life], begin: float, end: float) -> Extreme:
    """The largest number of live processes at any instant of [begin, end], ready or not."""
    spans = [(life.started, life.last_beat) for life in lives]
    return max(_counts(spans, begin, end), key=lambda extreme: extreme.count)


def doubles(lives: Iterable[Life]) -> list[tuple[Life, Life]]:
    """Pairs of processes that were the same worker of the same generation at the same time: there must be none."""
    by_place: defaultdict[Place, list[Life]] = defaultdict(list)
    for life in lives:
        by_place[life.place].append(life)
    pairs: list[tuple[Life, Life]] = []
    for same in by_place.values():
        same.sort(key=lambda life: life.started)
        for index, earlier in enumerate(same):
            pairs += [(earlier, later) for later in same[index + 1 :] if later.started <= earlier.last_beat]
    return pairs


def faults(
    lives: Sequence[Life], *, begin: float, end: float, size: int, most_on_host: Callable[[str], int]
) -> list[str]:
    """What broke an invariant between begin and end, each in words; an empty list is a pass.

    `most_on_host(host)` is that host's size plus the surge allowed to it (invariant 2); `size` is the app's (invariant 1).
    """
    found: list[str] = []
    fewest = fewest_ready(lives, begin, end)
    if fewest.count < size:
        found.append(f"{fewest.count} workers ready at {fewest.at - begin:.3f} s, of {size}")
    for host in sorted({life.place.host for life in lives}):
        most = most_alive([life for life in lives if life.place.host == host], begin, end)
        if most.count > most_on_host(host):
            found.append(f"{most.count} workers alive on {host} at {most.at - begin:.3f} s, over {most_on_host(host)}")
    found += [
        f"pids {earlier.pid} and {later.pid} were both {earlier.place} at {later.started - begin:.3f} s"
        for earlier, later in doubles(lives)
    ]
    return found


def _counts(spans: Iterable[tuple[float, float]], begin: float, end: float) -> list[Extreme]:
    """How many of the closed spans hold each instant of [begin, end], wherever that number changes; `begin` comes first.

    Between the end of one span and the start of the next lies an instant outside both, however short: a count just after an
    end is listed at the end's own time.
    """
    steps: list[tuple[float, int, int]] = []
    inside = 0
    for first, last in spans:
        if last < first or last < begin or first > end:
            continue
        if first <= begin:
            inside += 1
        else:
            steps.append((first, 0, 1))
        if last < end:
            steps.append((last, 1, -1))
    extremes = [Extreme(inside, begin)]
    # A span that begins where another ends overlaps it at that instant: beginnings are counted first.
    for at, _, change in sorted(steps):
        inside += change
        extremes.append(Extreme(inside, at))
    return extremes


def read_journals(folder: Path) -> list[Life]:
    """Every life recorded in `folder`, in order of start. Half-written last lines, of a process that was killed, are dropped."""
    lives = [life for path in folder.glob("*.jsonl") if (life := _read_life(path)) is not None]
    return sorted(lives, key=lambda life: life.started)


def _read_life(path: Path) -> Life | None:
    """None where the process was killed before it had written who it is."""
    records = _whole_records(path.read_text())
    if not records:
        return None
    who, events = records[0], records[1:]
    stamp = path.with_suffix(".beat").read_bytes()
    beat = _BEAT.unpack(stamp)[0] if len(stamp) == _BEAT.size else who["started"]
    environment = who["env"]
    return Life(
        pid=who["pid"],
        place=Place(
            app=environment.get("FLEET_APP", ""),
            host=environment.get("FLEET_HOST", ""),
            slot=int(environment.get("FLEET_WORKER_ID", "0")),
            generation=int(environment.get("FLEET_GENERATION", "0")),
        ),
        started=who["started"] / _NANOSECONDS,
        # Each line written is a sign of life too.
        last_beat=max([beat, who["started"], *(event["at"] for event in events)]) / _NANOSECONDS,
        listening=_first(events, "listening"),
        closing=_first(events, "closing"),
    )


def _whole_records(text: str) -> list[dict[str, Any]]:
    whole, _, _ = text.rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def _first(events: Iterable[dict[str, Any]], kind: str) -> float | None:
    return next((event["at"] / _NANOSECONDS for event in events if event["event"] == kind), None)
