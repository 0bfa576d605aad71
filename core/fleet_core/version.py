"""The one place that names this program's version and the protocol version it speaks."""

from importlib.metadata import PackageNotFoundError, version

PROTOCOL_VERSION = 1
"""Sent in every hello. A peer of another version is refused with a sentence that names both."""


def program_version() -> str:
    """The installed distribution's version, or "0+unknown" when run from a bare checkout."""
    try:
        return version("fleetctl")
    except PackageNotFoundError:
        return "0+unknown"
