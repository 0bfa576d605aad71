"""How fleetctl fails: one clear line, perhaps a second with the next step, and an exit code scripts can rely on."""

from collections.abc import Sequence

from fleetctl.client.errors import ExitCode, FleetError, UnavailableError

__all__ = ["CliError", "ExitCode", "FleetError", "UnavailableError"]


class CliError(FleetError):
    """Ends the command. `hint` is the next step, where one is known; it is dropped where the message names one itself.
    `details` are lines between the two."""

    def __init__(self, exit_code: ExitCode, message: str, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message, hint, details)
        self.exit_code = exit_code
