"""The floors: what the machine and Python allow, without any supervision worth the name."""

import json
import shutil
import sys
from pathlib import Path

from tests.bench.host.app import APPS, App, Serving
from tests.bench.host.install import Tools
from tests.bench.host.subject import NotAvailableError, Subject, Work, free_ports
from tests.bench.host.subjects.conversation import Conversation

_PROGRAM = Path(__file__).with_name("bare_parent.py")


class Floor(Subject):
    """A bare parent: a Popen loop, a wait on pidfds, a copier from pipe to file, one inherited socket."""

    name = "floor"
    _destination = "copy"

    def __init__(self, folder: Path, tools: Tools) -> None:
        super().__init__(folder, tools)
        self._parent: Conversation | None = None
        self._address = ""

    def start(self) -> None:
        self._parent = Conversation(
            [sys.executable, "-S", _PROGRAM], self.environment, self.folder, self.folder / "errors"
        )

    def stop(self) -> None:
        if self._parent is not None:
            self._parent.close()
            self._parent = None

    def run(self, app: App, size: int) -> None:
        if app.timestamps:
            raise NotAvailableError("a copier writes what it reads")
        self._address = json.loads(self._start(app, size).finish()).get("address", "")

    def grow(self, app: App, present: int, size: int) -> Work:
        return self._start(app, size - present)

    def daemons(self) -> dict[str, int]:
        assert self._parent is not None
        return {"parent": self._parent.pid}

    def addresses(self, app: App) -> list[str]:
        return [self._address]

    def _start(self, app: App, count: int) -> Work:
        assert self._parent is not None
        return self._parent.ask(
            argv=app.argv,
            env={**self.environment, **app.env},
            count=count,
            listen=app.serving in (Serving.SHARED, Serving.INHERITED),
            **({self._destination: str(self.logs / f"{app.name}.log")} if app.name == "writer" else {}),
        )


class PlainFile(Floor):
    """The worker's standard output is the file itself: nobody between."""

    name = "plain file"
    _destination = "file"


class NodeCluster(Subject):
    """node:cluster as Node's manual shows it; knows nothing but one address for its workers."""

    name = "node:cluster"

    def __init__(self, folder: Path, tools: Tools) -> None:
        super().__init__(folder, tools)
        self._parent: Conversation | None = None
        self._port = free_ports(1)

    def start(self) -> None:
        self._parent = Conversation(
            [sys.executable, "-S", _PROGRAM], self.environment, self.folder, self.folder / "errors"
        )

    def stop(self) -> None:
        if self._parent is not None:
            self._parent.close()
            self._parent = None

    def run(self, app: App, size: int) -> None:
        if app.serving is not Serving.INHERITED:
            raise NotAvailableError("a case of shared sockets only")
        assert self._parent is not None
        env = {**self.environment, **app.env, "BENCH_WORKERS": str(size), "PORT": str(self._port)}
        argv = (shutil.which("node") or "node", str(APPS / "cluster.js"))
        self._parent.ask(argv=argv, env=env, count=1).finish()

    def grow(self, app: App, present: int, size: int) -> Work:
        raise NotAvailableError("it is started with its size")

    def daemons(self) -> dict[str, int]:
        assert self._parent is not None
        return {"parent": self._parent.pid}

    def addresses(self, app: App) -> list[str]:
        return [f"127.0.0.1:{self._port}"]
