"""The fleet that the global options name."""

from typing import Self

from fleetctl.client import connection
from fleetctl.settings import Settings


class Connection(connection.Connection):
    """The fleet's control API; use as an async context manager, which closes every channel."""

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """To the fleet the settings name. Raises FleetError; connects only when a call is made."""
        return cls.find(settings.controllers, settings.context, settings.call_seconds)
