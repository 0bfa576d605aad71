"""What ends `fleetctl up` with one clear line."""

from fleetctl.errors import CliError, ExitCode


class UpError(CliError):
    """Refused, unless it says otherwise: a precondition does not hold, and nothing was started."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.REFUSED) -> None:
        super().__init__(exit_code, message)
