"""The one place that names this program's version and the protocol version it speaks."""

import sys
from pathlib import Path

PROTOCOL_VERSION = 1
"""Sent in every hello. A peer of another version is refused with a sentence that names both."""

_INSTALLED = "fleetctl-*.dist-info"


def program_version() -> str:
    """The installed distribution's version, or "0+unknown" when run from a bare checkout.

    By the name of its folder (Binary distribution format, "The .dist-info directory"): importlib.metadata weighs 3 MiB in every
    daemon.
    """
    for folder in sys.path:
        for found in Path(folder).glob(_INSTALLED):
            return found.name.removesuffix(".dist-info").partition("-")[2]
    return "0+unknown"
