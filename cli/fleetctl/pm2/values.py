"""PM2's values: what JavaScript and PM2's schema take for a number, a time, a size, a list. Pure."""

import json
import re
from decimal import Decimal
from typing import Any

_TIME = re.compile(r"(\d+(?:\.\d+)?)(h|m|s)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(G|M|K)?")
_TIMES = {"h": 3600.0, "m": 60.0, "s": 1.0, None: 0.001}
_SIZES = {"G": 1024**3, "M": 1024**2, "K": 1024, None: 1}
_WORD = re.compile(r"""[^\s"'=]+="[^"]*"|[^\s"'=]+='[^']*'|"([^"]*)"|'([^']*)'|\S+""")
_MOST_SECONDS = 86_400.0


def text(value: Any) -> str:
    """As JavaScript's String(); what is no scalar as JSON, as PM2 does with variables."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number_text(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _number_text(value: float) -> str:
    """As JavaScript's Number::toString: digits up to 1e21 and down to 1e-6, else an exponent without a leading 0."""
    try:
        digits = repr(float(value))
    except OverflowError:
        return "-Infinity" if value < 0 else "Infinity"
    if "n" in digits:
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[digits]
    size = abs(float(value))
    if size >= 1e21 or 0 < size < 1e-6:
        mantissa, _, exponent = digits.partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"
    found = f"{Decimal(digits):f}" if size else "0"
    return found.rstrip("0").rstrip(".") if "." in found else found


def word(value: Any) -> str:
    """A text, or a number as one. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{text(value)} is not a text")
    return text(value)


def number(value: Any) -> float:
    """Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{text(value)} is not a number")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{value!r} is not a number") from None


def whole(value: Any) -> int:
    """Raises ValueError."""
    found = number(value)
    if not found.is_integer():
        raise ValueError(f"{text(value)} is not a whole number")
    return int(found)


def milliseconds(value: Any) -> float:
    """Seconds of a number of milliseconds, bounded by a day. Raises ValueError."""
    found = number(value)
    if found < 0:
        raise ValueError(f"{text(value)} is negative")
    return min(found / 1000, _MOST_SECONDS)


def uptime(value: Any) -> float:
    """Seconds of PM2's "stime": milliseconds, or 10s, 5m, 1h. Raises ValueError."""
    match = _TIME.fullmatch(text(value))
    if match is None:
        raise ValueError(f"{text(value)!r} is not a time: write milliseconds, 10s, 5m or 1h")
    return min(float(match[1]) * _TIMES[match[2]], _MOST_SECONDS)


def size(value: Any) -> int:
    """Bytes of PM2's "sbyte": bytes, or 300K, 300M, 1G. Raises ValueError."""
    match = _SIZE.fullmatch(text(value))
    if match is None:
        raise ValueError(f"{text(value)!r} is not a size: write bytes, 300K, 300M or 1G")
    return int(float(match[1]) * _SIZES[match[2]])


def words(value: Any) -> tuple[str, ...]:
    """A list, or a text split as PM2 splits it (lib/tools/Config.js). Raises ValueError."""
    if isinstance(value, list):
        return tuple(text(item) for item in value)
    if not isinstance(value, str):
        return (word(value),)
    found = [match[0] for match in _WORD.finditer(value)]
    bare = [word[1:-1] if word[0] in "\"'" and word[-1:] == word[0] and len(word) > 1 else word for word in found]
    return tuple(word for word in bare if word.strip())


def flag(value: Any) -> bool:
    """Raises ValueError."""
    if not isinstance(value, bool):
        raise ValueError(f"{text(value)!r} is not true or false")
    return value
