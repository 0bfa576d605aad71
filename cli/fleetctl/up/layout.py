"""Where everything of one `fleetctl up` lies. Pure: names and paths, no file is touched."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from fleet_core.addresses import EVERYWHERE

_SOCKET_PATH_BYTES = 107
"""sun_path less its closing zero (man 7 unix)."""
_LONGEST_SOCKET_BYTES = len("/balancers/balancer1/run/") + 32
"""Below the runtime root; the last 32 are for a socket's own name and the suffix HAProxy adds while it binds."""
_SHORT_ROOT = Path(os.sep, "tmp")
"""Not $TMPDIR: every `up` on a folder must find the same place."""


@dataclass(frozen=True, slots=True)
class HostFolders:
    """Of one simulated host (docs/architecture.md, "Folders of a host")."""

    config: Path
    state: Path
    run: Path
    log: Path


@dataclass(frozen=True, slots=True)
class Layout:
    """All paths of one data folder. `runtime_root` is the data folder itself, or a stand-in for what need not last."""

    data_dir: Path
    runtime_root: Path

    @property
    def settings(self) -> Path:
        return self.data_dir / "up.json"

    @property
    def lock(self) -> Path:
        return self.data_dir / "up.lock"

    @property
    def certificates(self) -> Path:
        return self.data_dir / "certificates"

    @property
    def logs(self) -> Path:
        return self.data_dir / "log"

    def etcd(self, member: str) -> Path:
        return self.data_dir / member

    @property
    def notify_socket(self) -> Path:
        return self.runtime_root / "notify.sock"

    @property
    def runtime_is_apart(self) -> bool:
        return self.runtime_root != self.data_dir

    def log(self, service: str) -> Path:
        return self.logs / f"{service}.log"

    def host(self, name: str) -> HostFolders:
        folder = Path("hosts", name)
        return HostFolders(
            config=self.data_dir / folder / "agent.toml",
            state=self.data_dir / folder / "state",
            run=self.runtime_root / folder / "run",
            log=self.data_dir / folder / "log",
        )

    def controller_config(self, name: str) -> Path:
        return self.data_dir / "controllers" / name / "controller.toml"

    def controller_state(self, name: str) -> Path:
        return self.data_dir / "controllers" / name / "state"

    @property
    def artifacts(self) -> Path:
        """All controllers share it."""
        return self.data_dir / "artifacts"

    def balancer_config(self, name: str) -> Path:
        return self.data_dir / "balancers" / name / "balancer.toml"

    def balancer_state(self, name: str) -> Path:
        return self.data_dir / "balancers" / name / "state"

    def balancer_run(self, name: str) -> Path:
        return self.runtime_root / "balancers" / name / "run"


def default_data_dir(xdg_data_home: str, home: Path) -> Path:
    """XDG Base Directory Specification: a relative XDG_DATA_HOME is ignored."""
    base = Path(xdg_data_home) if xdg_data_home.startswith("/") else home / ".local" / "share"
    return base / "fleetctl" / "up"


def runtime_root(data_dir: Path, fleet_id: str, user_id: int, memory: str = "") -> Path:
    """Where sockets and runtime files lie: in `memory` (`Settings.memory`) where there is that, as in /run under systemd; else in
    the data folder, unless its path is too long for a unix socket's address."""
    if not memory and len(os.fsencode(data_dir)) + _LONGEST_SOCKET_BYTES <= _SOCKET_PATH_BYTES:
        return data_dir
    return Path(memory or _SHORT_ROOT, f"fleet-{user_id}-{fleet_id}")


def preferred_block(data_dir: Path, *, is_default: bool, blocks: int) -> int:
    """The block of ports to try first: the first for the default folder, else one spread by the folder's name, so that
    fleets that do not run at the same time seldom record the same ports."""
    if is_default:
        return 0
    return int.from_bytes(hashlib.sha256(os.fsencode(data_dir)).digest()[:4]) % blocks


def context_name(fleet_id: str, *, is_default: bool) -> str:
    """The context that leads to this fleet: a fleet in another folder does not take the usual one's name."""
    return "up" if is_default else f"up-{fleet_id}"


def host_names(count: int) -> list[str]:
    return [f"host{number}" for number in range(1, count + 1)]


def etcd_names(count: int) -> list[str]:
    return ["etcd"] if count == 1 else [f"etcd{number}" for number in range(1, count + 1)]


def controller_names(count: int) -> list[str]:
    return [f"controller{number}" for number in range(1, count + 1)]


def balancer_names(count: int) -> list[str]:
    return [f"balancer{number}" for number in range(1, count + 1)]


def balancer_addresses(count: int) -> list[str]:
    """Where each listens: one alone everywhere, several on loopback addresses of their own, so that all can serve one port."""
    if count == 1:
        return [EVERYWHERE]
    return [f"127.0.0.{number}" for number in range(1, count + 1)]
