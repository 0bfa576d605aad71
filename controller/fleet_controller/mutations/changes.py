"""What a mutation is made of: who asks for it, what it writes, or why it is refused. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleet_controller.records import (
    AppRecord,
    Previous,
    Record,
    RevisionRecord,
    RolloutKind,
    RolloutRecord,
    RolloutState,
    app_key,
    revision_key,
    rollout_key,
)

ROLLOUTS_KEPT = 20
"""Per app; the oldest ended ones are forgotten."""

INVALID = "invalid"
NOT_FOUND = "not_found"
EXISTS = "exists"
PRECONDITION = "precondition"


class Refused(Exception):  # noqa: N818 (reads as a sentence where it is caught)
    """The mutation cannot be done; nothing was changed. `kind` is one of the words above."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Ask:
    """Who asks for a mutation, and how it shall go about what is in its way."""

    request: str
    """The request id, which becomes the rollout's id."""
    past: tuple[RolloutRecord, ...] = ()
    """The app's rollouts."""
    supersede: bool = False
    """Take the place of one that is under way."""
    ignored_balancers: tuple[str, ...] = ()
    cause: str = ""
    """Why, where no user asked for it; else the user's words."""
    at: str = ""
    """The controller's clock (RFC 3339, UTC), for people."""

    @property
    def under_way(self) -> RolloutRecord | None:
        running = [record for record in self.past if record.state.under_way]
        return max(running, key=lambda record: record.sequence, default=None)


@dataclass(frozen=True, slots=True)
class Change:
    """Records to write in one transaction."""

    app: AppRecord
    rollout: RolloutRecord
    revision: RevisionRecord | None = None
    superseded: RolloutRecord | None = None
    forgotten: tuple[str, ...] = ()
    """Ids of rollouts to delete."""
    forgotten_revisions: tuple[int, ...] = ()

    def writes(self) -> list[tuple[str, Record | None]]:
        """(key, record) for each record to write, (key, None) for each to delete."""
        records: list[tuple[str, Record | None]] = [
            (app_key(self.app.name), self.app),
            (rollout_key(self.rollout.id), self.rollout),
        ]
        if self.revision is not None:
            records.append((revision_key(self.revision.app, self.revision.number), self.revision))
        if self.superseded is not None:
            records.append((rollout_key(self.superseded.id), self.superseded))
        records += [(rollout_key(identifier), None) for identifier in self.forgotten]
        return records + [(revision_key(self.app.name, number), None) for number in self.forgotten_revisions]


def next_generation(app: AppRecord, revision: int | None = None) -> AppRecord:
    """The app with one generation more, whose workers run `revision` (None: what they run now)."""
    revision = app.revision if revision is None else revision
    generation = 1 + max(app.generation, app.spent_generation)
    generations = {**app.generations, generation: revision}
    return app.model_copy(update={"generation": generation, "generations": generations, "revision": revision})


def begun(
    ask: Ask,
    kind: RolloutKind,
    before: AppRecord | None,
    app: AppRecord,
    steps: Mapping[str, int],
    *,
    at_once: bool = False,
    revision: RevisionRecord | None = None,
    insistent: bool = False,
) -> Change:
    """A rollout from `before` (None: there was no such app) to `app`. `insistent`: it needs no word to take another's place.

    What it goes back to when it fails is what the app was before the first of the operations that took each other's place
    without any of them coming to its end. Raises Refused.
    """
    other = ask.under_way
    if other is not None and not ask.supersede and not insistent:
        raise Refused(
            PRECONDITION,
            f"{_WORDS[other.kind]} of {app.name} is under way: wait for it (`fleetctl rollout status {app.name} --watch`), "
            f"end it (`fleetctl rollout abort {app.name}`), or take its place with --supersede",
        )
    rollout = RolloutRecord(
        id=ask.request,
        app=app.name,
        kind=kind,
        at_once=at_once,
        revision=app.revision,
        generation=app.generation,
        began_at=ask.at,
        previous=_previous(before, other),
        steps=sum(steps.values()),
        host_steps=dict(steps),
        sequence=1 + max((record.sequence for record in ask.past), default=0),
        ignored_balancers=ask.ignored_balancers,
        cause=ask.cause,
    )
    superseded = None
    if other is not None:
        message = f"a newer operation on {app.name} took its place: {_WORDS[kind]}"
        superseded = other.model_copy(update={"state": RolloutState.SUPERSEDED, "message": message})
    return Change(
        app.model_copy(update={"rollout": ask.request}),
        rollout,
        revision=revision,
        superseded=superseded,
        forgotten=_surplus(ask.past),
    )


def _previous(before: AppRecord | None, other: RolloutRecord | None) -> Previous | None:
    if before is None:
        return None
    previous = Previous(
        state=before.state,
        size_mode=before.size_mode,
        placement=before.placement,
        revision=before.revision,
        generation=before.generation,
        floor=before.floor,
        slot_floors=before.slot_floors,
        rejected=before.rejected,
    )
    if other is None or other.previous is None:
        return previous
    proven = other.previous
    # The size is as the user left it: only what runs was not proven.
    return previous.model_copy(
        update={name: getattr(proven, name) for name in ("revision", "generation", "floor", "slot_floors", "rejected")}
    )


def _surplus(past: Iterable[RolloutRecord]) -> tuple[str, ...]:
    """Ids of the oldest ended ones, so that with one more no more than ROLLOUTS_KEPT are left."""
    by_age = sorted(past, key=lambda record: record.sequence)
    ended = [record.id for record in by_age if not record.state.under_way]
    return tuple(ended[: max(0, len(by_age) + 1 - ROLLOUTS_KEPT)])


_WORDS = {
    RolloutKind.START: "a start",
    RolloutKind.SET_SIZE: "a change of size",
    RolloutKind.RESTART: "a restart",
    RolloutKind.STOP: "a stop",
    RolloutKind.REMOVE: "a removal",
    RolloutKind.UPDATE: "an update",
    RolloutKind.ROLLBACK: "a rollback",
    RolloutKind.MOVE: "a move to other hosts",
}
