"""What every case is: metrics, targets, and one measurement of one subject."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.bench.host.subject import Subject
from tests.bench.host.targets import Target


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    idle_seconds: float = 30.0
    idle_sizes: Sequence[int] = (8, 64, 200)
    size: int = 64
    lines: int = 200_000
    pressure_seconds: float = 3.0
    steady_seconds: float = 5.0


class AnyCase(ABC):
    name: ClassVar[str]
    title: ClassVar[str]
    """A line for the reader of the table: what is measured, and from when to when."""
    subjects: ClassVar[Sequence[type[Subject]]]

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @property
    @abstractmethod
    def targets(self) -> Sequence[Target]: ...


class Case(AnyCase):
    """`measure` is given a subject that has just started, and may leave anything running: the subject is closed after it."""

    @abstractmethod
    def measure(self, subject: Subject, folder: Path) -> dict[str, list[float]]:
        """Metric, with its unit in its name → samples. `folder` is empty and the subject's alone. Raises NotAvailableError,
        BenchError."""


class CaseTogether(AnyCase):
    """What can be measured of all subjects at the same time, as none takes anything from another."""

    @abstractmethod
    def measure(self, subjects: Mapping[str, Subject], repetitions: int) -> dict[str, dict[str, list[float]]]:
        """Subject → metric → samples, `repetitions` of each. The subjects have just started, and are closed afterwards. Raises
        BenchError."""
