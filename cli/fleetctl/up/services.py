"""One service's life as `up` sees it, and when it is started again. Pure: times are given, never read."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

STABLE_SECONDS = 10.0
"""A daemon that ran so long has left its trouble behind: its next end is the first again."""
_DELAYS_SECONDS = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class Service:
    """A daemon to keep running."""

    name: str
    argv: tuple[str, ...]
    log: Path
    ports: tuple[int, ...] = ()
    """What it listens on; they must be free before its first start."""


class Phase(StrEnum):
    DOWN = "down"
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting to be started again"
    STOPPING = "stopping"


class Life:
    """DOWN → STARTING → READY; either → WAITING when it ends, → STARTING again; from STOPPING on it stays DOWN.

    A daemon is started again for ever: at once the first time, then after growing delays while it keeps ending quickly.
    """

    def __init__(self) -> None:
        self.phase = Phase.DOWN
        self.quick_ends = 0
        """Ends in a row within STABLE_SECONDS of their start."""
        self.ever_ready = False
        self._started = 0.0

    @property
    def alive(self) -> bool:
        return self.phase in (Phase.STARTING, Phase.READY)

    def started(self, now: float) -> None:
        self.phase = Phase.STARTING
        self._started = now

    def adopted(self, now: float) -> None:
        """It has run for unknown long: it counts as ready, and as started now."""
        self.phase = Phase.READY
        self.ever_ready = True
        self._started = now

    def ready(self) -> None:
        """READY=1 arrived; one that comes late, after a stop was asked for, changes nothing."""
        if self.alive:
            self.phase = Phase.READY
            self.ever_ready = True

    def stopping(self) -> None:
        """From now on its end is wanted. One that is not running is down."""
        self.phase = Phase.STOPPING if self.alive else Phase.DOWN

    def ended(self, now: float) -> float | None:
        """It ended, or could not be started. Returns after how many seconds to start it again; None: not at all."""
        if self.phase in (Phase.STOPPING, Phase.DOWN):
            self.phase = Phase.DOWN
            return None
        if now - self._started >= STABLE_SECONDS:
            self.quick_ends = 0
        delay = _DELAYS_SECONDS[min(self.quick_ends, len(_DELAYS_SECONDS) - 1)]
        self.quick_ends += 1
        self.phase = Phase.WAITING
        return delay
