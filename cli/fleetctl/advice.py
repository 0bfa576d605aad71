"""What somebody should do next, from what the controller knows. Pure."""

from collections.abc import Iterable, Sequence

from fleet.v1 import control_pb2, types_pb2
from fleetctl import views
from fleetctl.ailing import is_sick, rests, worst_first
from fleetctl.outcome import what_runs
from fleetctl.wording import duration

_AGAIN = {
    control_pb2.ROLLOUT_KIND_SET_SIZE: "set-size {app} {size}",
    control_pb2.ROLLOUT_KIND_STOP: "stop {app}",
    control_pb2.ROLLOUT_KIND_REMOVE: "remove {app}",
}

_REVISIONS = (control_pb2.ROLLOUT_KIND_UPDATE, control_pb2.ROLLOUT_KIND_ROLLBACK)


def app_advice(app: control_pb2.App, workers: Sequence[types_pb2.WorkerStatus]) -> list[str]:
    """Next steps for one app, the most urgent first; empty: nothing needs doing."""
    if app.state == control_pb2.APP_STATE_STOPPED:
        return [f"it is stopped: `fleetctl start {app.name}` starts it again"]
    advice = []
    running = app.HasField("rollout") and views.under_way(app.rollout)
    ailing = [worker for worker in worst_first(workers) if not rests(worker) and _began(worker)]
    sick = any(map(is_sick, ailing))
    if ailing:
        name = views.worker_name(ailing[0].id)
        advice.append(f"see what {name} wrote before: `fleetctl logs --worker {name} --lines 50`")
    if app.HasField("rollout") and app.rollout.state == control_pb2.ROLLOUT_STATE_FAILED:
        if app.rollout.kind in _REVISIONS:
            advice.append(f"{what_runs(app.rollout)}; what was tried: `fleetctl history {app.name}`")
            return advice
        again = _AGAIN.get(app.rollout.kind, "soft-restart {app}").format(app=app.name, size=app.size)
        advice.append(f"when the cause is mended: `fleetctl {again}`")
        if app.rollout.kind == control_pb2.ROLLOUT_KIND_START and app.revision <= 1:
            advice.append(f"to start it in another way, forget it first: `fleetctl remove {app.name}`")
    elif sick and not running:
        advice.append(f"when the cause is mended, start it anew: `fleetctl restart --worker {name}`")
    if running and app.rollout.paused:
        advice.append(
            f"go on with `fleetctl rollout resume {app.name}`, or back with `fleetctl rollout abort {app.name}`"
        )
    elif running and app.rollout.awaits_promotion:
        advice.append(
            f"are the canaries good? `fleetctl rollout promote {app.name}` goes on, `fleetctl rollout abort {app.name}` back"
        )
    elif running:
        advice.append(f"follow the rollout: `fleetctl rollout status {app.name} --watch`")
    elif app.state == control_pb2.APP_STATE_RUNNING and app.ready < app.size and not ailing:
        advice.append(_of_missing(app, workers))
    return advice


def _began(worker: types_pb2.WorkerStatus) -> bool:
    """It was started, however that went."""
    return worker.state != types_pb2.WORKER_STATE_PENDING


def _of_missing(app: control_pb2.App, workers: Sequence[types_pb2.WorkerStatus]) -> str:
    """Why fewer are ready than there shall be, though none is known to ail."""
    resting = [views.worker_name(worker.id) for worker in workers if rests(worker)]
    if resting:
        why = f"{resting[0]} has ended, and its restart policy lets it rest"
        return f"{why}: `fleetctl restart --worker {resting[0]}` starts it again"
    if sum(worker.phase != types_pb2.PHASE_STOP and _began(worker) for worker in workers) >= app.size:
        return f"workers are starting: `fleetctl logs {app.name} -f` shows what they write"
    return "workers are missing: `fleetctl host ls` shows whether a host is away"


def fleet_advice(hosts: Iterable[control_pb2.Host], balancers: Iterable[control_pb2.Balancer]) -> list[str]:
    """What keeps apps from being changed: hosts and balancers that are away or refuse."""
    hosts = list(hosts)
    advice = [f"host {host.name}: {notice}" for host in hosts for notice in host.notices]
    advice += [
        f"host {host.name} has not been heard of{_since(host.unheard_seconds)}, its workers may well run: look after "
        "fleet-agent and the network there"
        for host in hosts
        if host.state != control_pb2.HOST_STATE_ONLINE
    ]
    for balancer in balancers:
        advice += [f"balancer {balancer.name}: {notice}" for notice in balancer.notices]
        if not balancer.connected:
            advice.append(
                f"balancer {balancer.name} is away{_since(balancer.absent_seconds)}, and rollouts wait for it: look after "
                f"fleet-balancer there, or `fleetctl balancer remove {balancer.name}` if it is gone for good"
            )
        elif balancer.error:
            advice.append(f"balancer {balancer.name} refused a list: {balancer.error}")
    return advice


def _since(seconds: float) -> str:
    return f" for {duration(int(seconds))}" if seconds >= 1 else ""
