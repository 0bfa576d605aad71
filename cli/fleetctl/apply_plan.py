"""What has to be asked of the controller so that an app becomes what a file says. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import PurePosixPath

from fleet.v1 import control_pb2, types_pb2
from fleet_core.checked import Checked
from fleet_core.spec import AppSpec
from fleetctl.fleet_file.document import WantedApp
from fleetctl.fleet_file.shape import APP, MapOf, Section
from fleetctl.fleet_file.size import PerCore, Wanted
from fleetctl.fleet_file.writer import written

POLICIES_OUTSIDE_A_WORKER = frozenset({"rollout", "route", "placement"})
"""A change of these alone replaces no worker; the controller decides so."""
_SECRET = frozenset({"env", "worker_env"})
"""Whose values are not shown: that they differ is."""

_STARTED = "state: stopped → running"

Request = control_pb2.StartAppRequest | control_pb2.UpdateAppRequest | control_pb2.SetSizeRequest


class Verdict(StrEnum):
    CREATE = "create"
    CHANGE = "change"
    START = "start"
    """It is stopped, and else as the file says."""
    SAME = "same"


class Impossible(Exception):  # noqa: N818 (reads as a sentence where it is caught)
    """The file asks for what cannot be done now; the message says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    app: str
    verdict: Verdict
    differences: tuple[str, ...] = ()
    """One "field: before → after" each."""
    replaces_workers: bool = False
    requests: tuple[Request, ...] = ()
    """In this order, each once the one before is done; without request ids."""


def plan_app(
    wanted: WantedApp, present: control_pb2.App | None, hosts: Sequence[control_pb2.Host], digest: str = ""
) -> Plan:
    """`present` None: there is no such app. `digest`: of the code the file names; empty: none, so that an app keeps what it has.

    Raises Impossible; ValueError where the controller's spec cannot be read.
    """
    placement = _placement(wanted.size, wanted.spec.placement.labels, hosts)
    if present is None:
        return _create(wanted, placement, digest)
    if present.state == control_pb2.APP_STATE_REMOVING:
        raise Impossible("it is being removed: apply again when it is gone")
    before = AppSpec.from_proto(present.spec)
    if before.needs_artifact and not digest:
        wanted = replace(wanted, spec=_in_deployed_code(wanted.spec, before))
    differences = list(spec_differences(before, wanted.spec))
    replaces = bool(differences) and _worker_part(before) != _worker_part(wanted.spec)
    if digest and digest != present.artifact_digest:
        differences.insert(0, _code_difference(present.artifact_digest, digest))
        replaces = True
    requests: list[Request] = []
    if differences:
        requests.append(
            control_pb2.UpdateAppRequest(
                app=wanted.name,
                spec=wanted.spec.to_proto(),
                expected_revision=present.revision,
                artifact_digest=digest,
                cause="apply",
            )
        )
    stopped = present.state == control_pb2.APP_STATE_STOPPED
    resizing = _size_differences(present, placement)
    differences += resizing
    starts = stopped and placement.total != 0 and placement.by_host != {}
    if starts:
        requests += _start(types_pb2.AppSpec(name=wanted.name), placement)
    elif resizing:
        requests += _resize(present, placement)
    if starts and not differences:
        return Plan(wanted.name, Verdict.START, (_STARTED,), requests=tuple(requests))
    if starts:
        differences.append(_STARTED)
    verdict = Verdict.CHANGE if differences else Verdict.SAME
    return Plan(wanted.name, verdict, tuple(differences), replaces and not stopped, tuple(requests))


def _in_deployed_code(wanted: AppSpec, before: AppSpec) -> AppSpec:
    """A file names paths of the machine it lies on; deployed code has the same command inside itself.

    Raises Impossible where it is another command.
    """
    folder = PurePosixPath(wanted.cwd)

    def inside(word: str) -> str:
        path = PurePosixPath(word)
        return str(path.relative_to(folder)) if path.is_relative_to(folder) else word.removeprefix("./")

    if [inside(word) for word in wanted.argv] != [word.removeprefix("./") for word in before.argv]:
        raise Impossible(
            f"it runs deployed code by {' '.join(before.argv)!r}, the file says {' '.join(wanted.argv)!r}: "
            f"`fleetctl deploy {before.name} --run COMMAND` changes that"
        )
    return AppSpec.model_validate({**wanted.plain(), "argv": before.argv, "cwd": before.cwd})


def _code_difference(before: str, after: str) -> str:
    return " → ".join(("code: " + _digest_words(before), _digest_words(after)))


def _digest_words(digest: str) -> str:
    return f"sha256:{digest[:12]}" if digest else "none"


def spec_differences(before: AppSpec, after: AppSpec) -> Iterator[str]:
    """In the file's words and order; values of environment variables are left out."""
    if before.argv != after.argv:
        yield f"command: {' '.join(before.argv)} → {' '.join(after.argv)}"
    yield from _section_differences(APP, before, after, "")


def _section_differences(section: Section, before: Checked, after: Checked, prefix: str) -> Iterator[str]:
    for name, field in section.fields.items():
        old, new = getattr(before, field.spec_name), getattr(after, field.spec_name)
        if old == new:
            continue
        if isinstance(field.shape, Section):
            yield from _section_differences(field.shape, old, new, f"{prefix}{name}.")
        elif isinstance(field.shape, MapOf):
            yield from _map_differences(f"{prefix}{name}", field.shape, old, new, secret=name in _SECRET)
        else:
            yield f"{prefix}{name}: {_said(written(field.shape, old))} → {_said(written(field.shape, new))}"


