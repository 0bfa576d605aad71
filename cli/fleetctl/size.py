"""The size of an app as an argument: 8, +2, cpu."""

from typing import Any

import click

from fleetctl.client.size import Size
from fleetctl.errors import CliError, ExitCode

__all__ = ["Size", "SizeType"]


class SizeType(click.ParamType[Size]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        if isinstance(value, Size):
            return value
        try:
            return Size.parse(value)
        except ValueError as error:
            raise CliError(ExitCode.USAGE, str(error)) from error
