"""One run: every case in turn, its subjects alternating, repetition after repetition; two subjects at a time only where that
disturbs neither."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench.host.case import AnyCase, Case, CaseTogether
from tests.bench.host.install import Tools
from tests.bench.host.processes import BenchError
from tests.bench.host.report import Outcome
from tests.bench.host.subject import NotAvailableError, Subject

Progress = Callable[[str], None]


class Runner:
    """`subjects` are names; empty: all. A subject that is not available for a case is not asked again."""

    def __init__(self, tools: Tools, subjects: Sequence[str], progress: Progress) -> None:
        self._tools = tools
        self._wanted = set(subjects)
        self._progress = progress

    def run(self, case: AnyCase, repetitions: int) -> Outcome:
        outcome = Outcome(case.name, case.title, case.targets)
        chosen = [kind for kind in case.subjects if not self._wanted or kind.name in self._wanted]
        if isinstance(case, CaseTogether):
            self._measure_together(case, chosen, repetitions, outcome)
        elif isinstance(case, Case):
            self._measure_in_turn(case, chosen, repetitions, outcome)
        return outcome

    def _measure_in_turn(self, case: Case, chosen: list[type[Subject]], repetitions: int, outcome: Outcome) -> None:
        for repetition in range(1, repetitions + 1):
            # Another order each time, so that no subject always follows the same one.
            shift = repetition % len(chosen) if chosen else 0
            for kind in chosen[shift:] + chosen[:shift]:
                if kind.name not in outcome.unavailable:
                    self._measure(case, kind, f"{repetition}/{repetitions}", outcome)

    def _measure_together(
        self, case: CaseTogether, chosen: Sequence[type[Subject]], repetitions: int, outcome: Outcome
    ) -> None:
        began = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="bench-"))
        try:
            with ExitStack() as owned:
                subjects = {kind.name: owned.enter_context(kind(folder / kind.name, self._tools)) for kind in chosen}
                measured = case.measure(subjects, repetitions)
        except (NotAvailableError, BenchError, AssertionError, OSError, subprocess.SubprocessError) as error:
            outcome.failures.append(str(error))
            self._progress(f"{case.name}: failed: {error}")
        else:
            for name, samples in measured.items():
                outcome.add(name, samples)
            self._progress(f"{case.name} ({time.monotonic() - began:.1f} s)")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _measure(self, case: Case, kind: type[Subject], repetition: str, outcome: Outcome) -> None:
        began = time.monotonic()
        label = f"{case.name} {repetition} {kind.name}"
        folder = Path(tempfile.mkdtemp(prefix="bench-"))
        try:
            (folder / "case").mkdir()
            with kind(folder / "subject", self._tools) as subject:
                measured = case.measure(subject, folder / "case")
        except NotAvailableError as error:
            outcome.unavailable[kind.name] = str(error)
            self._progress(f"{label}: not available: {error}")
        except (BenchError, AssertionError, OSError, subprocess.SubprocessError) as error:
            outcome.failures.append(f"{kind.name}, repetition {repetition}: {error}")
            self._progress(f"{label}: failed: {error}")
        else:
            outcome.add(kind.name, measured)
            figures = ", ".join(f"{metric} {values[0]:.4g}" for metric, values in measured.items())
            self._progress(f"{label} ({time.monotonic() - began:.1f} s): {figures}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
