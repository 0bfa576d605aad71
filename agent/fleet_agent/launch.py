"""From an app's spec to what the supervisor starts: one slot's argv, environment and policies. Pure."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet_agent.supervisor.protocol import Key, Launch
from fleet_core.spec import AppSpec, ListenMode, ReadyMethod, Runtime

_INHERITED = ("PATH", "HOME", "LANG", "TZ")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class HostContext:
    """What every launch on one host shares."""

    name: str
    address: str
    """Where the balancers reach this host's workers."""
    environment: Mapping[str, str]
    """The agent's own; only PATH, HOME, LANG and TZ of it reach a worker."""
    node_preload: str
    """Absolute path of node/preload.js."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of every worker on this host, from the agent's configuration."""
    worker_user: str = ""
    """Of workers whose app names none; empty: the supervisor's own."""

    def user_of(self, spec: AppSpec) -> str:
        """As whom the app's workers run; empty: as the supervisor."""
        return spec.identity.user or self.worker_user


@dataclass(frozen=True)
class Local:
    """What this host alone knows of one app; looked up anew for each plan."""

    file_variables: Mapping[str, str] = field(default_factory=dict)
    """From the spec's env files."""
    account_variables: Mapping[str, str] | None = None
    """HOME, USER, LOGNAME and SHELL of the spec's user; None: it runs as the supervisor's own."""
    problem: str = ""
    """Why no worker can be started now; empty: nothing is in the way."""
    waiting: str = ""
    """What is being done before a worker can be started; empty: nothing."""
    last_lines: tuple[str, ...] = ()
    """What a build printed last that is the problem."""
    code: str = ""
    """The folder of the deployed code, absolute; empty: the spec's own directory is absolute."""
    programs: str = ""
    """A folder to look for programs in before all others: the virtual environment of the deployed code."""


@dataclass(frozen=True)
class Extra:
    """The agent's notes in `Launch.extra`: what it must know of a worker even when it no longer holds its target."""

    revision: int = 0
    spec_digest: str = ""
    address: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"revision": self.revision, "spec_digest": self.spec_digest, "address": self.address}

    @classmethod
    def of(cls, launch: Launch) -> "Extra":
        """Absent notes, of a launch some other program made, are empty."""
        extra = launch.extra
        return cls(int(extra.get("revision", 0)), str(extra.get("spec_digest", "")), str(extra.get("address", "")))


def build_launch(
    spec: AppSpec, key: Key, revision: int, spec_digest: str, port: int, host: HostContext, local: Local
) -> Launch:
    """`port` is the worker's own, or the one its app shares in listen mode socket; 0 in listen mode none."""
    shares = spec.listen_mode is ListenMode.SOCKET
    method = spec.ready.method
    # The shared socket accepts before any program does, and goes on when one ends: only the preload knows when its program
    # listens, and how it is drained.
    preloaded = shares and spec.runtime is Runtime.NODE
    ready_by = method.value if method in (ReadyMethod.NOTIFY, ReadyMethod.MESSAGE) else ""
    return Launch(
        argv=list(spec.argv),
        cwd=str(Path(local.code, spec.cwd)) if local.code else spec.cwd,
        env=_environment(spec, key, revision, port, host, local),
        port=0 if shares else port,
        stop_signal=signal.Signals[spec.stop.signal].value,
        grace_seconds=spec.stop.grace_seconds,
        backoff_initial_seconds=spec.restart.backoff_initial_seconds,
        backoff_max_seconds=spec.restart.backoff_max_seconds,
        max_restarts=spec.restart.max_restarts,
        window_seconds=spec.restart.window_seconds,
        stable_seconds=spec.restart.stable_seconds,
        restart_mode=spec.restart.mode.value,
        stop_exit_codes=list(spec.restart.stop_exit_codes),
        log_max_bytes=spec.log.max_bytes,
        log_files=spec.log.max_files,
        log_timestamps=spec.log.timestamps,
        log_json=spec.log.json_lines,
        log_max_age_seconds=spec.log.max_age_seconds,
        log_compress=spec.log.compress,
        user=host.user_of(spec),
        group=spec.identity.group,
        umask=int(spec.identity.umask, 8),
        nice=spec.identity.nice,
        resource_limits={name: [limit.soft, limit.hard] for name, limit in spec.identity.resource_limits.items()},
        memory_max_bytes=spec.limits.memory_max_bytes,
        cpu_max_cores=spec.limits.cpu_max_cores,
        pids_max=spec.limits.pids_max,
        ready_by="listening" if preloaded and method is None else ready_by,
        notify=method is ReadyMethod.NOTIFY or spec.ready.watchdog_seconds > 0,
        watchdog_seconds=spec.ready.watchdog_seconds,
        # For every Node program, because many written for PM2 call process.send('ready') without asking whether it exists.
        channel=spec.runtime is Runtime.NODE or spec.stop.shutdown_message,
        shutdown_message=spec.stop.shutdown_message or preloaded,
        listen_address=host.address if shares else "",
        listen_port=port if shares else 0,
        extra=Extra(revision, spec_digest, host.address if port else "").to_json(),
    )


def base_environment(host: HostContext, account_variables: Mapping[str, str] | None) -> dict[str, str]:
    """What every process of an app begins with."""
    env = {name: host.environment[name] for name in _INHERITED if name in host.environment}
    env.setdefault("PATH", _DEFAULT_PATH)
    if account_variables is not None:
        env.pop("HOME", None)
        env.update(account_variables)
    return env


def _environment(spec: AppSpec, key: Key, revision: int, port: int, host: HostContext, local: Local) -> dict[str, str]:
    """Defaults, then what the host, the env files, the app and the slot say, the later the stronger; then what nobody may
    override: a second PORT would collide."""
    listens = spec.listen_mode is not ListenMode.NONE
    env = base_environment(host, local.account_variables)
    if local.programs:
        env["PATH"] = f"{local.programs}:{env['PATH']}"
        env["VIRTUAL_ENV"] = str(Path(local.programs).parent)
    if spec.runtime is Runtime.NODE:
        env["NODE_ENV"] = "production"
    if listens:
        env["HOST"] = host.address
    counters = {name: str(first + key.slot - 1) for name, first in spec.counters.items()}
    for variables in (host.variables, local.file_variables, spec.env, counters, spec.worker_env.get(key.slot, {})):
        env.update(variables)
    env.update(
        FLEET_APP=key.app,
        FLEET_HOST=host.name,
        FLEET_WORKER_ID=str(key.slot),
        FLEET_GENERATION=str(key.generation),
        FLEET_REVISION=str(revision),
        FLEET_ADDRESS=host.address,
    )
    if listens:
        # FLEET_PORT beside PORT: `npm start` scripts set PORT themselves, and the preload must know the truth.
        env.update(PORT=str(port), FLEET_PORT=str(port))
        if spec.declared_port:
            env["FLEET_DECLARED_PORT"] = str(spec.declared_port)
    if spec.runtime is Runtime.NODE:
        env["NODE_OPTIONS"] = f"--require {_quoted(host.node_preload)} {env.get('NODE_OPTIONS', '')}".rstrip()
    return env


def _quoted(path: str) -> str:
    """As NODE_OPTIONS wants a value that may hold spaces (Node's manual, "NODE_OPTIONS=options")."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
