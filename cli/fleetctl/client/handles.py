"""What is under way: rollouts and drains that can be waited for, followed and steered, and go on when nobody does."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.client.connection import Connection
from fleetctl.client.drains import called_off, still_draining, watched_drain
from fleetctl.client.errors import UsageError
from fleetctl.client.rollouts import (
    WAIT_SECONDS,
    begin_rollout,
    new_request_id,
    not_as_asked,
    status_of,
    still_running,
    timeless,
    watched,
    workers_to_blame,
)
from fleetctl.client.values import DrainStatus, RolloutStatus, from_view

_T = TypeVar("_T")

logger = logging.getLogger("fleetctl")
"""Is told, as a warning, why there is no news at present."""


def trouble() -> Callable[[str], None]:
    """A warning in the log for each new text."""
    last = ""

    def tell(text: str) -> None:
        nonlocal last
        if text != last:
            last = text
            logger.warning("%s", text)

    return tell


def deadline_in(timeout: float) -> float:
    """On the running loop's clock. Raises UsageError."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        raise UsageError(f"timeout {timeout!r} is not valid: every wait has a deadline, a number of seconds")
    return asyncio.get_running_loop().time() + timeout


async def until(deadline: float, items: AsyncGenerator[_T, None]) -> AsyncGenerator[_T, None]:
    """The same items; TimeoutError at `deadline`, on the loop's clock. Each step may run in a task of its own."""
    async with aclosing(items):
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    item = await anext(items)
            except StopAsyncIteration:
                return
            yield item


class AsyncRollout:
    """A rollout of an app, as an operation began it. Dropping it changes nothing: the rollout goes on."""

    def __init__(self, connection: Connection, rollout: control_pb2.Rollout, request_id: str = "") -> None:
        self._connection = connection
        self._latest = rollout
        self._aim = control_pb2.ROLLOUT_STATE_DONE
        # A mutation that found nothing to change answers with an older rollout.
        self._changed = not request_id or rollout.id == request_id or views.under_way(rollout)

    def __repr__(self) -> str:
        status = self.status
        return (
            f"<{type(self).__name__} {status.kind} of {status.app}: {status.state}, {status.steps_done}/{status.steps}>"
        )

    @property
    def id(self) -> str:
        return self._latest.id

    @property
    def app(self) -> str:
        return self._latest.app

    @property
    def status(self) -> RolloutStatus:
        """How far it was when something was last heard of it; asks nobody."""
        return status_of(self._latest)

    @property
    def changed(self) -> bool:
        """False: the app was as asked already, and `status` is that of an older rollout."""
        return self._changed

    async def refresh(self) -> RolloutStatus:
        """Ask how far it is."""
        request = control_pb2.GetRolloutRequest(rollout=self.id)
        self._latest = (await self._connection.call(lambda stub: stub.GetRollout, request)).rollout
        return self.status

    async def wait(self, timeout: float = WAIT_SECONDS) -> RolloutStatus:
        """Return when what was asked for is true.

        Raises RolloutFailed when it ends otherwise, RolloutTimeout after `timeout` seconds; the rollout goes on then. A
        controller that is lost meanwhile is awaited.
        """
        if not self._changed:
            return self.status
        async with aclosing(self._changes(timeout)) as changes:
            async for _ in changes:
                continue
        if self._latest.state != self._aim:
            failed = self._latest.state == control_pb2.ROLLOUT_STATE_FAILED
            blamed = await workers_to_blame(self._connection, self._latest) if failed else []
            raise not_as_asked(self._latest, blamed)
        return self.status

    async def events(self, timeout: float = WAIT_SECONDS) -> AsyncGenerator[RolloutStatus, None]:
        """Its present state, then each change up to its end, whatever that is. Raises RolloutTimeout after `timeout` seconds."""
        last = None
        async with aclosing(self._changes(timeout)) as changes:
            async for rollout in changes:
                now = timeless(rollout)
                if now != last:
                    yield self.status
                last = now

    async def pause(self) -> RolloutStatus:
        """Begin no further step; steps under way end."""
        return await self._steer(control_pb2.ROLLOUT_ACTION_PAUSE)

    async def resume(self) -> RolloutStatus:
        """Go on; a worker at which it stopped gets a successor."""
        return await self._steer(control_pb2.ROLLOUT_ACTION_RESUME)

    async def promote(self) -> RolloutStatus:
        """The canaries are good: go on."""
        return await self._steer(control_pb2.ROLLOUT_ACTION_PROMOTE)

    async def abort(self) -> RolloutStatus:
        """Go back to what ran before; `wait` returns from now on when that runs again."""
        status = await self._steer(control_pb2.ROLLOUT_ACTION_ABORT)
        self._aim = control_pb2.ROLLOUT_STATE_ABORTED
        return status

    async def _steer(self, action: control_pb2.RolloutAction.ValueType) -> RolloutStatus:
        request = control_pb2.ControlRolloutRequest(
            request_id=new_request_id(), app=self.app, rollout=self.id, action=action
        )
        self._latest = await begin_rollout(self._connection, request)
        return self.status

    async def _changes(self, timeout: float) -> AsyncGenerator[control_pb2.Rollout, None]:
        """Until its end; what ended already is told once. Raises RolloutTimeout."""
        if not views.under_way(self._latest):
            yield self._latest
            return
        deadline = deadline_in(timeout)
        try:
            async with aclosing(until(deadline, watched(self._connection, self.id, trouble()))) as changes:
                async for rollout in changes:
                    self._latest = rollout
                    yield rollout
        except TimeoutError:
            raise still_running(self._latest, timeout) from None


class AsyncDrain:
    """A host whose workers are being moved away. Dropping it changes nothing: the drain goes on."""

    def __init__(self, connection: Connection, host: control_pb2.Host) -> None:
        self._connection = connection
        self._latest = control_pb2.WatchDrainResponse(
            host=host.name, workers_left=host.workers, drained=views.scheduling(host) == "drained"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.host}: {self._latest.workers_left} left>"

    @property
    def host(self) -> str:
        return self._latest.host

    @property
    def status(self) -> DrainStatus:
        """How far it was when something was last heard of it; asks nobody."""
        return from_view(views.drain_view(self._latest), DrainStatus)

    async def wait(self, timeout: float = WAIT_SECONDS) -> DrainStatus:
        """Return when no worker is left there. Raises DrainFailed when it is called off, StillRunning after `timeout` seconds."""
        async with aclosing(self._changes(timeout)) as changes:
            async for _ in changes:
                continue
        if not self._latest.drained:
            raise called_off(self._latest)
        return self.status

    async def events(self, timeout: float = WAIT_SECONDS) -> AsyncGenerator[DrainStatus, None]:
        """Its present state, then each change until nothing is left or it is called off. Raises StillRunning after `timeout`
        seconds."""
        async with aclosing(self._changes(timeout)) as changes:
            async for _ in changes:
                yield self.status

    async def _changes(self, timeout: float) -> AsyncGenerator[control_pb2.WatchDrainResponse, None]:
        deadline = deadline_in(timeout)
        try:
            async with aclosing(until(deadline, watched_drain(self._connection, self.host, trouble()))) as changes:
                async for drain in changes:
                    self._latest = drain
                    yield drain
        except TimeoutError:
            raise still_draining(self._latest, timeout) from None
