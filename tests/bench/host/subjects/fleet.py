"""fleetctl: one host of `fleetctl up`, driven by its command line."""

import os
import signal
import urllib.request
from pathlib import Path

from tests.bench.host.app import LOG_FILES, LOG_MAX_BYTES, App, Serving
from tests.bench.host.install import Tools
from tests.bench.host.processes import sample_until
from tests.bench.host.subject import NotAvailableError, Subject, Work, free_ports
from tests.integration.fleet.harness import Fleet

_USAGE = 2
_START_SECONDS = "60"
_METRICS_SECONDS = 30.0
_LISTEN = {Serving.NOTHING: "none", Serving.ALONE: "port", Serving.SHARED: "port", Serving.INHERITED: "socket"}


class Fleetctl(Subject):
    """The whole system of one host. Its clients go through its balancer, except to an inherited socket, which is asked itself."""

    name = "fleetctl"

    def __init__(self, folder: Path, tools: Tools) -> None:
        super().__init__(folder, tools)
        self._fleet = Fleet(folder / "fleet", hosts=1)
        self._route = ""
        self.environment = dict(self._fleet.environment)

    def start(self) -> None:
        self._fleet.start()
        self._route = f"127.0.0.1:{free_ports(1)}"  # not before: the fleet takes what is free, too

    def stop(self) -> None:
        self._fleet.close()

    def run(self, app: App, size: int) -> None:
        options = ["--timeout", _START_SECONDS, "-n", app.name, "-i", str(size), "--listen", _LISTEN[app.serving]]
        options += [word for name, value in app.env.items() for word in ("-e", f"{name}={value}")]
        if app.serving is Serving.SHARED:
            options += ["--http", self._route]
        if app.timestamps:
            options += ["--log-timestamps"]
        if app.name == "writer":
            options += ["--log-max-size", str(LOG_MAX_BYTES), "--log-files", str(LOG_FILES)]
        program, *arguments = app.argv[1:] if app.node else app.argv
        started = self._fleet.run("start", program, *options, *(("--", *arguments) if arguments else ()))
        if started.code == _USAGE:
            raise NotAvailableError(started.errors.strip().splitlines()[-1])
        if started.code and app.serving is Serving.INHERITED:
            raise NotAvailableError(f"socket mode: {started.errors.strip()}")
        assert started.code == 0, started.errors

    def grow(self, app: App, present: int, size: int) -> Work:
        return self.begin(self.tools.own / "fleetctl", "set-size", app.name, str(size), "--yes")

    def reload(self, app: App, size: int) -> Work:
        return self.begin(self.tools.own / "fleetctl", "soft-restart", app.name)

    def daemons(self) -> dict[str, int]:
        return {role: self._fleet.daemon(role)[1] for role in ("supervisor", "agent")}

    def expose_metrics(self) -> str:
        """The agent's, by its configuration file, as an administrator does it: `up` starts the agent again."""
        address = f"127.0.0.1:{free_ports(1)}"
        config = self._fleet.data_dir / "hosts" / "host1" / "agent.toml"
        config.write_text(config.read_text().replace('metrics = ""', f'metrics = "{address}"'))
        os.kill(self._fleet.daemon("agent")[1], signal.SIGTERM)
        sample_until(lambda: _answers(address), f"metrics at {address}", _METRICS_SECONDS, 0.1)
        return address

    def cli(self) -> list[str | Path]:
        return [self.tools.own / "fleetctl", "ls"]

    def addresses(self, app: App) -> list[str]:
        if app.serving is Serving.SHARED:
            return [self._route]
        workers = self._fleet.workers(app.name)
        return sorted({f"{worker.get('address') or '127.0.0.1'}:{worker['port']}" for worker in workers})

    def log_files(self, app: App) -> list[Path]:
        return sorted((self._fleet.data_dir / "hosts" / "host1" / "log" / app.name).glob("*.out.log*"))


def _answers(address: str) -> bool:
    """With the supervisor's word and a session, so that nothing of the agent's start is left to do."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return False
    return "fleet_agent_session_up 1" in text and "fleet_agent_supervisor_up 1" in text
