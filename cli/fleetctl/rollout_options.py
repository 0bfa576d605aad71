"""The options of every operation that makes a rollout: whether to wait, and what may be in its way."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from fleet.v1 import control_pb2
from fleetctl.command import NO_WAIT, SectionOption
from fleetctl.names import complete_balancers

_SECTION = "In the way"


@dataclass(frozen=True, slots=True)
class Way:
    """How an operation goes about its rollout."""

    no_wait: bool = False
    supersede: bool = False
    ignored_balancers: tuple[str, ...] = ()

    @property
    def options(self) -> control_pb2.RolloutOptions:
        return control_pb2.RolloutOptions(supersede=self.supersede, ignore_balancers=self.ignored_balancers)


def rollout_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the command takes `way`."""

    @functools.wraps(command)
    def with_way(
        *args: Any,
        no_wait: bool,
        supersede: bool,
        ignored_balancers: tuple[str, ...],
        **given: Any,
    ) -> Any:
        return command(*args, way=Way(no_wait, supersede, ignored_balancers), **given)

    for option in (_IGNORE_BALANCER, _SUPERSEDE, NO_WAIT):
        with_way = option(with_way)
    return with_way


_SUPERSEDE = click.option(
    "--supersede",
    cls=SectionOption,
    section=_SECTION,
    is_flag=True,
    help="Take the place of a rollout of the app that is under way.",
)
_IGNORE_BALANCER = click.option(
    "--ignore-balancer",
    "ignored_balancers",
    cls=SectionOption,
    section=_SECTION,
    multiple=True,
    metavar="NAME",
    shell_complete=complete_balancers,
    help="Do not wait for this balancer: what it still sends to a stopped worker fails. Repeatable.",
)
