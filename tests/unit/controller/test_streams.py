"""The two directions of a session, and silence."""

import asyncio
from collections.abc import AsyncIterator

from fleet_controller.outbox import Outbox
from fleet_controller.services.streams import converse

DEADLINE = 5.0


async def test_a_peer_that_says_nothing_for_too_long_is_gone() -> None:
    async def silent() -> AsyncIterator[str]:
        yield "hello"
        await asyncio.Event().wait()

    heard: list[str] = []

    async def receive(message: str) -> None:
        heard.append(message)

    async with asyncio.timeout(DEADLINE):
        assert [message async for message in converse(silent(), Outbox[str](), receive, 0.05)] == []
    assert heard == ["hello"]


async def test_silence_that_was_slept_through_ends_nothing() -> None:
    """What was sent meanwhile comes after the timer of whoever stood still."""
    loop = asyncio.get_running_loop()
    slept = False

    async def late() -> AsyncIterator[str]:
        nonlocal slept
        now = loop.time
        loop.time = lambda: now() + (60.0 if slept else 0.0)  # type: ignore[method-assign]
        loop.call_later(0.02, sleep)
        await asyncio.sleep(0.04)
        yield "late"

    def sleep() -> None:
        nonlocal slept
        slept = True

    heard: list[str] = []
    outbox: Outbox[str] = Outbox()

    async def receive(message: str) -> None:
        heard.append(message)

    async with asyncio.timeout(DEADLINE * 100):
        async for _ in converse(late(), outbox, receive, 30.0):
            raise AssertionError("nothing was to be sent")
    assert heard == ["late"]
