"""An event loop in a thread of its own, for callers without one."""

import asyncio
import os
import threading
import warnings
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Self, TypeVar

_T = TypeVar("_T")

_END = object()
_START_SECONDS = 10.0
_CLOSE_SECONDS = 10.0


class Portal:
    """Runs coroutines for any number of threads. The thread begins with the first call and ends with `close`, which cancels what
    is still running and awaits `closing` on the loop. All methods may be called from every thread but its own."""

    def __init__(self, closing: Callable[[], Awaitable[None]]) -> None:
        self._closing = closing
        self._lock = threading.Lock()
        self._started = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._pid = 0
        self.closed = False

    @property
    def open(self) -> bool:
        """There is a thread to be ended."""
        return self._thread is not None and not self.closed and self._pid == os.getpid()

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Its result, or what it raises. It is cancelled when the waiting thread is interrupted (Ctrl-C)."""
        try:
            loop = self._running()
        except BaseException:
            coroutine.close()
            raise
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError("this client was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncGenerator[_T, None]) -> Generator[_T, None, None]:
        """The same items; closing the generator, or dropping it, closes `items`."""
        try:
            while True:
                item = self.call(_next(items))
                if item is _END:
                    return
                yield item
        finally:
            self._finish(items)

    def iterate_batches(self, batches: AsyncGenerator[tuple[_T, ...], None]) -> Generator[_T, None, None]:
        """The items of each batch: one way into the thread and back for all of them."""
        for batch in self.iterate(batches):
            yield from batch

    def close(self) -> None:
        """Once is enough, more does no harm."""
        with self._lock:
            thread, loop, ended = self._thread, self._loop, self._ended
            alive = self.open
            self.closed = True
        if not alive or thread is None or loop is None or ended is None:
            return
        loop.call_soon_threadsafe(ended.set)
        if thread is not threading.current_thread():  # where a collector drops the client, it is its own
            thread.join(_CLOSE_SECONDS)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self.closed:
                raise RuntimeError("this client is closed: make another one")
            if self._thread is None:
                self._pid = os.getpid()
                self._thread = threading.Thread(target=self._run, name="fleetctl-client", daemon=True)
                self._thread.start()
                self._started.wait(_START_SECONDS)
            if self._pid != os.getpid():
                raise RuntimeError("this client was used before a fork: make one in each process")
            if self._thread is threading.current_thread() or self._loop is None:
                raise RuntimeError("this client cannot be called from its own thread")
            return self._loop

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        await self._ended.wait()
        callers = asyncio.all_tasks() - {asyncio.current_task()}
        for task in callers:
            task.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await self._closing()

    def _finish(self, items: AsyncGenerator[_T, None]) -> None:
        """Also from a collector, in whichever thread it runs."""
        if not self.open or self._loop is None:
            return
        future = asyncio.run_coroutine_threadsafe(items.aclose(), self._loop)
        if threading.current_thread() is not self._thread:
            future.exception(_CLOSE_SECONDS)


class PortalOwner:
    """Closes its portal: at the end of a `with`, by `close`, or at the latest when it is dropped."""

    def __init__(self, closing: Callable[[], Awaitable[None]]) -> None:
        self._portal = Portal(closing)
        self._finalizer = weakref.finalize(self, self._portal.close)

    def close(self) -> None:
        """Close every connection; calls of other threads that are under way raise RuntimeError. Rollouts go on."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        portal = getattr(self, "_portal", None)
        if portal is not None and portal.open:
            warnings.warn(
                f"unclosed {type(self).__name__}: use it in a `with`", ResourceWarning, source=self, stacklevel=2
            )


async def _next(items: AsyncGenerator[_T, None]) -> Any:
    return await anext(items, _END)
