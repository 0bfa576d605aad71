"""From samples to tables and JSON. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from tests.bench.host.targets import Target, middle

_FLOOR = "floor"
_PEERS = ("pm2", "supervisord", "circus", "node:cluster")


@dataclass(slots=True)
class Outcome:
    """All that one case brought."""

    name: str
    title: str
    targets: Sequence[Target]
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Metric → subject → samples, in the order they were measured."""
    unavailable: dict[str, str] = field(default_factory=dict)
    """Subject → why it was not measured."""
    failures: list[str] = field(default_factory=list)
    """Measurements that could not be made, in words."""

    def add(self, subject: str, measured: Mapping[str, Sequence[float]]) -> None:
        for metric, values in measured.items():
            self.samples.setdefault(metric, {}).setdefault(subject, []).extend(values)

    @property
    def verdicts(self) -> list[tuple[Target, bool | None]]:
        return [(target, target.met(self.samples)) for target in self.targets]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, quartiles and maximum; the quartiles of one value are that value."""
    lower, _, upper = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return {
        "median": median(values),
        "min": min(values),
        "q1": lower,
        "q3": upper,
        "max": max(values),
        "samples": len(values),
    }


def ratios(outcome: Outcome, metric: str, subject: str) -> dict[str, float]:
    """The subject's median divided by the floor's and by each peer's, where both were measured and are not 0."""
    own = middle(outcome.samples, metric, subject)
    found: dict[str, float] = {}
    for other in (_FLOOR, *_PEERS):
        reference = middle(outcome.samples, metric, other)
        if own and reference and other != subject:
            found[other] = own / reference
    return found


def table(outcome: Outcome) -> str:
    """The case for a reader: Markdown, columns aligned."""
    lines = [f"## {outcome.name}", "", outcome.title, ""]
    others = [name for name in (_FLOOR, *_PEERS) if any(name in by_subject for by_subject in outcome.samples.values())]
    headings = ["metric", "subject", "median", "min", "q1", "q3", "max", "n"]
    rows = [[*headings, *(f"÷ {name}" for name in others), "target", ""]]
    for metric, by_subject in outcome.samples.items():
        for subject, values in by_subject.items():
            figures = spread(values)
            against = ratios(outcome, metric, subject)
            cells = [metric, subject, *(_figure(figures[name]) for name in ("median", "min", "q1", "q3", "max"))]
            cells += [str(len(values)), *(f"{against[name]:.2f}" if name in against else "" for name in others)]
            verdicts = [
                (target.text, met)
                for target, met in outcome.verdicts
                if (target.metric, target.subject) == (metric, subject)
            ]
            cells.append("; ".join(text for text, _ in verdicts))
            cells.append("; ".join(verdict(met) for _, met in verdicts))
            rows.append(cells)
    lines += _aligned(rows)
    lines += [f"\n{subject}: not available: {reason}" for subject, reason in outcome.unavailable.items()]
    lines += [f"\nnot measured: {failure}" for failure in outcome.failures]
    return "\n".join(lines) + "\n"


def document(outcomes: Sequence[Outcome], circumstances: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a program, with every sample."""
    return {
        **circumstances,
        "cases": {
            outcome.name: {
                "title": outcome.title,
                "metrics": {
                    metric: {
                        subject: {**spread(values), "ratios": ratios(outcome, metric, subject), "values": list(values)}
                        for subject, values in by_subject.items()
                    }
                    for metric, by_subject in outcome.samples.items()
                },
                "targets": [
                    {"metric": target.metric, "subject": target.subject, "target": target.text, "verdict": verdict(met)}
                    for target, met in outcome.verdicts
                ],
                "unavailable": outcome.unavailable,
                "failures": outcome.failures,
            }
            for outcome in outcomes
        },
    }


def verdict(met: bool | None) -> str:
    return "not measured" if met is None else "met" if met else "not met"


def _figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines
