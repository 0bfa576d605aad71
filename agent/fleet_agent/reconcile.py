"""From what a host should run and what its supervisor has, to what the supervisor is told next. Pure.

Commands are states: each may be repeated, and once its effect shows in the supervisor's records it is not given again.
`told` holds, per worker, the last command the supervisor acknowledged on its present connection, so that a command whose effect
does not show yet is not repeated either; the caller drops an entry as soon as the record says the worker has exited or is gone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from fleet.v1 import types_pb2
from fleet_agent.launch import Extra, HostContext, Local, build_launch
from fleet_agent.ports import PortsBusyError, PortsExhaustedError, PortTable
from fleet_agent.supervisor.protocol import Key, Launch, Worker
from fleet_core.spec import AppSpec, ListenMode

_STATES = {
    "starting": types_pb2.WORKER_STATE_STARTING,
    "running": types_pb2.WORKER_STATE_READY,
    "unready": types_pb2.WORKER_STATE_UNREADY,
    "stopping": types_pb2.WORKER_STATE_STOPPING,
    "backoff": types_pb2.WORKER_STATE_BACKOFF,
    "exited": types_pb2.WORKER_STATE_EXITED,
    "failed": types_pb2.WORKER_STATE_FAILED,
}


@dataclass(frozen=True)
class Wanted:
    """One target of the assignment, with its spec, or the reason why that spec cannot be used here."""

    key: Key
    revision: int
    phase: types_pb2.Phase.ValueType
    spec_digest: str
    spec: AppSpec | str
    local: Local = field(default_factory=Local)
    artifact_digest: str = ""
    """Of the code it runs; empty: the code lies on the host already."""


@dataclass(frozen=True)
class Run:
    key: Key
    launch: Launch


@dataclass(frozen=True)
class Stop:
    key: Key
    stop_signal: int
    grace_seconds: float


@dataclass(frozen=True)
class Forget:
    key: Key


Command = Run | Stop | Forget


@dataclass(frozen=True)
class Plan:
    commands: list[Command]
    statuses: dict[Key, types_pb2.WorkerStatus]
    """Every worker and every target, without usage and uptime."""
    ports: PortTable
    """To be made durable before the commands are given."""


def reconcile(
    targets: Mapping[Key, Wanted],
    workers: Mapping[Key, Worker],
    ports: PortTable,
    told: Mapping[Key, Command],
    host: HostContext,
    listening: Collection[int],
    coming: Collection[Key] = (),
) -> Plan:
    """`listening`: TCP ports on which anything on this host listens now. `coming`: workers without a record that the supervisor
    was told to run, and may be starting: one that is to stop meanwhile has not exited before its record says so.

    A worker that is stopping is never told to run: when it has exited and its target still says run, it is started anew. A phase
    this version does not know changes nothing.
    """
    held_ports = {
        key: worker.launch.port for key, worker in workers.items() if worker.launch.port and worker.state != "exited"
    }
    held_sockets = {
        key.app: worker.launch.listen_port
        for key, worker in workers.items()
        if worker.launch.listen_port and worker.state != "exited"
    }
    sharing = {key.app for key, worker in workers.items() if worker.launch.listen_port}
    sharing.update(key.app for key, target in targets.items() if _shares(target))
    ports = ports.keep_only([*targets, *workers, *coming], sharing).adopt(held_ports).adopt_shared(held_sockets)
    in_use = dict(held_ports)
    for key in {*coming, *(key for key, target in targets.items() if target.phase == types_pb2.PHASE_RUN)}:
        if key not in in_use and ports.port_of(key):
            in_use[key] = ports.port_of(key)
    commands: list[Command] = []
    problems: dict[Key, tuple[types_pb2.WorkerState.ValueType, str]] = {}
    for key in sorted({*targets, *workers}):
        wanted, worker = targets.get(key), workers.get(key)
        command: Command | None = None
        if wanted is None or wanted.phase == types_pb2.PHASE_STOP:
            command = _down(worker, forget=wanted is None)
        elif wanted.phase == types_pb2.PHASE_RUN and (worker is None or worker.state != "stopping"):
            try:
                ports, command = _up(wanted, worker, ports, told.get(key), host, in_use, listening)
            except (PortsExhaustedError, _UnusableSpecError) as error:
                problems[key] = types_pb2.WORKER_STATE_FAILED, str(error)
            except (PortsBusyError, _NotYetError) as error:
                problems[key] = types_pb2.WORKER_STATE_PENDING, str(error)
        if command is not None and told.get(key) != command:
            commands.append(command)
    statuses = {
        key: status_of(key, targets.get(key), workers.get(key), _port(key, targets, ports), problems.get(key), host)
        for key in {*targets, *workers, *coming}
    }
    for key in coming:
        target = targets.get(key)
        if key not in workers and (target is None or target.phase == types_pb2.PHASE_STOP):
            statuses[key].state = types_pb2.WORKER_STATE_STOPPING
    return Plan(commands, statuses, ports)


class _UnusableSpecError(Exception):
    """The spec breaks a rule of this agent's version, or names what this host does not have."""


