"""`python -m tests.bench.restarts`: soft restarts, and on request resizes, under load, round after round.

Prints one JSON object a round and exits 1 when a request failed, a process stayed, or the journals show too few ready workers.
The fleet of twelve workers on three hosts is the one of the end-to-end tests.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.integration.fleet.harness import EXPRESS_SERVER, Fleet, load_on
from tests.integration.fleet.judge import journals_show

_SIZE = 12
_GROWN = 18


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.restarts")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--resize", action="store_true", help=f"also {_SIZE} to {_GROWN} and back, each round")
    parser.add_argument(
        "--steady", type=float, default=0.0, help="at the end, watch etcd's revision for so many seconds"
    )
    arguments = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, Fleet(Path(folder)) as fleet:
        fleet.start()
        address = fleet.start_app(EXPRESS_SERVER, _SIZE)
        for number in range(1, arguments.rounds + 1):
            good &= _report({"round": number, "operation": "soft-restart", **_restart(fleet, address)})
            if arguments.resize:
                good &= _report({"round": number, "operation": "resize", **_resize(fleet, address)})
        if arguments.steady:
            good &= _report({"operation": "steady", **_steady(fleet, arguments.steady)})
    return 0 if good else 1


def _restart(fleet: Fleet, address: str) -> dict[str, Any]:
    before = fleet.pids()
    outcome = _under_load(fleet, address, most_on_host=_SIZE // 3 + 1, commands=[("soft-restart", "my-app")])
    stayed = len(before & fleet.pids())
    return {**outcome, "stayed": stayed, "good": outcome["good"] and stayed == 0}


def _resize(fleet: Fleet, address: str) -> dict[str, Any]:
    commands = [("set-size", "my-app", str(size), "-y") for size in (_GROWN, _SIZE)]
    return _under_load(fleet, address, most_on_host=_GROWN // 3 + 1, commands=commands)


def _under_load(
    fleet: Fleet, address: str, *, most_on_host: int, commands: Sequence[tuple[str, ...]]
) -> dict[str, Any]:
    """Run the commands under load, judged by the workers' journals and the clients."""
    journal_fault = ""
    with load_on(address, fleet.folder) as load:
        began = time.monotonic()
        try:
            with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: most_on_host):
                for command in commands:
                    fleet.do(*command)
                seconds = time.monotonic() - began
        except AssertionError as error:
            seconds, journal_fault = time.monotonic() - began, str(error)
        load.wait_for_more(100)
        summary = load.stop()
    return {
        "seconds": round(seconds, 2),
        "sent": summary["sent"],
        "failed": summary["failed"],
        "latency_ms": summary["latency_ms"],
        "journals": journal_fault or "ready ≥ size throughout",
        "failures": summary["details"][:5],
        "good": summary["failed"] == 0 and not journal_fault,
    }


def _steady(fleet: Fleet, seconds: float) -> dict[str, Any]:
    before = fleet.etcd_revision()
    time.sleep(seconds)
    moved = fleet.etcd_revision() - before
    return {"seconds": seconds, "etcd_revisions": moved, "good": moved == 0}


def _report(outcome: dict[str, Any]) -> bool:
    print(json.dumps(outcome, ensure_ascii=False), flush=True)
    return bool(outcome["good"])


if __name__ == "__main__":
    sys.exit(main())
