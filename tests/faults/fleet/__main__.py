"""`make faults-hosts SECONDS=300 SEED=1`: faults on real hosts for so long, then the verdict on the record.

On seven hosts that are made for it; with --fleet FILE on your own (docs/robustness.md). With --judge FOLDER an earlier record is
judged again. Exit codes: 0 no violation, 1 an invariant broken, 2 usage.
"""

import argparse
import os
import secrets
import shutil
import sys
from pathlib import Path

from tests.faults.fleet.checker import check
from tests.faults.fleet.own_fleet import OwnFleet, OwnFleetError
from tests.faults.fleet.plan import Topology, episodes
from tests.faults.fleet.record import Recorder, read
from tests.faults.fleet.report import report
from tests.faults.fleet.suite import Suite
from tests.faults.fleet.topologies import WIDE
from tests.hosts.engine import EngineError, require
from tests.hosts.operated_fleet import OperatedFleet
from tests.hosts.wide_fleet import WideFleet

_RECORDS = Path(__file__).resolve().parents[3] / ".faults"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fleet", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="no episode begins later (default: 300)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: a random one")
    parser.add_argument("--folder", type=Path, help="for the record; default: .faults/SEED in the checkout")
    parser.add_argument("--fleet", type=Path, metavar="FILE", help="your own hosts, reached by ssh")
    parser.add_argument("--judge", type=Path, metavar="FOLDER", help="judge the record there, and do nothing else")
    arguments = parser.parse_args()
    if arguments.judge is not None:
        return _judge(arguments.judge, f"python -m tests.faults.fleet --judge {arguments.judge}")
    folder = arguments.folder or _RECORDS / str(arguments.seed)
    shutil.rmtree(folder, ignore_errors=True)
    again = f"make faults-hosts SECONDS={arguments.seconds:g} SEED={arguments.seed}"
    own = None
    try:
        if arguments.fleet is not None:
            own = OwnFleet.read(arguments.fleet)
            again = f"{again.replace('make faults-hosts SECONDS=', 'python -m tests.faults.fleet --seconds ')}"
            again = f"{again.replace('SEED=', '--seed ')} --fleet {arguments.fleet}"
        else:
            require()
    except (EngineError, OwnFleetError) as error:
        print(f"faults-hosts: {error}", file=sys.stderr)
        return 2
    print(f"seed {arguments.seed}, faults for {arguments.seconds:g} s, the record in {folder}", flush=True)
    recorder = Recorder(folder)
    try:
        if own is not None:
            (folder / "journals").mkdir()
            _run(own, own.topology, recorder, arguments)
        else:
            os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
            with WideFleet(folder) as fleet:
                _run(fleet, WIDE, recorder, arguments)
    finally:
        recorder.close()
    return _judge(folder, again)


def _run(fleet: OperatedFleet, topology: Topology, recorder: Recorder, arguments: argparse.Namespace) -> None:
    suite = Suite(fleet, topology, recorder, arguments.seed, lambda line: print(line, flush=True))
    suite.run(episodes(arguments.seed, fleet.app, topology), arguments.seconds)


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
