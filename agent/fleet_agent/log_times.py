"""Which lines of a log are new enough, by the time they bear. Pure."""

import re
from datetime import datetime

_STAMP = re.compile(rb'\[?(?:\{"time":")?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d))')


def line_time(line: bytes) -> float | None:
    """Seconds since 1970, of a line that begins with an RFC 3339 time, or with a JSON object whose first key is `time`."""
    match = _STAMP.match(line)
    if match is None:
        return None
    try:
        return datetime.fromisoformat(match[1].decode()).timestamp()
    except ValueError:
        return None


class SinceFilter:
    """Lines of one log in their order: those since a time. A line without one belongs to the line before it; where none before it
    bears a time either, it passes, and only its file's age has been judged."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._passing = True

    def take(self, lines: list[bytes]) -> list[bytes]:
        if not self._since:
            return lines
        passed: list[bytes] = []
        for line in lines:
            at = line_time(line)
            if at is not None:
                self._passing = at >= self._since
            if self._passing:
                passed.append(line)
        return passed
