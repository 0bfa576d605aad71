"""One loop for all that a command asks the fleet."""

import asyncio

import click
import pytest
from click.testing import CliRunner

from fleetctl import event_loop


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_a_command_has_one_loop_which_is_closed_at_its_end() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @click.group()
    def fleetctl() -> None:
        pass

    @fleetctl.command()
    def twice() -> None:
        loops.extend([event_loop.run(_loop()), event_loop.run(_loop())])

    CliRunner().invoke(fleetctl, ["twice"], catch_exceptions=False)

    assert loops[0] is loops[1], "what grpc leaves behind of one call finds its loop closed in the next"
    assert loops[0].is_closed()


def test_the_loop_outlives_a_call_that_failed_and_one_that_was_interrupted() -> None:
    async def fail(error: BaseException) -> None:
        raise error

    with click.Context(click.Command("fleetctl")) as context, context.scope():
        first = event_loop.run(_loop())
        for error in (ValueError("no"), KeyboardInterrupt()):
            with pytest.raises(type(error)):
                event_loop.run(fail(error))
        assert event_loop.run(_loop()) is first


def test_without_a_command_line_every_call_has_its_own() -> None:
    assert event_loop.run(_loop()).is_closed()
