"""PM2, with its defaults: https://pm2.keymetrics.io/docs/usage/application-declaration/"""

import json
from pathlib import Path

from tests.bench.host.app import App, Serving
from tests.bench.host.install import Tools
from tests.bench.host.subject import NotAvailableError, Subject, Work, free_ports


class Pm2(Subject):
    """Workers in fork mode; in cluster mode where they share an address. It rotates no logs without a module."""

    name = "pm2"

    def __init__(self, folder: Path, tools: Tools) -> None:
        super().__init__(folder, tools)
        self._home = folder / "pm2"
        self._port = free_ports(1)
        self.environment |= {
            "PM2_HOME": str(self._home),
            "PM2_DISABLE_VERSION_CHECK": "true",
            "PM2_DISCRETE_MODE": "true",
        }

    def start(self) -> None:
        self.do(self.tools.pm2, "ping")

    def stop(self) -> None:
        if self._home.exists():
            self.do(self.tools.pm2, "kill")

    def run(self, app: App, size: int) -> None:
        if app.serving is Serving.INHERITED and not app.node:
            raise NotAvailableError("PM2 shares sockets between Node workers only")
        shared = app.serving in (Serving.SHARED, Serving.INHERITED)
        declaration = {
            "name": app.name,
            "script": app.argv[1] if app.node else app.argv[0],
            "args": list(app.argv[2 if app.node else 1 :]),
            **({} if app.node else {"interpreter": "none"}),
            "exec_mode": "cluster" if shared else "fork",
            "instances": size,
            "env": {**app.env, **({"PORT": str(self._port)} if shared else {})},
            "out_file": str(self.logs / f"{app.name}.log"),
            "error_file": str(self.logs / f"errors-{app.name}.log"),
            "merge_logs": True,
            **({"log_date_format": "YYYY-MM-DDTHH:mm:ss.SSSZ"} if app.timestamps else {}),
        }
        ecosystem = self.folder / "ecosystem.json"
        ecosystem.write_text(json.dumps({"apps": [declaration]}))
        self.do(self.tools.pm2, "start", ecosystem)

    def grow(self, app: App, present: int, size: int) -> Work:
        return self.begin(self.tools.pm2, "scale", app.name, str(size))

    def reload(self, app: App, size: int) -> Work:
        return self.begin(self.tools.pm2, "reload", app.name)

    def daemons(self) -> dict[str, int]:
        return {"daemon": int((self._home / "pm2.pid").read_text())}

    def cli(self) -> list[str | Path]:
        return [self.tools.pm2, "ping"]

    def addresses(self, app: App) -> list[str]:
        return [f"127.0.0.1:{self._port}"]
