"""What the parts of a client share."""

from collections.abc import Iterator
from contextlib import contextmanager

from fleet.v1 import control_pb2
from fleetctl.client.connection import Connection
from fleetctl.client.errors import NotFound, of_kind
from fleetctl.client.handles import AsyncRollout
from fleetctl.client.rollouts import Mutation, begin_rollout
from fleetctl.client.spec import Names, names_of
from fleetctl.errors import CliError


class Part:
    """Calls over one connection; every one raises FleetError, and NotFound, Refused, Unreachable or UsageError where that says
    more."""

    _connection: Connection

    async def _app(self, name: str) -> control_pb2.App:
        """Raises NotFound."""
        response = await self._connection.call(lambda stub: stub.ListApps, control_pb2.ListAppsRequest(app=name))
        for known in response.apps:
            if known.name == name:
                return known
        raise NotFound(f"no app is named {name}", "`fleetctl ls` shows the apps")

    async def _begin(self, request: Mutation, *, may_change_nothing: bool = False) -> AsyncRollout:
        """`may_change_nothing`: it is answered with an older rollout then."""
        rollout = await begin_rollout(self._connection, request)
        return AsyncRollout(self._connection, rollout, request.request_id if may_change_nothing else "")


def options(supersede: bool, ignore_balancers: Names) -> control_pb2.RolloutOptions:  # noqa: FBT001
    return control_pb2.RolloutOptions(supersede=supersede, ignore_balancers=names_of(ignore_balancers))


@contextmanager
def translated() -> Iterator[None]:
    """What code shared with the commands raises becomes the class of its exit code."""
    try:
        yield
    except CliError as error:
        raise of_kind(error.exit_code, error.message, error.hint, error.details) from error
