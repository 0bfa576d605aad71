"""What can become of an app of a file, in words. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.apply_plan import Impossible, Plan, Request, Verdict, plan_app
from fleetctl.client.errors import ExitCode
from fleetctl.client.values import Change, Result
from fleetctl.fleet_file.document import WantedApp
from fleetctl.wording import count

DONE = {
    Verdict.CREATE: Result.CREATED,
    Verdict.CHANGE: Result.CHANGED,
    Verdict.START: Result.STARTED,
    Verdict.SAME: Result.UNCHANGED,
}


@dataclass(slots=True)
class Outcome:
    """What became of one app."""

    app: str
    result: Result
    differences: tuple[str, ...] = ()
    message: str = ""
    """Why it failed, or what is to be known of it though it is unchanged."""
    code: ExitCode = ExitCode.DONE
    details: tuple[str, ...] = ()

    def view(self) -> dict[str, Any]:
        return {
            "app": self.app,
            "result": self.result.value,
            "differences": list(self.differences),
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Present:
    """What there is to compare a file with."""

    apps: Sequence[control_pb2.App]
    hosts: Sequence[control_pb2.Host]
    missing: frozenset[str] = frozenset()
    """Digests of code that the file names alone, and that the controllers do not have."""

    def app(self, name: str) -> control_pb2.App | None:
        return next((app for app in self.apps if app.name == name), None)


def planned(wanted: WantedApp, present: Present, digests: Mapping[str, str]) -> Plan | Outcome:
    """An outcome where it cannot even be planned. `digests`: app → the code that the file names."""
    digest, app = digests.get(wanted.name, ""), present.app(wanted.name)
    if digest in present.missing and (app is None or app.artifact_digest != digest):
        text = f"this fleet has no code {digest[:12]}: give code a path, or send it first by `fleetctl deploy`"
        return Outcome(wanted.name, Result.FAILED, message=text, code=ExitCode.REFUSED)
    try:
        return plan_app(wanted, app, present.hosts, digest)
    except Impossible as error:
        return Outcome(wanted.name, Result.FAILED, message=str(error), code=ExitCode.REFUSED)
    except ValueError:
        text = "this fleetctl cannot read what the controller has of it: upgrade fleetctl"
        return Outcome(wanted.name, Result.FAILED, message=text, code=ExitCode.REFUSED)


def code_digest(request: Request | control_pb2.RemoveAppRequest) -> str:
    """Of the code that must be at the controller before this is asked; empty: none."""
    if isinstance(request, control_pb2.StartAppRequest | control_pb2.UpdateAppRequest):
        return request.artifact_digest
    return ""


def unchanged(app: control_pb2.App) -> Outcome:
    """Of an app that is as the file says by what is asked for; whether it is also true is another thing."""
    outcome = Outcome(app.name, Result.UNCHANGED)
    if not views.under_way(app.rollout) and app.ready < app.size:
        outcome.message = f"{app.ready} of {count(app.size, 'worker')} ready: `fleetctl status {app.name}` says why"
        if app.rollout.state == control_pb2.ROLLOUT_STATE_FAILED:
            kind = views.rollout_kind(app.rollout)
            outcome.result, outcome.code = Result.FAILED, ExitCode.FAILED
            outcome.message = (
                f"its {kind} failed before, {outcome.message}; `fleetctl soft-restart {app.name}` tries again"
            )
    return outcome


def difference_view(plan: Plan | Outcome) -> dict[str, object]:
    """The object -o json prints."""
    if isinstance(plan, Outcome):
        return {"app": plan.app, "change": Change.FAIL.value, "message": plan.message}
    return {
        "app": plan.app,
        "change": plan.verdict.value,
        "differences": list(plan.differences),
        "replaces_workers": plan.replaces_workers,
    }
