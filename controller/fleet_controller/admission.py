"""How fast sessions may begin: at a takeover every host comes at the same moment, and each brings all it runs."""

import asyncio

SESSIONS_PER_SECOND = 250.0
"""A hello, a full report of twenty workers and the plans that follow cost a leader two to three milliseconds."""
LONGEST_WAIT_SECONDS = 2.0
"""Agents wait five seconds for a welcome; what would take longer comes again, after a pause of its own."""


class Crowded(Exception):  # noqa: N818 (reads as a sentence where it is caught)
    """Too many came before; nothing was reserved."""


class Admission:
    """Gives each who comes a turn, evenly spaced. Nobody waits when turns are free."""

    def __init__(self, per_second: float = SESSIONS_PER_SECOND, longest_wait: float = LONGEST_WAIT_SECONDS) -> None:
        self._spacing = 1 / per_second
        self._longest_wait = longest_wait
        self._next = 0.0

    async def turn(self) -> None:
        """Return when it is the caller's turn. Raises Crowded, at once, when that is too far away."""
        now = asyncio.get_running_loop().time()
        begins = max(now, self._next)
        if begins - now > self._longest_wait:
            raise Crowded
        self._next = begins + self._spacing
        if begins > now:
            await asyncio.sleep(begins - now)
