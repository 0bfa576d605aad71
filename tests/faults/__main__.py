"""`make faults SECONDS=60 SEED=1`: faults for so long, then the verdict. Exit codes: 0 kept, 1 a promise broken, 2 usage."""

import argparse
import asyncio
import json
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.evidence import read_evidence
from tests.faults.host import HostUnderFaults
from tests.faults.judge import judge

_SHOWN = 40


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults happen (default: 60)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: a random one")
    parser.add_argument("--rate", type=float, default=1000.0, help="lines a second of each worker (default: 1000)")
    parser.add_argument(
        "--timestamps",
        action="store_true",
        help="stamp the lines of all apps (default: of one; another has JSON lines, and two have them as they come)",
    )
    arguments = parser.parse_args()
    if shutil.which("node") is None:
        print("the fault test needs node on PATH: install Debian's or Ubuntu's package nodejs", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="fleet-faults-"))
    print(f"seed {arguments.seed}, {arguments.seconds:g} s of faults, {arguments.rate:g} lines/s each", flush=True)
    host = HostUnderFaults(folder, arguments.seed, arguments.seconds, arguments.rate, timestamps=arguments.timestamps)
    asyncio.run(host.run())
    verdict = judge(read_evidence(host.journals, host.log_dir, host.history_path))
    print(json.dumps(verdict.facts, indent=2))
    if not verdict.violations:
        host.delete()
        return 0
    for violation in verdict.violations[:_SHOWN]:
        print(f"BROKEN: {violation}")
    print(f"{len(verdict.violations)} promises broken. Evidence: {folder}")
    stamped = " TIMESTAMPS=1" if arguments.timestamps else ""
    print(f"Again: make faults SECONDS={arguments.seconds:g} SEED={arguments.seed} RATE={arguments.rate:g}{stamped}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
