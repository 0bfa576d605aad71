"""The global options, given before or after the command."""

import os
from dataclasses import dataclass, replace
from typing import Any

DEFAULT_CALL_SECONDS = 10.0
DEFAULT_OPERATION_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What every command obeys. `timeout` is in seconds; None: the command's own default."""

    controllers: tuple[str, ...] = ()
    context: str | None = None
    output: str = "table"
    quiet: bool = False
    no_color: bool = False
    timeout: float | None = None
    yes: bool = False

    def overridden(self, options: dict[str, Any]) -> "Settings":
        """With those options that were given."""
        return replace(self, **{name: value for name, value in options.items() if value not in (None, False, ())})

    @property
    def call_seconds(self) -> float:
        """The deadline of one call."""
        return min(self.timeout or DEFAULT_CALL_SECONDS, DEFAULT_CALL_SECONDS)

    @property
    def operation_seconds(self) -> float:
        """How long an operation is watched."""
        return self.timeout or DEFAULT_OPERATION_SECONDS

    @property
    def colourless(self) -> bool:
        """NO_COLOR counts when it is not empty (no-color.org)."""
        return self.no_color or bool(os.environ.get("NO_COLOR"))

    @property
    def structured(self) -> bool:
        """A program reads the output."""
        return self.output != "table"
