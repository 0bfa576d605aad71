"""What the controller knows, as the objects `-o json` prints. Pure. These shapes are an interface: add, never rename."""

from typing import Any, Protocol

from fleet.v1 import control_pb2, types_pb2
from fleet_core.route import Protocol as Spoken
from fleetctl.wording import state_word


class _Enum(Protocol):
    """A wrapper of protobuf's."""

    def Name(self, number: Any, /) -> str: ...  # noqa: N802


def _word(enum: _Enum, number: int, prefix: str) -> str:
    """What a newer controller knows and this fleetctl does not is "unknown"."""
    try:
        return state_word(enum.Name(number), prefix)
    except ValueError:
        return "unknown"


def app_state(app: control_pb2.App) -> str:
    return _word(control_pb2.AppState, app.state, "APP_STATE_")


def worker_state(worker: types_pb2.WorkerStatus) -> str:
    return _word(types_pb2.WorkerState, worker.state, "WORKER_STATE_")


def host_state(host: control_pb2.Host) -> str:
    return _word(control_pb2.HostState, host.state, "HOST_STATE_")


def endpoint_state(endpoint: types_pb2.Endpoint) -> str:
    return _word(types_pb2.EndpointState, endpoint.state, "ENDPOINT_STATE_")


def rollout_state(rollout: control_pb2.Rollout) -> str:
    return _word(control_pb2.RolloutState, rollout.state, "ROLLOUT_STATE_")


def under_way(rollout: control_pb2.Rollout) -> bool:
    """It has not come to its end yet."""
    return rollout.state in (control_pb2.ROLLOUT_STATE_RUNNING, control_pb2.ROLLOUT_STATE_ROLLING_BACK)


def rollout_kind(rollout: control_pb2.Rollout) -> str:
    return _word(control_pb2.RolloutKind, rollout.kind, "ROLLOUT_KIND_")


def scheduling(host: control_pb2.Host) -> str:
    """A drain is over once nothing lives on a host that can tell."""
    word = _word(control_pb2.HostScheduling, host.scheduling, "HOST_SCHEDULING_")
    gone = not host.workers and host.state == control_pb2.HOST_STATE_ONLINE
    return "drained" if word == "draining" and gone else word


def size_mode(mode: control_pb2.SizeMode.ValueType) -> str:
    return _word(control_pb2.SizeMode, mode, "SIZE_MODE_")


def worker_name(worker: types_pb2.WorkerId) -> str:
    """The name of its slot: my-app/host1/3; without a slot, of the app on a host: my-app/host1."""
    name = f"{worker.app}/{worker.host}"
    return f"{name}/{worker.slot}" if worker.slot else name


def route_view(route: types_pb2.RoutePolicy) -> dict[str, Any] | None:
    """How clients reach an app; None: they do not."""
    addresses = {protocol.value: getattr(route, protocol) or None for protocol in Spoken}
    if not any(addresses.values()):
        return None
    return {**addresses, "hosts": list(route.hosts), "paths": list(route.paths)}


def route_words(route: types_pb2.RoutePolicy) -> str:
    """In a few words, ":80 a.test/api"; empty: clients do not reach it."""
    addresses = [
        address if protocol is Spoken.HTTP else f"{protocol} {address}"
        for protocol in Spoken
        if (address := getattr(route, protocol))
    ]
    if not addresses:
        return ""
    names = [f"{host}{path}" for host in route.hosts or [""] for path in route.paths or [""]]
    shown = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
    return f"{' and '.join(addresses)} {shown}".rstrip()


def app_view(app: control_pb2.App) -> dict[str, Any]:
    return {
        "name": app.name,
        "state": app_state(app),
        "revision": app.revision,
        "generation": app.generation,
        "size": app.size,
        "ready": app.ready,
        "hosts": sorted(host for host, wanted in app.placement.items() if wanted),
        "rollout": rollout_view(app.rollout) if app.HasField("rollout") else None,
        "size_mode": size_mode(app.size_mode),
        "placement": dict(sorted(app.placement.items())),
        "http": app.spec.route.http or None,
        "route": route_view(app.spec.route),
        "notices": list(app.notices),
    }


def worker_view(worker: types_pb2.WorkerStatus) -> dict[str, Any]:
    return {
        "id": worker_name(worker.id),
        "app": worker.id.app,
        "host": worker.id.host,
        "slot": worker.id.slot,
        "pid": worker.pid or None,
        "port": worker.port,
        "state": worker_state(worker),
        "ready": worker.state == types_pb2.WORKER_STATE_READY,
        "revision": worker.revision,
        "generation": worker.id.generation,
        "restarts": worker.restarts,
        "uptime_seconds": round(worker.uptime_seconds, 3),
        "rss_bytes": worker.rss_bytes,
        "cpu_percent": round(worker.cpu_percent, 1),
        "address": worker.address,
        "reason": worker.reason,
        "open_files": worker.open_files,
        "threads": worker.threads,
        "status": worker.status_text,
        "last_lines": list(worker.last_lines),
    }


