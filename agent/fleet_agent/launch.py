"""From an app's spec to what the supervisor starts: one slot's argv, environment and policies. Pure."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet_agent.supervisor.protocol import Key, Launch
from fleet_core.spec import AppSpec, ListenMode, Runtime

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


def build_launch(spec: AppSpec, key: Key, revision: int, spec_digest: str, port: int, host: HostContext) -> Launch:
    """`port` is 0 where the app's listen mode is none."""
    return Launch(
        argv=list(spec.argv),
        cwd=spec.cwd,
        env=_environment(spec, key, revision, port, host),
        port=port,
        stop_signal=signal.Signals[spec.stop.signal].value,
        grace_seconds=spec.stop.grace_seconds,
        backoff_initial_seconds=spec.restart.backoff_initial_seconds,
        backoff_max_seconds=spec.restart.backoff_max_seconds,
        max_restarts=spec.restart.max_restarts,
        window_seconds=spec.restart.window_seconds,
        stable_seconds=spec.restart.stable_seconds,
        extra=Extra(revision, spec_digest, host.address if port else "").to_json(),
    )


def _environment(spec: AppSpec, key: Key, revision: int, port: int, host: HostContext) -> dict[str, str]:
    """Defaults an app may override, then the app's own, then what it may not: a second PORT would collide."""
    env = {name: host.environment[name] for name in _INHERITED if name in host.environment}
    env.setdefault("PATH", _DEFAULT_PATH)
    if spec.runtime is Runtime.NODE:
        env["NODE_ENV"] = "production"
    if spec.listen_mode is ListenMode.PORT:
        env["HOST"] = host.address
    env.update(spec.env)
    env.update(
        FLEET_APP=key.app,
        FLEET_HOST=host.name,
        FLEET_WORKER_ID=str(key.slot),
        FLEET_GENERATION=str(key.generation),
        FLEET_REVISION=str(revision),
        FLEET_ADDRESS=host.address,
    )
    if spec.listen_mode is ListenMode.PORT:
        # FLEET_PORT beside PORT: `npm start` scripts set PORT themselves, and the preload must know the truth.
        env.update(PORT=str(port), FLEET_PORT=str(port))
        if spec.declared_port:
            env["FLEET_DECLARED_PORT"] = str(spec.declared_port)
    if spec.runtime is Runtime.NODE:
        env["NODE_OPTIONS"] = f"--require {_quoted(host.node_preload)} {spec.env.get('NODE_OPTIONS', '')}".rstrip()
    return env


def _quoted(path: str) -> str:
    """As NODE_OPTIONS wants a value that may hold spaces (Node's manual, "NODE_OPTIONS=options")."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
