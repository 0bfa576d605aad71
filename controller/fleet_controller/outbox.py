"""What waits to be sent on one stream: the newest state of each thing, so that a slow reader costs no memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """A message replaces one still waiting under the same key; it is built when its turn comes, so that it is never stale."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, Callable[[], T]] = {}
        self._news = asyncio.Event()
        self._closed = False

    def put(self, key: Hashable, build: Callable[[], T]) -> None:
        """Send what `build` returns. After `close`, nothing happens."""
        if not self._closed:
            self._waiting[key] = build
            self._news.set()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """End the iteration; what still waits is dropped."""
        self._closed = True
        self._waiting.clear()
        self._news.set()

    async def messages(self) -> AsyncIterator[T]:
        """Messages in the order their keys were first put; ends after `close`. To be iterated once."""
        while not self._closed:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                yield self._waiting.pop(next(iter(self._waiting)))()
