"""`AsyncClient`: the calls of the command line, for programs with an event loop."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from fleet_core.install.certificates import files_in
from fleetctl.client.addresses import parse_addresses
from fleetctl.client.changing import Changing
from fleetctl.client.connection import Connection, check_readable
from fleetctl.client.errors import UsageError
from fleetctl.client.files import Files
from fleetctl.client.keeping import Keeping
from fleetctl.client.looking import Looking
from fleetctl.client.machines import Machines

CALL_SECONDS = 10.0
_MOST_SECONDS = 3600


class AsyncClient(Looking, Changing, Machines, Keeping, Files):
    """A fleet. Use it as a context manager, in one event loop; it connects when the first call is made.

    Calls find the controller that leads, ask for another while none does for some seconds, and have a deadline of
    `call_timeout` seconds. They raise FleetError: NotFound, Refused, Unreachable, UsageError, RolloutFailed, RolloutTimeout, …
    """

    def __init__(
        self,
        controllers: str | Iterable[str] = (),
        *,
        context: str | None = None,
        certificates: str | Path | None = None,
        call_timeout: float = CALL_SECONDS,
    ) -> None:
        """Without arguments, the fleet that fleetctl talks to.

        `controllers`: "HOST:PORT[,HOST:PORT]", or a list; `certificates`: the folder that `fleetctl cert issue operator NAME`
        made; `context`: a fleet that fleetctl knows, instead of the current one.
        """
        self._connection = connect(controllers, context, certificates, call_timeout)

    @classmethod
    def from_context(cls, name: str, *, call_timeout: float = CALL_SECONDS) -> Self:
        """The fleet that fleetctl knows by this name."""
        return cls(context=name, call_timeout=call_timeout)

    async def aclose(self) -> None:
        """Close every connection. Rollouts go on."""
        await self._connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def connect(
    controllers: str | Iterable[str], context: str | None, certificates: str | Path | None, call_seconds: float
) -> Connection:
    """Raises FleetError; connects when a call is made."""
    if not 0 < call_seconds <= _MOST_SECONDS:
        raise UsageError(f"call_timeout {call_seconds!r} is not valid: give seconds above 0, up to {_MOST_SECONDS}")
    given = controllers if isinstance(controllers, str) else ",".join(controllers)
    try:
        addresses = parse_addresses(given) if given else ()
    except ValueError as error:
        raise UsageError(f"controllers: {error}") from error
    if certificates is None:
        return Connection.find(addresses, context, call_seconds, patient=True)
    if context is not None:
        raise UsageError("context and certificates exclude each other: a context names its certificates")
    if not addresses:
        raise UsageError("where is the fleet? name its controllers beside the certificates: HOST:PORT[,HOST:PORT]")
    files = files_in(Path(certificates).expanduser().absolute())
    check_readable(files, "name the folder that `fleetctl cert issue operator NAME` made")
    return Connection(addresses, files, call_seconds, patient=True)
