"""The end of every HAProxy of a runtime folder, with or without a fleet-balancer."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from fleet_balancer.haproxy import process as processes
from fleet_balancer.haproxy.instance import Files


async def stop_all(runtime_dir: Path, grace: float) -> int:
    """End every HAProxy of this runtime folder gracefully, after `grace` seconds in any case. Returns how many there were."""
    async with _closing(processes.running(runtime_dir)) as found:
        for process in found.values():
            process.send(
                signal.SIGUSR1
            )  # soft stop: listeners close, connections end by themselves (Management Guide §4)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await asyncio.gather(*(process.ended() for process in found.values()))
        await asyncio.gather(*(process.end(signal.SIGTERM, 2.0) for process in found.values()))
        for number in found:
            Files(runtime_dir, number).remove()
        return len(found)


@contextlib.asynccontextmanager
async def _closing(
    found: dict[int, processes.HaproxyProcess],
) -> AsyncIterator[dict[int, processes.HaproxyProcess]]:
    try:
        yield found
    finally:
        for process in found.values():
            process.close()
