"""What is written after options that describe an app, and the values they stand for."""

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from fleet_core.route import LONGEST_PAGE
from fleetctl.command import POSITIVE_DURATION

UNLIMITED = -1
_UNLIMITED_WORDS = frozenset({"unlimited", "infinity"})


class PairType(click.ParamType[tuple[str, str]]):
    name = "K=V"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, content = value.partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        return key, content


class SlotPairType(click.ParamType[tuple[int, str, str]]):
    name = "SLOT:K=V"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, str, str]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9][0-9]{0,8}):([^=]+)=(.*)", value, re.DOTALL)
        if match is None:
            self.fail(f"{value!r} is not SLOT:KEY=VALUE, for example 1:ROLE=primary", param, ctx)
        return int(match[1]), match[2], match[3]


class LimitType(click.ParamType[tuple[str, dict[str, int]]]):
    """NAME=SOFT[:HARD], as systemd's Limit…= takes them: one value sets both."""

    name = "NAME=SOFT[:HARD]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, dict[str, int]]:
        if isinstance(value, tuple):
            return value
        name, _, numbers = value.partition("=")
        soft_text, colon, hard_text = numbers.partition(":")
        try:
            soft = _limit(soft_text)
            hard = _limit(hard_text) if colon else soft
        except ValueError:
            self.fail(f"{value!r} is not NAME=SOFT[:HARD], for example NOFILE=65536 or CORE=0:unlimited", param, ctx)
        if hard != UNLIMITED and (soft == UNLIMITED or soft > hard):
            self.fail(f"{value!r}: the soft limit is above the hard one", param, ctx)
        return name.upper().removeprefix("RLIMIT_"), {"soft": soft, "hard": hard}


class RateType(click.ParamType[dict[str, float]]):
    """N/TIME."""

    name = "N/TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        if isinstance(value, dict):
            return value
        count, slash, period = value.partition("/")
        if not slash or not count.isascii() or not count.isdecimal() or len(count) > 9 or not int(count):
            self.fail(f"{value!r} is not N/TIME, for example 100/10s", param, ctx)
        return {"requests": int(count), "per_seconds": POSITIVE_DURATION.convert(period, param, ctx)}


class PageType(click.ParamType[tuple[int, str]]):
    """STATUS=FILE; the file's content becomes part of the spec."""

    name = "STATUS=FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, str]:
        if isinstance(value, tuple):
            return value
        status, equals, file = value.partition("=")
        if not equals or not re.fullmatch(r"[1-5][0-9]{2}", status):
            self.fail(f"{value!r} is not STATUS=FILE, for example 503=./busy.html", param, ctx)
        try:
            with Path(file).open("rb") as opened:
                return int(status), opened.read(LONGEST_PAGE + 1).decode()
        except OSError as error:
            self.fail(f"{file}: {error.strerror}", param, ctx)
        except UnicodeDecodeError:
            self.fail(f"{file}: not text in UTF-8, or longer than {LONGEST_PAGE} bytes", param, ctx)


class CommandType(click.ParamType[tuple[str, ...]]):
    """A command line, split as a shell would split it (no shell runs it)."""

    name = "command"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        try:
            words = tuple(shlex.split(value))
        except ValueError as error:
            self.fail(f"{value!r} cannot be split into words: {str(error).lower()}", param, ctx)
        if not words:
            self.fail("it is empty: write a program and its arguments", param, ctx)
        return words


class SignalType(click.ParamType[str]):
    """SIGINT, INT or int; whether there is such a signal is the spec's rule."""

    name = "signal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return f"SIG{str(value).upper().removeprefix('SIG')}"


class ModeType(click.Choice[str]):
    """A choice written with hyphens, as options are, for a field written with underscores."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(value, param, ctx).replace("-", "_")


class ReadyType(click.Choice[str]):
    """A way to be ready; "auto", which says nothing, becomes ""."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        chosen = super().convert(value, param, ctx)
        return "" if chosen == "auto" else chosen


def _limit(text: str) -> int:
    """Raises ValueError."""
    if text.lower() in _UNLIMITED_WORDS:
        return UNLIMITED
    if not text.isascii() or not text.isdecimal() or len(text) > 19:
        raise ValueError(text)
    return int(text)


def by_slot(triples: Iterable[tuple[int, str, str]]) -> dict[int, dict[str, str]]:
    slots: dict[int, dict[str, str]] = {}
    for slot, key, content in triples:
        slots.setdefault(slot, {})[key] = content
    return slots
