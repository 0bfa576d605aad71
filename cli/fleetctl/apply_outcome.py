"""What can become of an app of a file, in words. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleet.v1 import control_pb2
from fleetctl import views
from fleetctl.apply_plan import Impossible, Plan, Verdict, plan_app
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


def planned(wanted: WantedApp, present: Sequence[control_pb2.App], hosts: Sequence[control_pb2.Host]) -> Plan | Outcome:
    """An outcome where it cannot even be planned."""
    try:
        return plan_app(wanted, next((app for app in present if app.name == wanted.name), None), hosts)
    except Impossible as error:
        return Outcome(wanted.name, Result.FAILED, message=str(error), code=ExitCode.REFUSED)
    except ValueError:
        text = "this fleetctl cannot read what the controller has of it: upgrade fleetctl"
        return Outcome(wanted.name, Result.FAILED, message=text, code=ExitCode.REFUSED)


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
