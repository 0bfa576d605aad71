"""`make faults-planted`: each history without its bug, which must end well, and with it, which must not.

Exit codes: 0 each bug was caught and nothing else, 1 not so.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.planted.histories import HISTORIES, possible

_ROOT = Path(__file__).resolve().parents[3]
_PATCHES = Path(__file__).parent
_ROOMS = ("proto", "core", "agent", "controller", "balancer", "cli")
_SECONDS = 300
_NOT_COPIED = shutil.ignore_patterns(".*", "node_modules", "build", "dist", "__pycache__")


@contextmanager
def planted(name: str) -> Iterator[Path]:
    """A copy of the checkout with the bug in it. Raises CalledProcessError where the patch does not fit any more."""
    with tempfile.TemporaryDirectory(prefix="fleet-planted-") as folder:
        copy = Path(folder) / "checkout"
        copy.mkdir()
        for room in (*_ROOMS, "tests"):
            shutil.copytree(_ROOT / room, copy / room, ignore=_NOT_COPIED)
        patch = (_PATCHES / f"{name}.patch").read_bytes()
        subprocess.run(["patch", "--strip=1", "--quiet", "--fuzz=2"], cwd=copy, input=patch, check=True)
        yield copy


def run(name: str, seed: int, checkout: Path) -> list[str]:
    """The violations of the history `name`, with the programs of `checkout`. Raises RuntimeError where it could not be had."""
    path = os.pathsep.join(str(checkout / room) for room in (*_ROOMS, ""))
    result = subprocess.run(
        [sys.executable, "-m", "tests.faults.planted.histories", name, "--seed", str(seed)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    if result.returncode not in (0, 1) or bool(result.returncode) != bool(result.stdout.strip()):
        raise RuntimeError(f"{name}: exit status {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout.splitlines()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.planted", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*sorted(HISTORIES), []], help="default: all")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    good = True
    for name in arguments.names or HISTORIES:
        if reason := possible(name):
            print(f"{name}: not here, {reason}")
            continue
        without = run(name, arguments.seed, _ROOT)
        with planted(name) as checkout:
            found = run(name, arguments.seed, checkout)
        caught = not without and bool(found)
        good = good and caught
        print(f"{name}, seed {arguments.seed}: {'caught' if caught else 'NOT AS IT SHOULD BE'}", flush=True)
        print(f"    without the bug: {len(without)} violations", *without[:5], sep="\n        ")
        print(f"    with it: {len(found)} violations", *found[:5], sep="\n        ", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
