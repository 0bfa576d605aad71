"""How people read values: durations, sizes, states, text from elsewhere. Pure."""

import math
import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_BYTES = re.compile(r"(\d+(?:\.\d+)?)(?:([KMGT])(?:I?B)?|B)?", re.ASCII)
# Escape sequences of a terminal (ECMA-48): CSI; the strings OSC, DCS, SOS, PM and APC up to their end; two characters.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROL_BUT_COLOUR = re.compile(r"[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;:]*m)")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def duration(seconds: float) -> str:
    """Two units at most: 0.8s, 42s, 3m12s, 5h07m, 12d4h."""
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600}h"


def parse_duration(text: str) -> float:
    """Seconds of "30", "30s", "1.5m", "2h"; ValueError says what is wrong."""
    match = _DURATION.fullmatch(text)
    if match is None or not math.isfinite(float(match[1])):
        raise ValueError(f"{text!r} is not a duration: write 30s, 5m or 1h")
    return float(match[1]) * _UNITS[match[2] or "s"]


def parse_bytes(text: str) -> int:
    """Bytes of "300M", "1.5G", "512KiB", "4096": binary units, as systemd and PM2 count; ValueError says what is wrong."""
    match = _BYTES.fullmatch(text.upper())
    if match is None or len(text) > 30:
        raise ValueError(f"{text!r} is not a number of bytes: write 300M, 1.5G or 1048576")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2] or " "))


def size(count: int) -> str:
    """Bytes in binary units, three figures: 512 B, 54.3 MiB, 1.20 GiB."""
    if count < 1024:
        return f"{count} B"
    value, unit = float(count), "B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):  # noqa: B007
        value /= 1024
        if value < 999.5:
            break
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def state_word(enum_name: str, prefix: str) -> str:
    """ "WORKER_STATE_READY" → "ready"; what this fleetctl does not know yet → "unknown"."""
    word = enum_name.removeprefix(prefix).lower().replace("_", "-")
    return "unknown" if word == "unspecified" else word


def count(number: int, noun: str) -> str:
    """1 worker, 2 workers."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    """Text from elsewhere on one line, without the control characters that could move the cursor of a terminal."""
    return _UNPRINTABLE.sub(" ", _SEQUENCE.sub("", text)).strip()


def printed_line(text: str) -> str:
    """A line that a program printed, as plain text: its indentation stays, its colours go."""
    return _UNPRINTABLE.sub("", _SEQUENCE.sub("", text).expandtabs()).rstrip()


def coloured_line(text: str) -> str:
    """A line that a program printed, harmless on a terminal: only tabs and its colours (SGR, ECMA-48) stay."""
    if text.isprintable():
        return text
    kept = _SEQUENCE.sub(lambda match: match[0] if _COLOUR.fullmatch(match[0]) else "", text)
    return _CONTROL_BUT_COLOUR.sub("", kept)
