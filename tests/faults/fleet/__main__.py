"""`make faults-hosts SECONDS=300 SEED=1`: faults on real hosts for so long, then the verdict on the record.

Exit codes: 0 no violation, 1 an invariant broken, 2 usage. With --judge FOLDER an earlier record is judged again.
"""

import argparse
import os
import secrets
import shutil
import sys
from pathlib import Path

from tests.faults.fleet.checker import check
from tests.faults.fleet.plan import episodes
from tests.faults.fleet.record import Recorder, read
from tests.faults.fleet.report import report
from tests.faults.fleet.suite import TOPOLOGY, Suite
from tests.hosts.engine import EngineError, require
from tests.hosts.wide_fleet import APP, WideFleet

_RECORDS = Path(__file__).resolve().parents[3] / ".faults"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fleet", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="no episode begins later (default: 300)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: a random one")
    parser.add_argument("--folder", type=Path, help="for the record; default: .faults/SEED in the checkout")
    parser.add_argument("--judge", type=Path, metavar="FOLDER", help="judge the record there, and do nothing else")
    arguments = parser.parse_args()
    if arguments.judge is not None:
        return _judge(arguments.judge, f"python -m tests.faults.fleet --judge {arguments.judge}")
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    try:
        require()
    except EngineError as error:
        print(f"faults-hosts: {error}", file=sys.stderr)
        return 2
    folder = arguments.folder or _RECORDS / str(arguments.seed)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"seed {arguments.seed}, faults for {arguments.seconds:g} s, the record in {folder}", flush=True)
    recorder = Recorder(folder)
    try:
        with WideFleet(folder) as fleet:
            suite = Suite(fleet, recorder, arguments.seed, lambda line: print(line, flush=True))
            suite.run(episodes(arguments.seed, APP, TOPOLOGY), arguments.seconds)
    finally:
        recorder.close()
    return _judge(folder, f"make faults-hosts SECONDS={arguments.seconds:g} SEED={arguments.seed}")


def _judge(folder: Path, again: str) -> int:
    try:
        record = read(folder)
    except (OSError, ValueError, KeyError, StopIteration) as error:
        print(f"{folder} holds no record: {error}", file=sys.stderr)
        return 2
    violations = check(record)
    (folder / "report.md").write_text(report(record, violations, again))
    for violation in violations:
        print(f"BROKEN: {violation}")
        for line in violation.evidence:
            print(f"    {line}")
    print(
        f"seed {record.seed}: {record.end - record.begin:.0f} s, {len(record.faults)} faults, "
        f"{len(record.operations)} operations, {record.sent} requests, {len(record.failures)} failed, "
        f"{len(violations)} violations. Report: {folder / 'report.md'}"
    )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
