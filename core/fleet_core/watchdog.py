"""Showing the service manager that an event loop turns (systemd.service(5), "WatchdogSec=")."""

import asyncio

from fleet_core import service_manager

_PART = 0.4
"""Of the time given: one sign may get lost, or come late."""


async def show_life() -> None:
    """Until cancelled. Returns never, also where nobody waits for it."""
    seconds = service_manager.watchdog_seconds()
    if seconds is None:
        await asyncio.Event().wait()
        return
    while True:
        service_manager.notify("WATCHDOG=1")
        await asyncio.sleep(seconds * _PART)
