"""A report that a person can read: the verdict, what broke with its evidence, and everything in order of time. Pure."""

from collections.abc import Iterator, Sequence

from tests.faults.fleet.checker import Violation
from tests.faults.fleet.record import Record

_OUTPUT_LINES = 3


def report(record: Record, violations: Sequence[Violation], again: str) -> str:
    """Markdown. `again`: the command that has the same faults once more."""
    verdict = "no violation" if not violations else f"{len(violations)} violations"
    lines = [
        f"# Faults, seed {record.seed}: {verdict}",
        "",
        f"{len(record.faults)} faults, {len(record.operations)} operations, {len(record.sights)} looks at the fleet.",
        f"{record.sent} requests sent, {len(record.failures)} failed; {len(record.lives)} processes of {record.app} lived.",
        "Times are seconds since the beginning.",
        "",
        f"The same faults again: `{again}`",
        "",
    ]
    if violations:
        lines += ["## What broke", ""]
        for violation in violations:
            lines.append(
                f"- **invariant {violation.invariant}** at {violation.at - record.begin:.2f}: {violation.text}"
            )
            lines += [f"  - {line}" for line in violation.evidence]
        lines.append("")
    lines += [
        "## What happened",
        "",
        *(f"    {at - record.begin:9.2f}  {text}" for at, text in sorted(_timeline(record))),
    ]
    return "\n".join(lines) + "\n"


def _timeline(record: Record) -> Iterator[tuple[float, str]]:
    for fault in record.faults:
        about = f"{fault.kind} {fault.machine} {fault.detail}".rstrip()
        yield fault.begin, f"fault       {about}"
        if fault.end - fault.begin > 0.5 and fault.end != float("inf"):
            yield fault.end, f"fault ends  {about}"
    for operation in record.operations:
        yield operation.begin, f"operator    fleetctl {' '.join(operation.argv)}"
        if operation.code is not None:
            words = operation.output.strip().splitlines()[-_OUTPUT_LINES:]
            yield operation.end, f"answer      {operation.code} to {operation.argv[0]}: {' / '.join(words)}"
    for sight in record.sights:
        yield (
            sight.at,
            f"settled     in {sight.seconds:.1f} s" if not sight.difference else f"NOT SETTLED {sight.difference}",
        )
    for life in record.lives:
        name = f"{life.place.app}/{life.place.host}/{life.place.slot}@{life.place.generation} pid {life.pid}"
        yield life.started, f"worker      {name} starts"
        if life.last_beat < record.end - 1:
            yield life.last_beat, f"worker      {name} ends"
    for failure in record.failures:
        yield (
            failure.at,
            (
                f"request     {failure.method} to {failure.target}, sent at {failure.began - record.begin:.2f}: "
                f"{failure.kind}, {failure.detail}"
            ),
        )
