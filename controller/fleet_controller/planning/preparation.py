"""Code before workers: a rollout that brings code begins its first step when every host of the app has it ready. Pure.

A host that was lost meanwhile holds up no other, as in the rest of a rollout: when it is back, the code comes first there, too.
One that this leader never heard of is waited for, until `progress_deadline` ends the rollout.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fleet_controller.planning.views import Failure, Preparation, Situation
from fleet_core.ids import WorkerId


@dataclass(frozen=True, slots=True)
class Preparations:
    asked: tuple[Preparation, ...] = ()
    holds: bool = False
    """No worker of the revision may be started yet, nor one be stopped for it."""
    waiting: str = ""
    """What is waited for, in words."""
    doing: Mapping[str, str] | None = None
    """Host → how far it is, while not all are ready."""
    failure: Failure | None = None
    progress: object = None
    """Differs whenever something got done."""


def judge_preparations(situation: Situation) -> Preparations:
    app, rollout = situation.app, situation.rollout
    if not situation.brings_code or rollout is None:
        return Preparations()
    hosts = [host for host in sorted(app.placement) if app.wanted(host)]
    asked = tuple(Preparation(host, app.name, app.revision, app.generation) for host in hosts)
    known = {host: situation.code[host] for host in hosts if host in situation.connected and host in situation.code}
    late = [host for host in hosts if host not in situation.reported or (host in known and not known[host].ready)]
    progress = tuple((host, view.ready, view.doing, view.received_bytes) for host, view in known.items())
    if not late:
        return Preparations(asked, progress=progress)
    failed = next((host for host in late if host in known and known[host].problem), None)
    failure = None
    if failed is not None and not rollout.paused:
        view = known[failed]
        failure = Failure(
            f"host {failed} cannot make the code ready: {view.problem}",
            WorkerId(app.name, failed, 0, app.generation),
            view.problem,
            view.last_lines,
        )
    return Preparations(
        asked,
        holds=True,
        waiting=f"preparing the code: ready on {len(hosts) - len(late)} of {len(hosts)} hosts",
        doing={
            host: "its code is ready" if view.ready else view.problem or view.doing or "preparing the code"
            for host, view in known.items()
        },
        failure=failure,
        progress=progress,
    )
