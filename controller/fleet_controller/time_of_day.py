"""The time of day, for people. Nothing is decided by it."""

from datetime import UTC, datetime


def time_of_day() -> str:
    """RFC 3339, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
