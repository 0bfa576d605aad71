"""circusd, with its defaults: https://circus.readthedocs.io/en/latest/configuration/"""

from pathlib import Path

from tests.bench.host.app import LOG_FILES, LOG_MAX_BYTES, App, Serving
from tests.bench.host.install import Tools
from tests.bench.host.processes import sample_until
from tests.bench.host.subject import Subject, Work, free_ports


class Circus(Subject):
    """Workers that share an address get circusd's own socket."""

    name = "circus"

    def __init__(self, folder: Path, tools: Tools) -> None:
        super().__init__(folder, tools)
        self._config = folder / "circus.ini"
        self._pid_file = folder / "circusd.pid"
        self._port = free_ports(1)
        self._ctl = (tools.bin / "circusctl", "--endpoint", f"ipc://{folder}/control", "--timeout", "60")

    def start(self) -> None:
        """circusd refuses a configuration without watchers only later, so it is started with one that has no process."""
        self._write("[watcher:none]\ncmd=/bin/true\nnumprocesses=0\nautostart=False\n")
        self.do(self.tools.bin / "circusd", "--daemon", "--pidfile", self._pid_file, self._config)
        self.wait_for_file(self._pid_file)
        sample_until((self.folder / "control").exists, "circusd answers", 10.0, 0.01)

    def stop(self) -> None:
        if self._pid_file.exists():
            pid = self.daemons()["daemon"]
            self.do(*self._ctl, "quit", "--waiting")
            sample_until(lambda: not Path(f"/proc/{pid}").exists(), "circusd ended", 30.0, 0.01)

    def run(self, app: App, size: int) -> None:
        shared = app.serving in (Serving.SHARED, Serving.INHERITED)
        variables = "\n".join(f"{name} = {value}" for name, value in app.env.items())
        time_format = "time_format = %Y-%m-%dT%H:%M:%S" if app.timestamps else ""
        sockets = (
            f"[socket:web]\nhost = 127.0.0.1\nport = {self._port}\nbacklog = 511\nblocking = False\n" if shared else ""
        )
        self._write(f"""
[watcher:{app.name}]
cmd = {app.argv[0]}
args = {" ".join(app.argv[1:])}{" $(circus.sockets.web)" if shared else ""}
numprocesses = {size}
use_sockets = {shared}
copy_env = True
stdout_stream.class = FileStream
stdout_stream.filename = {self.logs}/{app.name}.log
stdout_stream.max_bytes = {LOG_MAX_BYTES}
stdout_stream.backup_count = {LOG_FILES}
stderr_stream.class = FileStream
stderr_stream.filename = {self.logs}/errors-{app.name}.log
{time_format and "stdout_stream." + time_format}
[env:{app.name}]
{variables}
{sockets}""")
        self.do(*self._ctl, "reloadconfig", "--waiting")

    def grow(self, app: App, present: int, size: int) -> Work:
        return self.begin(*self._ctl, "incr", app.name, str(size - present))

    def reload(self, app: App, size: int) -> Work:
        return self.begin(*self._ctl, "reload", app.name)

    def daemons(self) -> dict[str, int]:
        return {"daemon": int(self._pid_file.read_text())}

    def cli(self) -> list[str | Path]:
        return [*self._ctl, "numwatchers"]

    def addresses(self, app: App) -> list[str]:
        return [f"127.0.0.1:{self._port}"]

    def _write(self, rest: str) -> None:
        self._config.write_text(f"""
[circus]
endpoint = ipc://{self.folder}/control
pubsub_endpoint = ipc://{self.folder}/events
{rest}""")
