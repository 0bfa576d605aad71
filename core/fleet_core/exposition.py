"""Prometheus' text format, version 0.0.4 (its manual, "Exposition formats"): what our daemons need of it.

Prometheus' own library weighs 7 MiB in an agent that has no other use for Python's TLS and HTTP.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Metric:
    """One family: what it is called, what it says, and its samples by the values of its labels."""

    kind: Literal["gauge", "counter"]
    name: str
    text: str
    labels: tuple[str, ...] = ()
    samples: list[tuple[tuple[str, ...], float]] = field(default_factory=list)

    def add(self, value: float, *labels: str) -> None:
        self.samples.append((labels, float(value)))


def gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric("gauge", name, text, labels)


def single(name: str, text: str, value: float) -> Metric:
    """A gauge without labels."""
    return Metric("gauge", name, text, (), [((), float(value))])


def counter(name: str, text: str, *labels: str) -> Metric:
    return Metric("counter", f"{name}_total", text, labels)


def exposition(metrics: Iterable[Metric]) -> bytes:
    lines: list[str] = []
    # Families of the same things repeat their labels.
    known: dict[tuple[tuple[str, ...], tuple[str, ...]], str] = {}
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {_escaped(metric.text)}\n# TYPE {metric.name} {metric.kind}\n")
        for values, value in metric.samples:
            labels = known.get((metric.labels, values))
            if labels is None:
                labels = known[metric.labels, values] = _labels(metric.labels, values)
            lines.append(f"{metric.name}{labels} {value!r}\n")
    return "".join(lines).encode()


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    """Between the name and the value; "" of no labels."""
    pairs = sorted(zip(names, values, strict=True))
    text = ",".join(f'{name}="{_quoted(value)}"' for name, value in pairs)
    return f"{{{text}}}" if text else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