def _map_differences(
    name: str, shape: MapOf, old: Mapping[str, object], new: Mapping[str, object], *, secret: bool
) -> Iterator[str]:
    for key in sorted({*old, *new}, key=str):
        if old.get(key) == new.get(key):
            continue
        if secret:
            yield f"{name}.{key}: {'set' if key not in old else 'unset' if key not in new else 'changed'}"
        else:
            said = [_said(written(shape.value, values[key])) if key in values else "unset" for values in (old, new)]
            yield f"{name}.{key}: {said[0]} → {said[1]}"


def _said(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value in (None, "") else str(value)


def _worker_part(spec: AppSpec) -> dict[str, object]:
    return {name: value for name, value in spec.plain().items() if name not in POLICIES_OUTSIDE_A_WORKER}


@dataclass(frozen=True, slots=True)
class _Placement:
    """One of: a total; so many on each host; neither, which keeps what there is."""

    total: int | None = None
    by_host: Mapping[str, int] | None = None


def _placement(size: Wanted, labels: Mapping[str, str], hosts: Sequence[control_pb2.Host]) -> _Placement:
    cpus = {host.name: host.cpus for host in hosts}
    if size.hosts is not None:
        return _Placement(by_host={host: count for host, count in size.hosts.items() if count})
    if size.spread_over:
        if isinstance(size.count, PerCore):
            unknown = [name for name in size.spread_over if name not in cpus]
            if unknown:
                raise Impossible(f"no host is named {unknown[0]}: `fleetctl host ls` shows them")
            return _Placement(by_host={name: size.count.on(cpus[name]) for name in size.spread_over})
        each, more = divmod(size.count or 0, len(size.spread_over))
        spread = {name: each + (index < more) for index, name in enumerate(size.spread_over)}
        return _Placement(by_host={host: count for host, count in spread.items() if count})
    if isinstance(size.count, PerCore):
        per_core = size.count
        total = sum(per_core.on(host.cpus) for host in hosts if _takes(host, labels))
        if not total:
            raise Impossible("no host that would take it is online, so there are no cores to count: `fleetctl host ls`")
        return _Placement(total=total)
    return _Placement(total=size.count)


def _takes(host: control_pb2.Host, labels: Mapping[str, str]) -> bool:
    open_ = host.scheduling in (control_pb2.HOST_SCHEDULING_UNSPECIFIED, control_pb2.HOST_SCHEDULING_OPEN)
    has = all(host.labels.get(key) == value for key, value in labels.items())
    return host.state == control_pb2.HOST_STATE_ONLINE and open_ and has


def _create(wanted: WantedApp, placement: _Placement, digest: str) -> Plan:
    if placement.total == 0 or placement.by_host == {}:
        raise Impossible("a new app starts with at least one worker: give it a size")
    differences = [f"size: none → {_size_words(placement) or '1'}"]
    if digest:
        differences.append(_code_difference("", digest))
    requests = tuple(_start(wanted.spec.to_proto(), placement, digest))
    return Plan(wanted.name, Verdict.CREATE, tuple(differences), requests=requests)


def _start(spec: types_pb2.AppSpec, placement: _Placement, digest: str = "") -> Iterator[Request]:
    """Hosts with the same number start together; each of the others is added by itself, so that none ever has too many."""
    if placement.by_host is None:
        yield control_pb2.StartAppRequest(spec=spec, size=placement.total or 0, artifact_digest=digest)
        return
    counts = list(placement.by_host.values())
    common = max(sorted(set(counts)), key=counts.count)
    first = sorted(host for host, count in placement.by_host.items() if count == common)
    yield control_pb2.StartAppRequest(spec=spec, size=common * len(first), hosts=first, artifact_digest=digest)
    for host, count in sorted(placement.by_host.items()):
        if count != common:
            yield _sized(spec.name, count, host)


def _size_differences(present: control_pb2.App, placement: _Placement) -> list[str]:
    pinned = present.size_mode == control_pb2.SIZE_MODE_PINNED
    before = {host: count for host, count in present.placement.items() if count}
    if placement.by_host is not None:
        if pinned and before == dict(placement.by_host):
            return []
    elif placement.total is None or (present.size == placement.total and (not pinned or not before)):
        return []
    was = _size_words(_Placement(by_host=before) if pinned else _Placement(total=present.size))
    return [f"size: {was} → {_size_words(placement)}"]


def _size_words(placement: _Placement) -> str:
    if placement.by_host is not None:
        return " ".join(f"{host}:{count}" for host, count in sorted(placement.by_host.items())) or "0"
    return "" if placement.total is None else str(placement.total)


def _resize(present: control_pb2.App, placement: _Placement) -> Iterator[Request]:
    """Hosts that grow come first."""
    if placement.by_host is None:
        yield _sized(present.name, placement.total or 0)
        return
    before = dict(present.placement)
    change = {host: placement.by_host.get(host, 0) - before.get(host, 0) for host in {*before, *placement.by_host}}
    moving = sorted((host for host in change if change[host]), key=lambda host: (change[host] < 0, host))
    # One that stays as it is pins the app, where nothing else does.
    for host in moving or sorted(placement.by_host)[:1]:
        yield _sized(present.name, placement.by_host.get(host, 0), host)


def _sized(app: str, count: int, host: str = "") -> control_pb2.SetSizeRequest:
    change = control_pb2.SizeChange(absolute=count)
    return control_pb2.SetSizeRequest(app=app, change=change, host=host, allow_shrinking_others=True)
