"""What HAProxy says against a configuration: whose route it is about, and in which words. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleet_balancer.driver import DriverError

_ALERT = re.compile(r"\[ALERT\]\s+(?:\S+\s+)?\(\d+\) : (?:config : )?(.*)")
_PLACE = re.compile(r"parsing \[[^\]]*:(\d+)\] ?: ?(.*)")
_SUMMARY = re.compile(r"(Error\(s\)|Fatal errors|Some configuration|config : )")
_SECTION = re.compile(r"(backend|cache|frontend) (\S+)")
_LONGEST = 120


class ConfigurationRefusedError(DriverError):
    """HAProxy does not start with a configuration; `pool`: whose part it is that it does not want, or "" where it did not say."""

    def __init__(self, message: str, pool: str) -> None:
        super().__init__(message)
        self.pool = pool


@dataclass(frozen=True, slots=True)
class Complaint:
    pool: str
    """Empty: it is not known whose part it is about."""
    words: str


def complaint(output: str, configuration: str, pools: Mapping[str, Iterable[str]]) -> Complaint:
    """The first thing that HAProxy's output says is wrong. `pools`: the names of each one's frontends, "" among others'."""
    alerts = [match[1].strip() for line in output.splitlines() if (match := _ALERT.search(line))]
    alerts = [alert for alert in alerts if not _SUMMARY.match(alert)] or alerts
    if not alerts:
        return Complaint("", (output.strip().splitlines() or ["it said nothing"])[-1].strip())
    lines = configuration.splitlines()
    place = _PLACE.match(alerts[0])
    if place is None:
        return Complaint(_mentioned(alerts[0], pools), _short(alerts[0]))
    number = min(int(place[1]), len(lines))
    shown = lines[number - 1].strip() if number else ""
    return Complaint(_owner(lines[:number], pools), f"{_short(place[2].rstrip('.'))}, in `{_short(shown)}`")


def _short(words: str) -> str:
    """Both ends: HAProxy says at the end why, after all of what it is about."""
    return words if len(words) <= 2 * _LONGEST else f"{words[:_LONGEST]} … {words[-_LONGEST:]}"


def _owner(lines: list[str], pools: Mapping[str, Iterable[str]]) -> str:
    """Whose section the last of `lines` is in."""
    for line in reversed(lines):
        if section := _SECTION.fullmatch(line):
            return _pool(section[2], pools)
    return ""


def _mentioned(alert: str, pools: Mapping[str, Iterable[str]]) -> str:
    return next((found for word in re.findall(r"'([^']+)'", alert) if (found := _pool(word.split("/")[0], pools))), "")


def _pool(section: str, pools: Mapping[str, Iterable[str]]) -> str:
    """Whose section it is: a cache has the pool's name, a backend begins with it, a frontend may be that of several."""
    for name in (section, section.rpartition(".")[0]):
        if name in pools:
            return name
    sharing = [name for name, frontends in pools.items() if section in frontends]
    return sharing[0] if len(sharing) == 1 else ""
