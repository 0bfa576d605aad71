"""An app's revisions: a new one, an earlier one again, and what differs between two. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from fleet_controller.mutations.changes import (
    INVALID,
    NOT_FOUND,
    PRECONDITION,
    Ask,
    Change,
    Refused,
    begun,
    next_generation,
)
from fleet_controller.mutations.endings import back_to
from fleet_controller.records import AppRecord, AppState, RevisionRecord, RolloutKind
from fleet_core.spec import AppSpec

REVISIONS_KEPT = 20
"""Per app, beside those that may still run."""
POLICIES_OUTSIDE_A_WORKER = frozenset({"rollout", "route", "placement"})
"""What the controller and the balancers act on: a change of these alone replaces no worker."""


def update(
    ask: Ask, app: AppRecord, spec: AppSpec, revisions: Collection[RevisionRecord], artifact_digest: str = ""
) -> Change | None:
    """Roll out `spec` as a new revision; None: it is what the app has. `revisions`: the app's. No artifact: the one it has."""
    if app.state is AppState.REMOVING:
        raise Refused(PRECONDITION, f"app {app.name} is being removed")
    present = _numbered(app, app.revision, revisions)
    artifact_digest = artifact_digest or present.artifact_digest
    if spec.needs_artifact and not artifact_digest:
        raise Refused(
            INVALID, f"working directory {spec.cwd!r} must be absolute: `fleetctl deploy` gives an app code of its own"
        )
    if spec == present.app_spec and artifact_digest == present.artifact_digest:
        return None
    number = 1 + max(app.spent_revision, *(record.number for record in revisions))
    revision = RevisionRecord.of(
        spec, number, created_at=ask.at, cause=ask.cause or "update", artifact_digest=artifact_digest
    )
    updated = next_generation(app, number)
    steps: dict[str, int] = {}
    if _worker_fields(present) != _worker_fields(revision):
        updated = updated.model_copy(update={"floor": updated.generation, "slot_floors": {}})
        steps = _steps(app)
    change = begun(ask, RolloutKind.UPDATE, app, updated, steps, revision=revision)
    return _pruned(change, revisions)


def rollback(ask: Ask, app: AppRecord, number: int, revisions: Collection[RevisionRecord]) -> Change:
    """Roll out an earlier revision again; 0: the last good one before the present one.

    An update that is under way and is being taken back leaves the workers alone that it had not replaced yet.
    """
    if app.state is AppState.REMOVING:
        raise Refused(PRECONDITION, f"app {app.name} is being removed")
    other = ask.under_way
    previous = other.previous if other is not None else None
    wanted = number or _last_good(app, None if previous is None else previous.revision)
    if wanted == app.revision:
        raise Refused(PRECONDITION, f"app {app.name} is at revision {wanted} already")
    wanted_revision = _numbered(app, wanted, revisions)
    if previous is not None and previous.revision == wanted:
        returned = back_to(app, previous)
    else:
        returned = next_generation(app, wanted)
        if _worker_fields(wanted_revision) != _worker_fields(_numbered(app, app.revision, revisions)) or other:
            returned = returned.model_copy(update={"floor": returned.generation, "slot_floors": {}})
    return begun(ask, RolloutKind.ROLLBACK, app, returned, _steps(app), insistent=True)


def with_environment(spec: AppSpec, to_set: Mapping[str, str], to_unset: Collection[str]) -> AppSpec:
    """The spec with these variables set and those taken away. Raises Refused."""
    both = sorted({*to_set} & {*to_unset})
    if both:
        raise Refused(INVALID, f"{', '.join(both)}: set or unset it, not both")
    missing = sorted(set(to_unset) - set(spec.env))
    if missing:
        raise Refused(
            NOT_FOUND,
            f"{spec.name} does not set {', '.join(missing)}: `fleetctl env-get {spec.name}` shows what it sets",
        )
    kept = {key: value for key, value in spec.env.items() if key not in to_unset}
    return AppSpec.model_validate({**spec.plain(), "env": {**kept, **to_set}})


def differences(before: RevisionRecord, after: RevisionRecord) -> list[str]:
    """One "field: before → after" each, in the order of their names; values of environment variables are left out."""
    old, new = dict(_flat(before.spec)), dict(_flat(after.spec))
    lines = []
    for field in sorted({*old, *new}):
        if old.get(field) == new.get(field):
            continue
        if field.startswith(("env.", "worker_env.")):
            word = "set" if field not in old else "unset" if field not in new else "changed"
            lines.append(f"{field}: {word}")
        else:
            lines.append(f"{field}: {old.get(field, 'unset')} → {new.get(field, 'unset')}")
    if before.artifact_digest != after.artifact_digest:
        lines.append(f"code: {before.artifact_digest[:12] or 'none'} → {after.artifact_digest[:12] or 'none'}")
    return lines


def _last_good(app: AppRecord, before_update: int | None) -> int:
    """The revision to go back to: that of before the update under way, else the last good one that is not the present one."""
    if before_update is not None and before_update != app.revision:
        return before_update
    earlier = [number for number in app.good_revisions if number != app.revision]
    if not earlier:
        raise Refused(
            PRECONDITION, f"app {app.name} has no earlier revision that ran: `fleetctl history {app.name}` shows them"
        )
    return earlier[-1]


def _numbered(app: AppRecord, number: int, revisions: Iterable[RevisionRecord]) -> RevisionRecord:
    for record in revisions:
        if record.number == number:
            return record
    raise Refused(NOT_FOUND, f"app {app.name} has no revision {number}: `fleetctl history {app.name}` shows them")


def _worker_fields(revision: RevisionRecord) -> dict[str, Any]:
    plain = revision.app_spec.plain()
    fields = {name: value for name, value in plain.items() if name not in POLICIES_OUTSIDE_A_WORKER}
    return {**fields, "artifact_digest": revision.artifact_digest}


def _steps(app: AppRecord) -> dict[str, int]:
    return dict(app.placement) if app.state is AppState.RUNNING else {}


def _pruned(change: Change, revisions: Iterable[RevisionRecord]) -> Change:
    """Forget the oldest revisions that nothing runs and nothing goes back to first."""
    app, rollout = change.app, change.rollout
    needed = {app.revision, *app.generations.values(), *app.good_revisions[-2:]}
    if rollout.previous is not None:
        needed.add(rollout.previous.revision)
    unneeded = sorted(record.number for record in revisions if record.number not in needed)
    surplus = tuple(unneeded[: max(0, len(unneeded) - REVISIONS_KEPT)])
    good = tuple(number for number in app.good_revisions if number not in surplus)
    return Change(
        app.model_copy(update={"good_revisions": good}),
        rollout,
        revision=change.revision,
        superseded=change.superseded,
        forgotten=change.forgotten,
        forgotten_revisions=surplus,
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, content in value.items():
        if isinstance(content, dict):
            yield from _flat(content, f"{prefix}{key}.")
        elif isinstance(content, list):
            yield f"{prefix}{key}", " ".join(map(str, content))
        else:
            yield f"{prefix}{key}", str(content)
