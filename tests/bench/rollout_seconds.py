"""`python -m tests.bench.rollout_seconds`: how long a soft restart takes beside the sum of what its steps cannot do without.

24 workers on three hosts, one at a time; the app listens 300 ms after its start. The sum is made in the same run: each worker's
boot from its own journal (process started → listening), the policy's `min_ready`, the app's longest request (what a drain waits
for under load), and the exit of such a process after SIGTERM, measured here. Prints one JSON object a round.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.fleet.harness import MOODY_SERVER, Fleet, load_on
from tests.load.journal import read_journals

_SIZE = 24
_MIN_READY_SECONDS = 0.5
_REQUEST_SECONDS = 0.05
_TARGET = 1.2
_ANY_PORT = Path(__file__).with_name("any_port.js")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rollout_seconds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--boot-ms", type=int, default=300)
    arguments = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, Fleet(Path(folder)) as fleet:
        fleet.start()
        options = ("-e", f"BOOT_MS={arguments.boot_ms}", "--min-ready", f"{_MIN_READY_SECONDS:g}s")
        address = fleet.start_app(MOODY_SERVER, _SIZE, *options)
        for number in range(1, arguments.rounds + 1):
            exits = _exit_seconds(arguments.boot_ms)
            with load_on(address, fleet.folder) as load:
                began = time.monotonic()
                fleet.do("soft-restart", "my-app")
                seconds = time.monotonic() - began
                summary = load.stop()
            boots = list(_boots(fleet, began))
            floor = sum(boots) + len(boots) * (_MIN_READY_SECONDS + _REQUEST_SECONDS + exits)
            ratios.append(seconds / floor)
            report = {
                "round": number,
                "seconds": round(seconds, 2),
                "boot_ms": round(1000 * statistics.median(boots), 1),
                "exit_ms": round(1000 * exits, 1),
                "workers": len(boots),
                "floor_seconds": round(floor, 2),
                "ratio": round(seconds / floor, 3),
                "failed": summary["failed"],
            }
            print(json.dumps(report), flush=True)
    median = statistics.median(ratios)
    verdict = "met" if median <= _TARGET else "not met"
    print(
        json.dumps(
            {"median_ratio": round(median, 3), "max_ratio": round(max(ratios), 3), "target": _TARGET, "is": verdict}
        )
    )
    return 0


def _boots(fleet: Fleet, since: float) -> Iterator[float]:
    for life in read_journals(fleet.journals):
        if life.started >= since and life.listening is not None:
            yield life.listening - life.started


def _exit_seconds(boot_ms: int) -> float:
    """The median of five: from SIGTERM to the end of such a process that has no handler."""
    return statistics.median(_one_exit(boot_ms) for _ in range(5))


def _one_exit(boot_ms: int) -> float:
    with _standing_alone(boot_ms) as process:
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        return time.monotonic() - began


@contextmanager
def _standing_alone(boot_ms: int) -> Iterator[subprocess.Popen[str]]:
    """The app without fleetctl, once it says that it listens."""
    process = subprocess.Popen(
        ["node", "--require", str(_ANY_PORT), str(MOODY_SERVER)],
        env={**os.environ, "BOOT_MS": str(boot_ms)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


if __name__ == "__main__":
    sys.exit(main())