def host_view(host: control_pb2.Host) -> dict[str, Any]:
    return {
        "name": host.name,
        "state": host_state(host),
        "cpus": host.cpus,
        "workers": host.workers,
        "labels": dict(sorted(host.labels.items())),
        "address": host.address,
        "agent_version": host.agent_version,
        "uid": host.uid,
        "scheduling": scheduling(host),
        "unheard_seconds": round(host.unheard_seconds, 3),
        "notices": list(host.notices),
    }


def balancer_view(balancer: control_pb2.Balancer) -> dict[str, Any]:
    return {
        "name": balancer.name,
        "state": "connected" if balancer.connected else "away",
        "driver": balancer.driver,
        "driver_version": balancer.driver_version,
        "version": balancer.version,
        "pools_current": balancer.pools_current,
        "pools": balancer.pools,
        "error": balancer.error,
        "absent_seconds": round(balancer.absent_seconds, 3),
        "notices": list(balancer.notices),
    }


def upstream_view(upstream: control_pb2.Upstream) -> dict[str, Any]:
    return {
        "pool": upstream.pool,
        "version": upstream.version,
        "http": upstream.route.http or None,
        "route": route_view(upstream.route),
        "endpoints": [
            {
                "worker": worker_name(endpoint.worker),
                "generation": endpoint.worker.generation,
                "address": endpoint.address,
                "port": endpoint.port,
                "state": endpoint_state(endpoint),
            }
            for endpoint in upstream.endpoints
        ],
        "acknowledged": dict(sorted(upstream.acknowledged.items())),
    }


def rollout_view(rollout: control_pb2.Rollout) -> dict[str, Any]:
    """A rollout in full."""
    return {
        "id": rollout.id,
        "app": rollout.app,
        "kind": rollout_kind(rollout),
        "state": rollout_state(rollout),
        "steps": rollout.steps,
        "steps_done": rollout.steps_done,
        "replaced": rollout.replaced,
        "seconds": round(rollout.seconds, 3),
        "message": rollout.message,
        "revision": rollout.revision,
        "generation": rollout.generation,
        "hosts": [
            {"host": host.host, "steps": host.steps, "steps_done": host.steps_done, "doing": host.doing}
            for host in rollout.hosts
        ],
        "cause": rollout.cause,
        "began_at": rollout.began_at,
        **_standing_view(rollout),
    }


def outcome_view(rollout: control_pb2.Rollout) -> dict[str, Any]:
    """How an operation ends."""
    return {
        "rollout": rollout.id,
        "state": rollout_state(rollout),
        "replaced": rollout.replaced,
        "seconds": round(rollout.seconds, 3),
        "app": rollout.app,
        "kind": rollout_kind(rollout),
        "message": rollout.message,
        "revision": rollout.revision,
        **_standing_view(rollout),
    }


def revision_view(summary: control_pb2.RevisionSummary) -> dict[str, Any]:
    return {
        "revision": summary.revision.number,
        "created_at": summary.created_at,
        "cause": summary.cause,
        "differences": list(summary.differences),
        "good": summary.good,
        "current": summary.current,
        "artifact_digest": summary.revision.artifact_digest or None,
        "spec_digest": summary.revision.spec_digest,
    }


def drain_view(drain: control_pb2.WatchDrainResponse) -> dict[str, Any]:
    """How far a drain is."""
    return {
        "host": drain.host,
        "state": "drained" if drain.drained else "draining",
        "workers_left": drain.workers_left,
        "apps": [{"app": app.app, "workers_left": app.workers_left, "doing": app.doing} for app in drain.apps],
        "message": drain.message,
    }


def log_view(entry: control_pb2.LogEntry) -> dict[str, Any]:
    return {
        "worker": f"{entry.app}/{entry.host}/{entry.slot}",
        "app": entry.app,
        "host": entry.host,
        "slot": entry.slot,
        "stream": entry.stream,
        "text": entry.text.decode(errors="replace"),
    }


def size_plan_view(app: str, plan: control_pb2.SetSizeResponse) -> dict[str, Any]:
    return {
        "app": app,
        "size_mode": size_mode(plan.size_mode),
        "plan": [{"host": host.host, "before": host.before, "after": host.after} for host in plan.plan],
        "shrinking_others": list(plan.shrinking_others),
    }


def _standing_view(rollout: control_pb2.Rollout) -> dict[str, Any]:
    failed = rollout.failed_worker
    return {
        "previous_revision": rollout.previous_revision or None,
        "paused": rollout.paused,
        "awaits_promotion": rollout.awaits_promotion,
        "failed_worker": {
            "id": worker_name(failed.worker),
            "generation": failed.worker.generation,
            "reason": failed.reason,
            "last_lines": list(failed.last_lines),
        }
        if rollout.HasField("failed_worker")
        else None,
    }


def info_view(info: control_pb2.GetInfoResponse) -> dict[str, Any]:
    return {
        "controller": info.controller,
        "version": info.version,
        "protocol_version": info.protocol_version,
        "epoch": f"{info.epoch.era}.{info.epoch.election_revision}",
        "etcd_endpoints": list(info.etcd_endpoints),
        "etcd_error": info.etcd_error,
        "fleet_id": info.fleet_id,
        "notices": list(info.notices),
        "apps": info.apps,
        "hosts": info.hosts,
        "workers": info.workers,
    }
