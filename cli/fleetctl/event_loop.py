"""The event loop of a command that talks to the fleet more than once.

One for all of it: grpc hands what a call leaves behind to the loop it was made on, and prints a traceback where that is closed by
then.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

_T = TypeVar("_T")
_RUNNER = "fleetctl.event_loop"


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """As asyncio.run, on the loop that the command line's context owns and closes."""
    context = click.get_current_context(silent=True)
    if context is None:
        return asyncio.run(coroutine)
    root = context.find_root()
    runner = root.meta.get(_RUNNER)
    if runner is None:
        runner = root.meta[_RUNNER] = root.with_resource(asyncio.Runner())
    return runner.run(coroutine)
