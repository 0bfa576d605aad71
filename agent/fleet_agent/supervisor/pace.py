"""Reading from a worker that may say more than anybody wants to hear."""

from collections.abc import Callable

from fleet_agent.supervisor.loop import READ, Loop, Timer, now

_PAUSE_SECONDS = 0.1


class Paced:
    """Watches a descriptor, and looks away for a while once it brought more than `per_second` and what a second saved up.

    `read(mask)` returns what it cost. The sender then waits, not this process and not its other workers.
    """

    def __init__(self, loop: Loop, descriptor: int, read: Callable[[int], float], per_second: float) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._read = read
        self._per_second = per_second
        self._left = per_second
        self._counted = now()
        self._pause: Timer | None = None
        loop.watch(descriptor, READ, self._on_ready, bulk=True)

    def close(self) -> None:
        """To be called before the descriptor is closed; may be repeated."""
        self._loop.unwatch(self._descriptor)
        if self._pause is not None:
            self._pause.cancel()
        self._descriptor = -1

    def _on_ready(self, mask: int) -> None:
        """A hang-up is told through a pause too; what was said before it is then read to the end."""
        cost = self._read(mask)
        if self._descriptor < 0:
            return
        time_now = now()
        saved = self._left + (time_now - self._counted) * self._per_second
        self._left, self._counted = min(self._per_second, saved) - cost, time_now
        if self._left < 0 and self._pause is None:
            self._loop.change(self._descriptor, 0)
            self._pause = self._loop.at(time_now + _PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._pause = None
        if self._descriptor >= 0:
            self._loop.change(self._descriptor, READ)
