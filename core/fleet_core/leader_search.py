"""Which controller to ask next for a session, and after what pause. Pure but for its dice: whoever uses it sleeps and dials.

A controller that does not lead names the one that does, as far as it knows. Right after a leader's death that is the dead one:
who found it so says it with the next call (`tried`), and the controllers then answer only once they know of another.
"""

import random
from collections.abc import Sequence

LEADER_METADATA = "fleet-leader"
"""Of a controller's refusal: the address of the one that leads."""
TRIED_METADATA = "fleet-tried"
"""Of a call: the address of a leader that cannot be reached from here."""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_MOST_REFERRALS = 3
"""Referrals followed without a pause: two controllers may name each other while the lead changes hands."""


class LeaderSearch:
    """`address` is to be asked next; after each attempt `ended` says how long to wait before that."""

    def __init__(self, addresses: Sequence[str], spread_seconds: float, dice: random.Random | None = None) -> None:
        """`spread_seconds`: who loses a session dials again after up to so long, so that a whole fleet does not at once."""
        self._addresses = list(addresses)
        self._spread = spread_seconds
        self._dice = dice or random.Random()  # noqa: S311 (spreads retries, guards no secret)
        self._turn = self._dice.randrange(len(self._addresses))
        self._named = ""
        self._tried = ""
        self._referrals = 0
        self._welcome = False
        self._pause = _FIRST_PAUSE_SECONDS

    @property
    def address(self) -> str:
        return self._named or self._addresses[self._turn % len(self._addresses)]

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """To be sent with the call."""
        return ((TRIED_METADATA, self._tried),) if self._tried else ()

    def welcomed(self) -> None:
        """The controller at `address` leads, and a session began."""
        self._welcome = True
        self._pause, self._referrals, self._tried = _FIRST_PAUSE_SECONDS, 0, ""

    def ended(self, named: str = "") -> float:
        """The attempt, or the session, at `address` is over; `named` is the leader it named. Returns seconds to wait."""
        asked, was_leader, lost = self.address, self._named, self._welcome
        self._welcome = False
        self._named = named if named != asked else ""
        if lost:
            # Perhaps it died: ask another, which knows whether it still leads.
            self._turn = self._turn_after(asked)
            return self._dice.uniform(0.0, self._spread)
        if self._named:
            self._referrals += 1
            self._tried = self._tried if self._named == self._tried else ""
            if self._referrals <= _MOST_REFERRALS:
                return 0.0
        else:
            self._referrals = 0
            if was_leader:
                self._tried = asked
            else:
                self._turn += 1
        pause = self._pause * self._dice.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        return pause

    def _turn_after(self, asked: str) -> int:
        return self._addresses.index(asked) + 1 if asked in self._addresses else self._turn
