"""supervisord, with its defaults: http://supervisord.org/configuration.html"""

import os
from pathlib import Path

from tests.bench.host.app import LOG_FILES, LOG_MAX_BYTES, App, Serving
from tests.bench.host.install import Tools
from tests.bench.host.processes import sample_until
from tests.bench.host.subject import NotAvailableError, Subject, Work, free_ports

_MOST_PORTS = 16


class Supervisord(Subject):
    """Shares no socket between workers: where an app asks for one address, it gets one each."""

    name = "supervisord"

    def __init__(self, folder: Path, tools: Tools) -> None:
        super().__init__(folder, tools)
        self._config = folder / "supervisord.conf"
        self._pid_file = folder / "supervisord.pid"
        self._port = free_ports(_MOST_PORTS)
        self._ctl = (tools.bin / "supervisorctl", "-c", self._config)
        self._size = 0
        self._programs = ""

    def start(self) -> None:
        self._write("")
        self.do(self.tools.bin / "supervisord", "-c", self._config)
        self.wait_for_file(self._pid_file)
        sample_until((self.folder / "ctl.sock").exists, "supervisord answers", 10.0, 0.01)

    def stop(self) -> None:
        if self._pid_file.exists():
            pid = self.daemons()["daemon"]
            self.do(*self._ctl, "shutdown")
            sample_until(lambda: not Path(f"/proc/{pid}").exists(), "supervisord ended", 30.0, 0.01)

    def run(self, app: App, size: int) -> None:
        if app.timestamps:
            raise NotAvailableError("supervisord writes lines as they come")
        if app.serving is Serving.INHERITED:
            raise NotAvailableError("supervisord shares sockets only with FastCGI programs")
        self._size = size
        self._programs = self._program(app, "", size)
        self._write(self._programs)
        self.do(*self._ctl, "update")

    def grow(self, app: App, present: int, size: int) -> Work:
        """One more group: a changed `numprocs` would stop the workers that are there."""
        self._programs += self._program(app, f"-{size}", size - present)
        self._write(self._programs)
        return self.begin(*self._ctl, "update")

    def reload(self, app: App, size: int) -> Work:
        """One by one, each up again before the next: supervisord has no reload."""
        first = self._port if app.serving is Serving.SHARED else 0
        names = [f"{app.name}:{app.name}_{first + number:03d}" for number in range(size)]
        control = " ".join(str(word) for word in self._ctl)
        return self.begin("/bin/sh", "-ec", "; ".join(f"{control} restart {name}" for name in names))

    def daemons(self) -> dict[str, int]:
        return {"daemon": int(self._pid_file.read_text())}

    def cli(self) -> list[str | Path]:
        return [*self._ctl, "pid"]

    def addresses(self, app: App) -> list[str]:
        return [f"127.0.0.1:{self._port + number}" for number in range(self._size)]

    def _program(self, app: App, suffix: str, count: int) -> str:
        env = {**app.env, **({"PORT": "%(process_num)d"} if app.serving is Serving.SHARED else {})}
        variables = ",".join(f'{name}="{value}"' for name, value in env.items())
        return f"""
[program:{app.name}{suffix}]
command={" ".join(app.argv)}
process_name=%(program_name)s_%(process_num)03d
numprocs={count}
numprocs_start={self._port if app.serving is Serving.SHARED else 0}
environment={variables}
stdout_logfile={self.logs}/%(program_name)s_%(process_num)03d.log
stderr_logfile={self.logs}/errors-%(program_name)s_%(process_num)03d.log
stdout_logfile_maxbytes={LOG_MAX_BYTES}
stdout_logfile_backups={LOG_FILES}
"""

    def _write(self, programs: str) -> None:
        self._config.write_text(f"""
[supervisord]
pidfile={self._pid_file}
logfile={self.folder}/supervisord.log
childlogdir={self.logs}
identifier=bench-{os.getpid()}
[unix_http_server]
file={self.folder}/ctl.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{self.folder}/ctl.sock
{programs}""")
