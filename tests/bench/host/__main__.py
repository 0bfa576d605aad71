"""`python -m tests.bench.host`: fleetctl beside PM2, supervisord and circus on this machine (docs/benchmarks.md).

Progress goes to standard error, tables to standard output, and every sample to a JSON file. Exits 1 when something could not be
measured, or left a process behind; a target that is not met is a finding, not a failure of the benchmark.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from tests.bench.host.case import AnyCase, Plan
from tests.bench.host.cases.crash import Crash
from tests.bench.host.cases.growth import Node, Trivial
from tests.bench.host.cases.idle import Idle
from tests.bench.host.cases.logs import Logs, Timestamps
from tests.bench.host.cases.memory import Memory
from tests.bench.host.cases.reload import Reload
from tests.bench.host.cases.sockets import Sockets
from tests.bench.host.install import Tools
from tests.bench.host.processes import SAMPLE_SECONDS, BenchError
from tests.bench.host.report import document, table
from tests.bench.host.runner import Runner

_FOLDER = Path(__file__).parents[3] / ".bench"
_CASES: dict[str, type[AnyCase]] = {
    case.name: case for case in (Crash, Trivial, Node, Idle, Memory, Logs, Timestamps, Sockets, Reload)
}
_SUBJECTS = tuple(dict.fromkeys(kind.name for case in _CASES.values() for kind in case.subjects))


def main() -> int:
    arguments = _parser().parse_args()
    tools = Tools(arguments.folder.absolute())
    plan = Plan(
        arguments.idle_seconds,
        arguments.idle_sizes,
        arguments.size,
        arguments.lines,
        arguments.seconds or Plan().pressure_seconds,
        arguments.seconds or Plan().steady_seconds,
    )
    try:
        tools.install()
        circumstances = {
            "cpus": os.cpu_count(),
            "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
            "kernel": os.uname().release.split("-")[0],
            "versions": tools.versions(),
            "repetitions": arguments.repetitions,
            "sampling_interval_ms": SAMPLE_SECONDS * 1000,
        }
    except BenchError as error:
        print(f"bench-host: {error}", file=sys.stderr)
        return 1
    _progress(json.dumps(circumstances))
    runner = Runner(tools, arguments.subjects, _progress)
    outcomes = []
    output = arguments.json or tools.folder / f"host-{time.strftime('%Y%m%d-%H%M%S')}.json"
    for name in arguments.cases:
        repetitions = arguments.memory_repetitions if name == Memory.name else arguments.repetitions
        outcome = runner.run(_CASES[name](plan), min(repetitions, arguments.repetitions))
        outcomes.append(outcome)
        print(table(outcome), flush=True)
        output.write_text(json.dumps(document(outcomes, circumstances), indent=1, ensure_ascii=False))
    print(f"every sample: {output}")
    return 1 if any(outcome.failures for outcome in outcomes) else 0


def _progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and an hour")
    return value


def _parser() -> argparse.ArgumentParser:
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.bench.host", description="fleetctl beside its peers.")
    parser.add_argument("--repetitions", type=_count, default=10, help="of each subject in each case (default: 10)")
    parser.add_argument(
        "--cases", nargs="+", choices=_CASES, default=list(_CASES), metavar="CASE", help=", ".join(_CASES)
    )
    parser.add_argument(
        "--subjects", nargs="+", choices=_SUBJECTS, default=[], metavar="SUBJECT", help=", ".join(_SUBJECTS)
    )
    parser.add_argument(
        "--memory-repetitions", type=_count, default=3, help="of the memory case, which hardly varies (default: 3)"
    )
    parser.add_argument("--idle-seconds", type=_seconds, default=plan.idle_seconds)
    parser.add_argument("--idle-sizes", type=_count, nargs="+", default=list(plan.idle_sizes), metavar="WORKERS")
    parser.add_argument("--size", type=_count, default=plan.size, help="workers to grow to (default: 64)")
    parser.add_argument("--lines", type=_count, default=plan.lines, help="to log (default: 200000)")
    parser.add_argument("--seconds", type=_seconds, help="of each load (default: 3 in sockets, 5 before a reload)")
    parser.add_argument("--json", type=Path, help="where every sample is written; default: below the folder")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="where the peers are installed (default: .bench)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