class _NotYetError(Exception):
    """Its code is being prepared."""


def _shares(wanted: Wanted) -> bool:
    return isinstance(wanted.spec, AppSpec) and wanted.spec.listen_mode is ListenMode.SOCKET


def _port(key: Key, targets: Mapping[Key, Wanted], ports: PortTable) -> int:
    """The port a worker without a record will have; 0: none, or not known yet."""
    wanted = targets.get(key)
    return ports.shared.get(key.app, 0) if wanted is not None and _shares(wanted) else ports.port_of(key)


def _down(worker: Worker | None, *, forget: bool) -> Command | None:
    """Stop it; once it is down and nobody asks for it, drop its record. With a target it stays, to be reported as exited."""
    if worker is None:
        return None
    if forget and worker.state in ("exited", "failed"):
        return Forget(worker.key)
    if worker.state == "exited":
        return None
    return Stop(worker.key, worker.launch.stop_signal, worker.launch.grace_seconds)


def _up(
    wanted: Wanted,
    worker: Worker | None,
    ports: PortTable,
    told: Command | None,
    host: HostContext,
    in_use: dict[Key, int],
    listening: Collection[int],
) -> tuple[PortTable, Command | None]:
    key = wanted.key
    problem = wanted.spec if isinstance(wanted.spec, str) else wanted.local.problem
    if isinstance(wanted.spec, str) or problem:
        if worker is not None and worker.state != "exited":
            return ports, None
        raise _UnusableSpecError(problem)
    if wanted.local.waiting:
        if worker is not None and worker.state != "exited":
            return ports, None
        raise _NotYetError(wanted.local.waiting)
    if worker is not None and _may_rest(worker, wanted):
        return ports, Run(key, worker.launch)
    port = 0
    if wanted.spec.listen_mode is ListenMode.SOCKET:
        ports = ports.share(key.app, in_use.values(), listening)
        port = ports.shared[key.app]
    elif wanted.spec.listen_mode is ListenMode.PORT:
        if worker is not None and worker.state != "exited":
            port = worker.launch.port
        elif isinstance(told, Run):
            port = told.launch.port
        else:
            ports = ports.give(key, [taken for other, taken in in_use.items() if other != key], listening)
            port = in_use[key] = ports.port_of(key)
    launch = build_launch(wanted.spec, key, wanted.revision, wanted.spec_digest, port, host, wanted.local)
    if worker is not None and worker.state != "exited" and worker.launch == launch:
        return ports, None
    return ports, Run(key, launch)


def _may_rest(worker: Worker, wanted: Wanted) -> bool:
    """It is down, perhaps because its restart policy lets it rest. Only the supervisor knows; under an equal launch it lets it
    rest on, so what this host would put into a launch today (a port, a variable) must not make the launch another one."""
    policy = worker.launch
    done = worker.state == "exited" and (policy.restart_mode != "always" or bool(policy.stop_exit_codes))
    rests = done or (worker.state == "failed" and policy.restart_mode == "never")
    return rests and Extra.of(policy).spec_digest == wanted.spec_digest


def status_of(
    key: Key,
    wanted: Wanted | None,
    worker: Worker | None,
    port: int,
    problem: tuple[types_pb2.WorkerState.ValueType, str] | None,
    host: HostContext,
) -> types_pb2.WorkerStatus:
    """What is reported of one worker, without usage and uptime. `port`: of one without a record."""
    status = types_pb2.WorkerStatus(
        id=types_pb2.WorkerId(app=key.app, host=host.name, slot=key.slot, generation=key.generation),
        phase=wanted.phase if wanted else types_pb2.PHASE_UNSPECIFIED,
    )
    if wanted is not None:
        status.revision = wanted.revision
        status.spec_digest = wanted.spec_digest
        status.artifact_digest = wanted.artifact_digest
    if worker is not None:
        extra = Extra.of(worker.launch)
        status.revision = extra.revision or status.revision
        status.state = _STATES.get(worker.state, types_pb2.WORKER_STATE_UNSPECIFIED)
        status.pid = worker.pid
        status.port = worker.launch.port or worker.launch.listen_port
        status.restarts = worker.restarts
        status.reason = worker.reason
        status.status_text = worker.status_text
        status.address = (extra.address or host.address) if status.port else ""
    else:
        stopped = wanted is None or wanted.phase == types_pb2.PHASE_STOP
        status.state = types_pb2.WORKER_STATE_EXITED if stopped else types_pb2.WORKER_STATE_PENDING
        status.port = port
        status.address = host.address if port else ""
    if problem is not None:
        status.state, status.reason = problem
        if wanted is not None:
            status.preparing = problem == (types_pb2.WORKER_STATE_PENDING, wanted.local.waiting)
            status.last_lines.extend(wanted.local.last_lines)
    return status
