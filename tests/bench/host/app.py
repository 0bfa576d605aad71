"""What a subject is asked to run. The same for all of them."""

import shutil
import sys
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

APPS = Path(__file__).parent / "apps"
LOG_MAX_BYTES = 10 * 1024 * 1024
LOG_FILES = 5


class Serving(StrEnum):
    NOTHING = "nothing"
    ALONE = "alone"
    """Each worker on a port of its own: PORT where the subject sets it, else one the kernel chooses."""
    SHARED = "shared"
    """All workers behind one address, by whatever way the subject's own manual gives."""
    INHERITED = "inherited"
    """All workers accept from one socket which they did not open themselves."""


@dataclass(frozen=True, slots=True)
class App:
    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    serving: Serving = Serving.NOTHING
    timestamps: bool = False
    """Put the time before each logged line."""
    rotated: bool = True

    @property
    def node(self) -> bool:
        return Path(self.argv[0]).name == "node"

    def with_env(self, **variables: str) -> "App":
        return replace(self, env={**self.env, **variables})


def sleeper(token: str) -> App:
    """A worker that does nothing; `token`, digits, makes its command line unlike any other's."""
    return App("sleeper", (_program("sleep"), f"100000.{token}"))


def server(announcements: Path, serving: Serving, *, delay_ms: int = 0, busy_us: int = 0) -> App:
    """An unmodified HTTP server without signal handlers; each writes a file named by its pid once it accepts."""
    env = {
        "BENCH_ANNOUNCE": str(announcements),
        "BENCH_DELAY_MS": str(delay_ms),
        "BENCH_BUSY_US": str(busy_us),
    }
    return App("server", (_program("node"), str(APPS / "server.js")), env, serving)


def writer(go: Path, done: Path, lines: int) -> App:
    """Waits at the FIFO `go`, writes `lines` lines, one write each, and then how long that took into `done`."""
    env = {"BENCH_GO": str(go), "BENCH_DONE": str(done), "BENCH_LINES": str(lines)}
    return App("writer", (sys.executable, "-S", "-u", str(APPS / "writer.py")), env)


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name} is not on PATH, and the benchmark's workers need it")
    return path
