"""fleet-supervisor alone, through its socket, with no agent, controller or command line above it."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.bench.host.app import LOG_FILES, LOG_MAX_BYTES, App, Serving
from tests.bench.host.install import Tools
from tests.bench.host.subject import Command, NotAvailableError, Subject, Work
from tests.bench.host.subjects.conversation import Conversation

_MEMORY = Path("/dev/shm")
"""A tmpfs, as /run is where systemd runs: the manual's place for a runtime folder."""


class SupervisorAlone(Subject):
    name = "supervisor"

    def __init__(self, folder: Path, tools: Tools) -> None:
        super().__init__(folder, tools)
        self._run_dir = Path(tempfile.mkdtemp(prefix="bench-run-", dir=_MEMORY if _MEMORY.is_dir() else folder))
        self._daemon: Command | None = None
        self._client: Conversation | None = None
        self._pid = 0

    def start(self) -> None:
        program = self.tools.own / "fleet-supervisor"
        self._daemon = self.begin(program, "run", "--runtime-dir", self._run_dir, "--log-dir", self.logs)
        self.wait_for_file(self._run_dir / "supervisor.sock")
        self._client = Conversation(
            [sys.executable, Path(__file__).with_name("supervisor_driver.py"), self._run_dir / "supervisor.sock"],
            self.environment,
            self.folder,
            self.folder / "errors",
        )
        self._pid = json.loads(self._client.ask(hello=True).finish())["pid"]

    def stop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._daemon is not None and self._daemon.running:
            self.do(self.tools.own / "fleet-supervisor", "stop", "--runtime-dir", self._run_dir, "--grace-seconds", "5")
            self._daemon.terminate()
            self._daemon.finish()
        shutil.rmtree(self._run_dir, ignore_errors=True)

    def run(self, app: App, size: int) -> None:
        answer = json.loads(self._ask(app, 1, size).finish())
        if "unavailable" in answer:
            raise NotAvailableError(answer["unavailable"])

    def grow(self, app: App, present: int, size: int) -> Work:
        return self._ask(app, present + 1, size)

    def daemons(self) -> dict[str, int]:
        return {"supervisor": self._pid}

    def log_files(self, app: App) -> list[Path]:
        return sorted((self.logs / app.name).glob("*.out.log*"))

    def _ask(self, app: App, first: int, last: int) -> Work:
        if app.serving in (Serving.SHARED, Serving.INHERITED):
            raise NotAvailableError("addresses are the agent's business")
        assert self._client is not None
        launch = {
            "argv": list(app.argv),
            "cwd": str(self.folder),
            "env": {"PATH": os.environ["PATH"], **app.env},
            "log_max_bytes": LOG_MAX_BYTES,
            "log_files": LOG_FILES,
        }
        if app.timestamps:
            launch["log_timestamps"] = True
        return self._client.ask(app=app.name, first=first, last=last, launch=launch)
