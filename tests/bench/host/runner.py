"""One run: every case in turn, its subjects alternating, repetition after repetition; never two subjects at a time."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.host.case import Case
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

    def run(self, case: Case, repetitions: int) -> Outcome:
        outcome = Outcome(case.name, case.title, case.targets)
        chosen = [kind for kind in case.subjects if not self._wanted or kind.name in self._wanted]
        for repetition in range(1, repetitions + 1):
            # Another order each time, so that no subject always follows the same one.
            shift = repetition % len(chosen) if chosen else 0
            for kind in chosen[shift:] + chosen[:shift]:
                if kind.name not in outcome.unavailable:
                    self._measure(case, kind, f"{repetition}/{repetitions}", outcome)
        return outcome

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
