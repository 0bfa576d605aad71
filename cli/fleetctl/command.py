"""What every command of fleetctl has in common: the global options, types of arguments, completion of apps' names."""

from collections.abc import Callable
from typing import Any

import click

from fleetctl.client.addresses import parse_addresses
from fleetctl.settings import Settings
from fleetctl.wording import parse_bytes, parse_duration

OUTPUT_FORMATS = ("table", "json", "yaml")
_OWN = "Options"


class DurationType(click.ParamType[float]):
    """Seconds, written 30, 30s, 5m or 1h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class PositiveDurationType(DurationType):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = super().convert(value, param, ctx)
        if seconds == 0:
            self.fail("must be more than 0", param, ctx)
        return seconds


DURATION = DurationType()
POSITIVE_DURATION = PositiveDurationType()


class WholeNumber(click.IntRange):
    """A range of numbers, called what people call it."""

    name = "whole number"


class Number(click.FloatRange):
    name = "number"


class BytesType(click.ParamType[int]):
    """Bytes, written 300M, 1.5G or 1048576."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


BYTES = BytesType()


class AddressesType(click.ParamType[tuple[str, ...]]):
    """ADDR[,ADDR], each "host:port"."""

    name = "addresses"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return parse_addresses(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _complete_contexts(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from fleet_core.contexts import ContextError, load_contexts

    try:
        return [name for name in sorted(load_contexts().by_name) if name.startswith(incomplete)]
    except ContextError:
        return []


def global_options() -> list[click.Option]:
    """Fresh parameters: click ties each to one command."""
    return [
        click.Option(
            ["-C", "--controller", "controllers"],
            type=AddressesType(),
            metavar="ADDR[,ADDR]",
            help="Controllers to talk to, with the context's certificates.",
        ),
        click.Option(
            ["--context"],
            metavar="NAME",
            shell_complete=_complete_contexts,
            help="The fleet to talk to; default: the current one.",
        ),
        click.Option(["-o", "--output"], type=click.Choice(OUTPUT_FORMATS), help="How to print; default: table."),
        click.Option(["-q", "--quiet"], is_flag=True, help="Names only; no progress."),
        click.Option(["--no-color"], is_flag=True, help="Plain text, as with NO_COLOR."),
        click.Option(
            ["--timeout"],
            type=PositiveDurationType(),
            metavar="TIME",
            help="Give up waiting after this long (30s, 5m).",
        ),
        click.Option(["-y", "--yes"], is_flag=True, help="Answer every question with yes."),
    ]


GLOBAL_NAMES = tuple(str(option.name) for option in global_options())


class SectionOption(click.Option):
    """An option that the help shows under a title of its own."""

    def __init__(self, *args: Any, section: str = _OWN, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Without the range: whoever leaves it is told."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


class FleetCommand(click.Command):
    """A command that takes the global options too and hands its callback the merged Settings first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(global_options())

    def invoke(self, ctx: click.Context) -> Any:
        given = {name: ctx.params.pop(name) for name in GLOBAL_NAMES}
        settings: Settings = (ctx.obj or Settings()).overridden(given)
        ctx.params = {"settings": settings, **ctx.params}
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {_OWN: []}
        shared: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None or isinstance(param, click.Argument):
                continue
            if param.name in GLOBAL_NAMES:
                shared.append(record)
            else:
                title = param.section if isinstance(param, SectionOption) else _OWN
                sections.setdefault(title, []).append(record)
        for title, records in (*sections.items(), ("Global options", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def fleet_command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """`click.command` with the global options; the callback takes `settings` first."""
    cls = attributes.pop("cls", FleetCommand)
    return click.command(name, cls=cls, context_settings={"max_content_width": 100}, **attributes)


NO_WAIT = click.option("--no-wait", is_flag=True, help="Return at once; the rollout goes on.")
