"""The assignment a host holds: which message may replace it (pure), and the file it survives in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from google.protobuf import json_format

from fleet.v1 import agent_pb2, types_pb2
from fleet_agent.reconcile import Wanted
from fleet_agent.supervisor.protocol import Key
from fleet_core.checked import CheckError
from fleet_core.durable import write_durably
from fleet_core.ids import Epoch
from fleet_core.spec import AppSpec

_BEFORE_ALL = Epoch()


class AssignmentRefusedError(Exception):
    """The message must not take effect; the text says why."""


class SpecMissingError(AssignmentRefusedError):
    """A target names a spec this session did not carry; a new session carries all."""


@dataclass(frozen=True)
class HeldAssignment:
    """What this host should run, from whom, and the highest epoch it ever obeyed (never lower than `epoch`)."""

    highest_epoch: Epoch = _BEFORE_ALL
    fleet_id: str = ""
    """Of the fleet it obeys; empty: of none yet."""
    etcd_revision: int = 0
    """The highest one sent in the era of `highest_epoch`."""
    epoch: Epoch = _BEFORE_ALL
    sequence: int = 0
    """0: none was received yet."""
    targets: tuple[agent_pb2.Target, ...] = ()
    specs: Mapping[str, types_pb2.AppSpec] = field(default_factory=dict)
    """By digest; exactly those the targets and preparations name."""
    preparations: tuple[agent_pb2.Preparation, ...] = ()
    """Code to make ready before a target needs it."""

    def obey(self, epoch: Epoch) -> "HeldAssignment":
        """A message of `epoch` arrived. Raises AssignmentRefusedError when a higher one was obeyed before (invariant 4)."""
        if epoch < self.highest_epoch:
            raise AssignmentRefusedError(f"epoch {epoch} is lower than {self.highest_epoch}, which this host obeys")
        if epoch == self.highest_epoch:
            return self
        revision = self.etcd_revision if epoch.era == self.highest_epoch.era else 0
        return replace(self, highest_epoch=epoch, etcd_revision=revision)

    def belong(self, fleet_id: str) -> "HeldAssignment":
        """A controller of this fleet welcomed us. Raises AssignmentRefusedError where another one was obeyed before."""
        if not fleet_id or fleet_id == self.fleet_id:
            return self
        if self.fleet_id:
            raise AssignmentRefusedError(f"the controller leads fleet {fleet_id}, this host obeys {self.fleet_id}")
        return replace(self, fleet_id=fleet_id)

    def accept(
        self, epoch: Epoch, message: agent_pb2.Assignment, carried: Mapping[str, types_pb2.AppSpec]
    ) -> "HeldAssignment":
        """The assignment after `message`; `self` when it is not newer. `carried`: every spec of this session, by digest.

        Raises AssignmentRefusedError (lower epoch, unasked-for emptiness), SpecMissingError.
        """
        obeyed = self.obey(epoch)
        if (epoch, message.sequence) <= (self.epoch, self.sequence):
            return obeyed
        if 0 < message.etcd_revision < obeyed.etcd_revision:
            raise AssignmentRefusedError(
                f"assignment {epoch}/{message.sequence} is of etcd's revision {message.etcd_revision}, and this host was told of "
                f"{obeyed.etcd_revision}: etcd is older than the fleet"
            )
        if not message.targets and self.targets and not message.allow_empty:
            raise AssignmentRefusedError(
                f"assignment {epoch}/{message.sequence} would empty this host of {len(self.targets)} targets without allow_empty"
            )
        specs: dict[str, types_pb2.AppSpec] = {}
        named = [(target.app, target.spec_digest) for target in message.targets]
        named += [(wanted.app, wanted.spec_digest) for wanted in message.preparations]
        for app, digest in named:
            spec = carried.get(digest) or self.specs.get(digest)
            if spec is None:
                raise SpecMissingError(f"assignment {epoch}/{message.sequence} names a spec of {app} that was not sent")
            specs[digest] = spec
        return replace(
            obeyed,
            etcd_revision=max(obeyed.etcd_revision, message.etcd_revision),
            epoch=epoch,
            sequence=message.sequence,
            targets=tuple(message.targets),
            specs=specs,
            preparations=tuple(message.preparations),
        )

    def wanted(self) -> dict[Key, Wanted]:
        """The targets by key, their specs checked by this agent's rules."""
        specs = {digest: _checked(spec) for digest, spec in self.specs.items()}
        return {
            Key(target.app, target.slot, target.generation): Wanted(
                Key(target.app, target.slot, target.generation),
                target.revision,
                target.phase,
                target.spec_digest,
                _placed(specs[target.spec_digest], target.artifact_digest),
                artifact_digest=target.artifact_digest,
            )
            for target in self.targets
        }

    def to_prepare(self) -> list[tuple[agent_pb2.Preparation, AppSpec | str]]:
        """The preparations, each with its spec or the reason why that cannot be used here."""
        return [(wanted, _checked(self.specs[wanted.spec_digest])) for wanted in self.preparations]


def _placed(spec: AppSpec | str, artifact_digest: str) -> AppSpec | str:
    if isinstance(spec, AppSpec) and spec.needs_artifact and not artifact_digest:
        return f"working directory {spec.cwd!r} must be absolute: the target names no code that it could be in"
    return spec


def _checked(spec: types_pb2.AppSpec) -> AppSpec | str:
    try:
        return AppSpec.from_proto(spec)
    except CheckError as error:
        return f"this agent cannot run the spec: {error}"


def read_assignment(path: Path) -> HeldAssignment:
    """What `path` holds; nothing when there is no file. Raises OSError, ValueError."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return HeldAssignment()
    try:
        content = json.loads(text)
        return HeldAssignment(
            Epoch(*content["highest_epoch"]),
            str(content.get("fleet_id", "")),
            int(content.get("etcd_revision", 0)),
            Epoch(*content["epoch"]),
            int(content["sequence"]),
            tuple(json_format.ParseDict(target, agent_pb2.Target()) for target in content["targets"]),
            {digest: json_format.ParseDict(spec, types_pb2.AppSpec()) for digest, spec in content["specs"].items()},
            tuple(json_format.ParseDict(wanted, agent_pb2.Preparation()) for wanted in content.get("preparations", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, json_format.ParseError) as error:
        raise ValueError(f"{path}: not an assignment: {error}; move it away, the controller sends it again") from error


def write_assignment(path: Path, held: HeldAssignment) -> None:
    """Raises OSError; the old assignment then still stands."""
    content = {
        "highest_epoch": [held.highest_epoch.era, held.highest_epoch.election_revision],
        "fleet_id": held.fleet_id,
        "etcd_revision": held.etcd_revision,
        "epoch": [held.epoch.era, held.epoch.election_revision],
        "sequence": held.sequence,
        "targets": [json_format.MessageToDict(target) for target in held.targets],
        "specs": {digest: json_format.MessageToDict(spec) for digest, spec in held.specs.items()},
        "preparations": [json_format.MessageToDict(wanted) for wanted in held.preparations],
    }
    write_durably(path, json.dumps(content).encode())
