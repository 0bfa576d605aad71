"""What hosts are told: their assignments, and that no balancer sends them anything any more."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from fleet.v1 import agent_pb2, types_pb2
from fleet_controller.balancers import Upstreams
from fleet_controller.desired import Desired
from fleet_controller.hosts import Content, ObservedHost
from fleet_controller.leader import Term
from fleet_controller.planning.departures import drained
from fleet_controller.planning.views import Memory, Phase, Plan, Preparation, Target
from fleet_controller.preparations import preparation_message
from fleet_controller.records import BalancerRecord, RevisionRecord, revision_key
from fleet_core.ids import Epoch

_log = logging.getLogger(__name__)
_PHASES = {Phase.RUN: types_pb2.PHASE_RUN, Phase.STOP: types_pb2.PHASE_STOP}


@dataclass(slots=True)
class AppProgress:
    """What the planner said last about one app, and since when its rollout is under way."""

    plan: Plan | None = None
    memory: Memory = field(default_factory=Memory)
    rollout: str = ""
    began: float = 0.0


class Assignments:
    """Those of one term: complete, in a sequence of their own."""

    def __init__(self, desired: Desired, term: Term, epoch: Epoch, apps: Mapping[str, AppProgress]) -> None:
        """`apps`: what is planned, as it changes."""
        self._desired = desired
        self._term = term
        self._epoch = epoch
        self._apps = apps
        self._sequence = 0

    def send(self, host: ObservedHost, known: Collection[str], unknown: frozenset[str]) -> None:
        """Send the host its targets, if they differ from what it was sent last.

        `known`: the apps there are; `unknown`: those that run there and of which etcd knows nothing.
        """
        if host.outbox is None or not host.connected or not self._term.provable():
            return
        running = {identity.app for identity in host.workers}
        if any(self._apps.get(app) is None for app in running.intersection(known)):
            return  # not planned yet
        targets = frozenset(
            target
            for progress in self._apps.values()
            if progress.plan is not None
            for target in progress.plan.targets
            if target.id.host == host.name
        ) | _left_alone(host, unknown)
        nameless = sorted(str(target.id) for target in targets if self._content(target, host) is None)
        host.withheld = ", ".join(nameless)
        if nameless:
            return  # to leave a worker out of an assignment would stop it
        preparations = frozenset(
            preparation
            for progress in self._apps.values()
            if progress.plan is not None and host.prepares_code
            for preparation in progress.plan.preparations
            if preparation.host == host.name
        )
        if targets | preparations == host.assigned:
            return
        host.assigned = targets | preparations
        for target in targets:
            host.told(target.id, target.revision, target.phase)
        self._sequence += 1
        sequence = self._sequence
        host.outbox.put("assignment", lambda: self._assignment(host, sequence, targets, preparations))

    def _assignment(
        self,
        host: ObservedHost,
        sequence: int,
        targets: frozenset[Target],
        preparations: frozenset[Preparation],
    ) -> agent_pb2.ControllerMessage:
        message = agent_pb2.ControllerMessage(epoch=self._epoch.to_proto())
        assignment = message.assignment
        assignment.sequence = sequence
        assignment.etcd_revision = self._term.newest
        assignment.allow_empty = not targets
        for target in sorted(targets, key=lambda target: target.id):
            content = self._content(target, host)
            if content is None:
                _log.error("%s runs revision %d, which was forgotten", target.id, target.revision)
                continue
            assignment.targets.add(
                app=target.id.app,
                slot=target.id.slot,
                generation=target.id.generation,
                revision=target.revision,
                phase=_PHASES[target.phase],
                spec_digest=content.spec_digest,
                artifact_digest=content.artifact_digest,
            )
            revision = self._desired.get(revision_key(target.id.app, target.revision), RevisionRecord)
            if revision is not None and revision.spec_digest == content.spec_digest:  # else the agent holds it
                self._carry_spec(host, assignment, revision)
        for preparation in sorted(preparations, key=lambda preparation: preparation.app):
            revision = self._desired.get(revision_key(preparation.app, preparation.revision), RevisionRecord)
            if revision is not None:
                assignment.preparations.append(preparation_message(preparation, revision))
                self._carry_spec(host, assignment, revision)
        return message

    def _carry_spec(self, host: ObservedHost, assignment: agent_pb2.Assignment, revision: RevisionRecord) -> None:
        if revision.spec_digest not in host.specs_sent:
            host.specs_sent.add(revision.spec_digest)
            assignment.specs.append(revision.spec_message())

    def _content(self, target: Target, host: ObservedHost) -> Content | None:
        """What a target's worker runs: what the host said it runs, else what its revision says. None: nobody knows.

        The two differ where etcd was restored from before the revision was made.
        """
        worker = host.workers.get(target.id)
        if worker is not None and worker.content is not None:
            return worker.content
        revision = self._desired.get(revision_key(target.id.app, target.revision), RevisionRecord)
        return Content(revision.spec_digest, revision.artifact_digest) if revision is not None else None

    def let_go(self, host: ObservedHost, upstreams: Upstreams) -> None:
        """Tell a host that leaves, once, that no balancer sends its workers anything."""
        if not host.leaving or host.let_go or host.outbox is None:
            return
        registered = [record.name for record in self._desired.all(BalancerRecord)]
        for name, pool in upstreams.lists.items():
            workers = {worker for worker in pool.endpoints if worker.host == host.name}
            if pool.route.routed and not drained(workers, upstreams.views(name, registered)):
                return
        host.let_go = True
        message = agent_pb2.ControllerMessage(epoch=self._epoch.to_proto(), drained=agent_pb2.HostDrained())
        host.outbox.put("drained", lambda: message)


def _left_alone(host: ObservedHost, apps: frozenset[str]) -> frozenset[Target]:
    """What the host runs of these apps, as it is."""
    return frozenset(
        Target(identity, worker.view.revision, worker.view.phase)
        for identity, worker in host.workers.items()
        if identity.app in apps
    )
