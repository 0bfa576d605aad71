"""Deployed code between records, the planner and agents: what is to be made ready, and what agents say of it."""

from collections.abc import Iterable

from fleet.v1 import agent_pb2
from fleet_controller.hosts import ObservedHost
from fleet_controller.planning.views import CodeView, Preparation
from fleet_controller.records import AppRecord, RevisionRecord, RolloutRecord, RolloutState


def brings_code(rollout: RolloutRecord | None, revision: RevisionRecord) -> bool:
    """The rollout is to another revision than before, which has code. Going back needs no wait: what runs yet has its code."""
    if rollout is None or rollout.state is not RolloutState.RUNNING or not revision.artifact_digest:
        return False
    return rollout.previous is None or rollout.previous.revision != revision.number


def code_views(hosts: Iterable[ObservedHost], app: AppRecord, revision: RevisionRecord) -> dict[str, CodeView]:
    """How far each host is with the code that new workers run; hosts whose agent does not say are left out."""
    wanted = preparation_message(Preparation("", app.name, app.revision, app.generation), revision)
    code: dict[str, CodeView] = {}
    for host in hosts:
        if host.prepares_code:
            said = next((status for status in host.preparations if status.preparation == wanted), None)
            code[host.name] = _view(said) if said is not None else CodeView()
    return code


def preparation_message(preparation: Preparation, revision: RevisionRecord) -> agent_pb2.Preparation:
    return agent_pb2.Preparation(
        app=preparation.app,
        artifact_digest=revision.artifact_digest,
        spec_digest=revision.spec_digest,
        attempt=preparation.attempt,
    )


def _view(status: agent_pb2.PreparationStatus) -> CodeView:
    failed = status.state == agent_pb2.PREPARATION_STATE_FAILED
    return CodeView(
        ready=status.state == agent_pb2.PREPARATION_STATE_READY,
        doing="" if failed else status.reason,
        received_bytes=status.received_bytes,
        problem=(status.reason or "no reason was given") if failed else "",
        last_lines=tuple(status.last_lines),
    )
