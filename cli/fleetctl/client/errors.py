"""How calls fail: one small hierarchy, whose classes mean what fleetctl's exit codes mean."""

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from fleetctl.client.values import Applied, RolloutStatus


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


class FleetError(Exception):
    """Any call may raise one. `message` is one line; `hint` the next step, where one is known and the message names none;
    `details` are lines of evidence, such as what a worker printed last; `exit_code` is what fleetctl would exit with."""

    code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.exit_code = self.code
        self.message = message
        self.hint = "" if "fleetctl " in message else hint
        self.details = tuple(details)


class UsageError(FleetError):
    """What was asked for makes no sense, here or in the controller's eyes; nothing was changed."""

    code = ExitCode.USAGE


class InvalidSpec(UsageError, ValueError):  # noqa: N818 (an interface; as the others, it reads as a sentence where it is caught)
    """A rule of `AppSpec` is broken: the message begins with the field."""


class Unreachable(FleetError):  # noqa: N818
    """No controller could be reached, or none leads, or it did not answer in time."""

    code = ExitCode.UNREACHABLE


class UnavailableError(Unreachable):
    """No controller could answer just now; what only waits may ask again."""


class NotFound(FleetError):  # noqa: N818
    """No app, host, worker, revision or file has that name."""

    code = ExitCode.NOT_FOUND


class Refused(FleetError):  # noqa: N818
    """The controller will not do it now, or not for this certificate; nothing was changed."""

    code = ExitCode.REFUSED


class StillRunning(FleetError, TimeoutError):  # noqa: N818
    """A wait ended at its deadline; what was waited for goes on."""

    code = ExitCode.STILL_RUNNING


class RolloutTimeout(StillRunning):
    """`rollout` is how far it was."""

    def __init__(self, message: str, rollout: "RolloutStatus") -> None:
        super().__init__(message)
        self.rollout = rollout

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.message, self.rollout)


class RolloutFailed(FleetError):  # noqa: N818
    """A rollout ended, and not as asked: `rollout.state` is failed, aborted or superseded.

    `worker` ("my-app/host1/3") is the one that made it fail, `reason` why, `last_lines` what it printed last; empty where
    no worker did. `details` say the same for people.
    """

    def __init__(self, message: str, rollout: "RolloutStatus", hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message, hint, details)
        self.rollout = rollout
        failed = rollout.failed_worker
        self.worker = failed.id if failed else ""
        self.reason = failed.reason if failed else rollout.message
        self.last_lines = failed.last_lines if failed else ()

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.message, self.rollout, self.hint, self.details)


class DrainFailed(FleetError):  # noqa: N818
    """The drain was called off by somebody."""


class ApplyFailed(FleetError):  # noqa: N818
    """Not everything is as the file says: `apps` has what became of each."""

    def __init__(self, message: str, apps: "Sequence[Applied]", details: Sequence[str] = ()) -> None:
        super().__init__(message, details=details)
        self.apps = tuple(apps)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.message, self.apps, self.details)


_KINDS: dict[ExitCode, type[FleetError]] = {
    kind.code: kind for kind in (FleetError, UsageError, Unreachable, NotFound, Refused, StillRunning)
}


def of_kind(code: ExitCode, message: str, hint: str = "", details: Sequence[str] = ()) -> FleetError:
    """To be raised: the class of `code`."""
    return _KINDS.get(code, FleetError)(message, hint, details)
