"""What hosts install: a wheel of this checkout, and those of everything it needs, so that no host needs the internet."""

import hashlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_CACHE = ".hosts"
_PYTHON = "3.11"
"""Of the hosts' Debian."""
_GLIBC = ("manylinux1", "manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_34")


class WheelsError(Exception):
    """pip failed; the message is what it said."""


def provide(root: Path = _ROOT) -> Path:
    """A folder of wheels of the checkout `root`. Those of others are kept while pyproject.toml and the lock stay as they are.

    Raises WheelsError.
    """
    ingredients = b"".join((root / name).read_bytes() for name in ("pyproject.toml", "requirements-dev.lock"))
    folder = root / _CACHE / f"wheels-{hashlib.sha256(ingredients).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("fleetctl-*.whl"):
        old.unlink()
    # What an earlier build left there would be packed again, deleted modules too.
    shutil.rmtree(root / "build", ignore_errors=True)
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(root))
    complete = folder / ".complete"
    if not complete.exists():
        machine = platform.machine()
        platforms = [option for name in _GLIBC for option in ("--platform", f"{name}_{machine}")]
        _pip(
            *("download", "--only-binary=:all:", "--implementation", "cp", "--python-version", _PYTHON, *platforms),
            *("--constraint", str(root / "requirements-dev.lock"), "--dest", str(folder), f"{wheel(folder)}[all]"),
        )
        complete.touch()
    return folder


def wheel(folder: Path) -> Path:
    """Of this checkout."""
    (found,) = folder.glob("fleetctl-*.whl")
    return found


def _pip(*arguments: str) -> None:
    result = subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        raise WheelsError(f"pip {' '.join(arguments)}: {result.stderr.strip()[-2000:]}")
