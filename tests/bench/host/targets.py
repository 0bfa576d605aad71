"""What issue and reader expect of the figures. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Samples = Mapping[str, Mapping[str, Sequence[float]]]
"""Metric → subject → samples."""


@dataclass(frozen=True, slots=True)
class Target:
    """`metric` of `subject` is at most (or at least) `bound`, times the median of `of` where one is named."""

    metric: str
    subject: str
    bound: float
    of: str = ""
    """A subject; "" makes `bound` absolute."""
    of_metric: str = ""
    """"" : the same metric."""
    at_least: bool = False
    strict: bool = False

    @property
    def text(self) -> str:
        sign = (">" if self.strict else "≥") if self.at_least else ("<" if self.strict else "≤")
        if not self.of:
            return f"{sign} {self.bound:g}"
        other = f"{self.of} ({self.of_metric})" if self.of_metric else self.of
        return f"{sign} {other}" if self.bound == 1 else f"{sign} {self.bound:g} · {other}"

    def met(self, samples: Samples) -> bool | None:
        """None where one side was not measured."""
        value = middle(samples, self.metric, self.subject)
        reference = middle(samples, self.of_metric or self.metric, self.of) if self.of else 1.0
        if value is None or reference is None:
            return None
        bound = self.bound * reference
        if self.at_least:
            return value > bound if self.strict else value >= bound
        return value < bound if self.strict else value <= bound


def middle(samples: Samples, metric: str, subject: str) -> float | None:
    values = samples.get(metric, {}).get(subject, ())
    return median(values) if values else None
