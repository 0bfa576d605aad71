"""How fleetctl fails: one clear line, perhaps a second with the next step, and an exit code scripts can rely on."""

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """An interface: docs and scripts rely on each number."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    REFUSED = 5
    STILL_RUNNING = 6
    DETACHED = 130


class CliError(Exception):
    """Ends the command. `hint` is the next step, where one is known; it is dropped where the message names one itself.
    `details` are lines between the two."""

    def __init__(self, exit_code: ExitCode, message: str, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)
        self.exit_code = exit_code
        self.message = message
        self.hint = "" if "fleetctl " in message else hint


class UnavailableError(CliError):
    """No controller could answer just now; what only waits may ask again."""
