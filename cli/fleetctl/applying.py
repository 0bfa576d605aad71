"""Carries out what a file asks for, one app after the other, and keeps what became of each."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.apply_outcome import DONE, Outcome, Present, code_digest, unchanged
from fleetctl.apply_plan import Plan, Request, Verdict
from fleetctl.client.present import fetch_present
from fleetctl.client.rollouts import begin_rollout
from fleetctl.client.values import Result
from fleetctl.connection import Connection
from fleetctl.errors import CliError, ExitCode, FleetError
from fleetctl.event_loop import run
from fleetctl.operation import Begin, carry_out, new_request_id, newest_rollout
from fleetctl.output import Output
from fleetctl.packing import Archive
from fleetctl.sending import send
from fleetctl.settings import Settings

_ENDS_ALL = (ExitCode.UNREACHABLE, ExitCode.STILL_RUNNING, ExitCode.DETACHED)


@dataclass(slots=True)
class Apply:
    """One run over a file. Apps come in the file's order; one that fails does not keep the next from its turn, a lost
    controller, a timeout and Ctrl-C do."""

    settings: Settings
    output: Output
    supersede: bool = False
    archives: Mapping[str, Archive] = field(default_factory=dict)
    """Code that may have to be sent, by its digest."""
    outcomes: list[Outcome] = field(default_factory=list)

    def carry_out(self, plans: Iterable[Plan | Outcome], present: Sequence[control_pb2.App]) -> None:
        """Outcomes among the plans are what could not even be planned."""
        by_name = {app.name: app for app in present}
        for plan in plans:
            if isinstance(plan, Outcome):
                self.outcomes.append(plan)
                self._tell(plan)
            elif self._over:
                self.outcomes.append(Outcome(plan.app, Result.NOT_BEGUN, plan.differences))
            elif plan.verdict is Verdict.SAME:
                self._unchanged(by_name[plan.app])
            else:
                self._try(Outcome(plan.app, DONE[plan.verdict], plan.differences), plan.requests)

    def remove(self, apps: Iterable[str]) -> None:
        for app in apps:
            if self._over:
                self.outcomes.append(Outcome(app, Result.NOT_BEGUN))
            else:
                self._try(Outcome(app, Result.REMOVED), (control_pb2.RemoveAppRequest(app=app),))

    def conclude(self, file: str, left_alone: Sequence[str]) -> None:
        """Say how it ended; raises CliError where not everything is as the file says."""
        if self.settings.structured:
            apps = [outcome.view() for outcome in self.outcomes]
            self.output.document({"file": file, "apps": apps, "left_alone": list(left_alone)})
        elif not self.settings.quiet:
            if left_alone:
                self.output.line(f"not in the file, left alone: {', '.join(left_alone)}")
            self.output.line(self._summary())
        bad = [outcome for outcome in self.outcomes if outcome.result in (Result.FAILED, Result.NOT_BEGUN)]
        if not bad:
            return
        codes = {outcome.code for outcome in bad if outcome.result is Result.FAILED}
        if len(bad) == 1 and len(self.outcomes) == 1:
            told = not (self.settings.structured or self.settings.quiet)
            raise CliError(bad[0].code, bad[0].message, details=() if told else bad[0].details)
        named = ", ".join(outcome.app for outcome in bad)
        reasons = [f"{outcome.app}: {outcome.message or outcome.result.value}" for outcome in bad]
        raise CliError(
            codes.pop() if len(codes) == 1 else ExitCode.FAILED, f"not as {file} says: {named}", details=reasons
        )

    @property
    def _over(self) -> bool:
        return any(outcome.code in _ENDS_ALL for outcome in self.outcomes)

    def _try(
        self,
        outcome: Outcome,
        requests: Sequence[Request | control_pb2.RemoveAppRequest],
        *,
        under_way: bool = False,
    ) -> None:
        """Each request's rollout is waited for before the next is sent; with `under_way` the app's newest one."""
        try:
            for request in requests:
                self._one(outcome.app, request)
            if under_way:
                self._wait(outcome.app, lambda connection: newest_rollout(connection, outcome.app))
        except FleetError as error:
            outcome.result, outcome.message, outcome.code = Result.FAILED, error.message, error.exit_code
            outcome.details = (*error.details, error.hint) if error.hint else error.details
            self._tell(outcome)
        self.outcomes.append(outcome)

    def _one(self, app: str, request: Request | control_pb2.RemoveAppRequest) -> None:
        request.request_id = new_request_id()
        request.options.supersede = self.supersede

        archive = self.archives.get(code_digest(request))

        async def begin(connection: Connection) -> control_pb2.Rollout:
            if archive is not None:
                await send(connection, archive, self._told)
            return await begin_rollout(connection, request)

        self._wait(app, begin)

    @property
    def _told(self) -> Output:
        """Programs get one document, at the end."""
        return Output(self.settings.overridden({"output": "table", "quiet": self.settings.structured}))

    def _wait(self, app: str, begin: Begin) -> None:
        output = self._told
        carry_out(output.settings, output, app, begin, no_wait=False)

    def _unchanged(self, app: control_pb2.App) -> None:
        """A rollout under way is waited for until it is also true."""
        outcome = unchanged(app)
        if app.HasField("rollout") and views.under_way(app.rollout):
            self._try(outcome, (), under_way=True)
            return
        self.outcomes.append(outcome)
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        if self.settings.structured or self.settings.quiet:
            return
        if outcome.result is Result.FAILED:
            named = outcome.app in outcome.message
            self.output.note(outcome.message if named else f"{outcome.app}: {outcome.message}")
            for line in outcome.details:
                self.output.note(f"  {line}")
        else:
            self.output.line(
                (outcome.app, "bold"), f" {outcome.result}", f", but {outcome.message}" if outcome.message else ""
            )

    def _summary(self) -> str:
        counts = [(result, sum(outcome.result is result for outcome in self.outcomes)) for result in Result]
        return ", ".join(f"{number} {result}" for result, number in counts if number) or "no apps"


async def _fetch(settings: Settings, unsent: Collection[str]) -> Present:
    async with Connection.open(settings) as connection:
        return await fetch_present(connection, unsent)


def present_fleet(settings: Settings, unsent: Collection[str] = ()) -> Present:
    """The apps and the hosts there are, and which of `unsent` the controllers lack. Raises CliError."""
    return run(_fetch(settings, unsent))
