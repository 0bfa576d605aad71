"""A fleet on an etcd cluster of three, every daemon a process of its own: for what `fleetctl up` cannot show."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from fleet_core.authority import issue
from fleet_core.contexts import Context, save_context
from fleet_core.tls import Identity, Role
from fleet_core.toml import render
from tests.integration.etcd_cluster import EtcdCluster, EtcdMember
from tests.integration.fleet.harness import JOURNAL, MOODY_SERVER, Result, wait_for
from tests.ports import free_address, free_ports

_BIN = Path(sys.executable).parent
_COMMAND_SECONDS = 120.0
_END_SECONDS = 10.0
PORTS_EACH = 40


class ClusterFleet:
    """`controllers` of them, `hosts`, and one balancer. `close` ends all of it, and its workers."""

    def __init__(
        self, folder: Path, *, hosts: int = 2, controllers: int = 1, members: int = 3, etcd_options: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.journals = folder / "journals"
        self.cluster = EtcdCluster(folder, members, options=etcd_options)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}
        self.controllers = [f"127.0.0.1:{port}" for port in free_ports(controllers)]
        self._next_port = random.randrange(20_000, 30_000)
        self._hosts = [f"host{number}" for number in range(1, hosts + 1)]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("FLEET_", "PYTEST_"))},
            "FLEET_CONFIG": str(folder / "context.toml"),
            "PATH": f"{_BIN}:{os.environ['PATH']}",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Daemons

    def start(self) -> None:
        """Returns when every host is online and the balancer connected."""
        self.journals.mkdir()
        asyncio.run(self.cluster.start())
        self._write_context()
        for number, address in enumerate(self.controllers, 1):
            self._prepare("controller", f"c{number}", Role.CONTROLLER, listen=address, etcd=self.cluster.endpoints)
        for name in self._hosts:
            self.add_host(name)
        self._prepare(
            "balancer",
            "balancer1",
            Role.BALANCER,
            controllers=self.controllers,
            runtime_dir=str(self.folder / "balancer1-run"),
            listen_address="127.0.0.1",
        )
        for name in self._commands:
            self.start_daemon(name)
        wait_for(self.whole, "every host online and the balancer connected", 60)

    def add_host(self, folder: str, name: str = "") -> tuple[str, str]:
        """A host in `folder`, called so too unless it has a `name`; returns its daemons, which are not started yet."""
        run, log = self.folder / folder / "run", self.folder / folder / "log"
        supervisor = f"{folder}-supervisor"
        self._commands[supervisor] = [
            *(str(_BIN / "fleet-supervisor"), "run", "--runtime-dir", str(run), "--log-dir", str(log))
        ]
        begin = self._next_port
        self._next_port += PORTS_EACH
        self._prepare(
            "agent",
            folder,
            Role.AGENT,
            name=name or folder,
            controllers=self.controllers,
            address="127.0.0.1",
            ports={"first": begin, "last": begin + PORTS_EACH - 1},
            runtime_dir=str(run),
            log_dir=str(log),
        )
        return supervisor, folder

    def start_daemon(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self._commands[name],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end_daemon(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        process = self._processes.pop(name)
        process.send_signal(number)
        process.wait(_END_SECONDS)

    def signal(self, name: str, number: signal.Signals) -> None:
        self._processes[name].send_signal(number)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def state_dir(self, name: str) -> Path:
        return self.folder / name / "state"

    def close(self) -> None:
        try:
            for name in [name for name in self._processes if not name.endswith("supervisor")]:
                self.end_daemon(name, signal.SIGKILL)
            balancer = self.folder / "balancer1.toml"
            if balancer.exists():
                self._end("fleet-balancer", "stop", "--config", str(balancer), "--grace", "0")
            for name in [*self._processes]:
                run = str(self.folder / name.removesuffix("-supervisor") / "run")
                self._end("fleet-supervisor", "stop", "--runtime-dir", run, "--grace-seconds", "0")
                self.end_daemon(name, signal.SIGKILL)
        finally:
            self.cluster.kill()

    def _end(self, program: str, *arguments: str) -> None:
        subprocess.run([_BIN / program, *arguments], env=self.environment, check=False, timeout=30, capture_output=True)

    def _prepare(self, program: str, folder: str, role: Role, *, name: str = "", **fields: Any) -> None:
        name = name or folder
        files = issue(self.cluster.authority, Identity(role, name), ["127.0.0.1"])
        state = self.state_dir(folder)
        for path in (state, *(Path(fields[key]) for key in ("runtime_dir", "log_dir") if key in fields)):
            path.mkdir(parents=True, exist_ok=True)
        tls = {"authority": str(files.authority), "certificate": str(files.certificate), "key": str(files.key)}
        config = self.folder / f"{folder}.toml"
        config.write_text(render({"name": name, "state_dir": str(state), "tls": tls, **fields}))
        self._commands[folder] = [str(_BIN / f"fleet-{program}"), "run", "--config", str(config)]

    def _write_context(self) -> None:
        files = issue(self.cluster.authority, Identity(Role.OPERATOR, "ada"))
        before = os.environ.get("FLEET_CONFIG")
        os.environ["FLEET_CONFIG"] = self.environment["FLEET_CONFIG"]
        try:
            context = Context(tuple(self.controllers), files.authority, files.certificate, files.key)
            save_context("test", context, make_current=True)
        finally:
            if before is None:
                del os.environ["FLEET_CONFIG"]
            else:
                os.environ["FLEET_CONFIG"] = before

    # etcd

    def etcd_leader(self) -> EtcdMember:
        return asyncio.run(self.cluster.leader())

    def etcdctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """With the controller's certificate, at the first member."""
        tls = self.cluster.tls
        return subprocess.run(
            [
                *(_BIN / "etcdctl", f"--endpoints=https://{self.cluster.endpoints[0]}", f"--cacert={tls.authority}"),
                *(f"--cert={tls.certificate}", f"--key={tls.key}", *arguments),
            ],
            env={**self.environment, "ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def replace_member(self, number: int) -> None:
        """As docs/recovery.md says, by a member with the same addresses and an empty folder."""
        member = self.cluster.members[number]
        listed = json.loads(self.etcdctl("member", "list", "--write-out=json").stdout)["members"]
        found = next(one for one in listed if one["name"] == f"m{number}")
        for step in (
            ["member", "remove", f"{found['ID']:x}"],
            ["member", "add", found["name"], f"--peer-urls={found['peerURLs'][0]}"],
        ):
            done = self.etcdctl(*step)
            assert done.returncode == 0, done
        member.join_existing()
        member.start()

    def mend_full_etcd(self) -> None:
        """As docs/recovery.md says."""
        status = json.loads(self.etcdctl("endpoint", "status", "--write-out=json").stdout)
        revision = status[0]["Status"]["header"]["revision"]
        for step in (["compact", str(revision)], ["defrag"], ["alarm", "disarm"]):
            done = self.etcdctl(*step)
            assert done.returncode == 0, done

    # fleetctl

    def run(self, *arguments: str) -> Result:
        return self.run_program("fleetctl", *arguments)

    def run_program(self, program: str, *arguments: str) -> Result:
        done = subprocess.run(
            [_BIN / program, *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def do(self, *arguments: str) -> str:
        """Run a command that must succeed."""
        result = self.run(*arguments)
        assert result.code == 0, f"fleetctl {' '.join(arguments)}: exit {result.code}\n{result.output}{result.errors}"
        return result.output

    def ask(self, *arguments: str) -> Any:
        return json.loads(self.do(*arguments, "-o", "json"))

    def start_app(self, size: int, *options: str, name: str = "my-app") -> str:
        """As Fleet.start_app, of a server that takes its time."""
        address = free_address()
        journal = ("-e", f"NODE_OPTIONS=--require {JOURNAL}", "-e", f"WORKER_JOURNAL_DIR={self.journals}")
        self.do("start", str(MOODY_SERVER), "-n", name, "-i", str(size), "--http", address, *options, *journal)
        return address

    def pids(self, app: str = "my-app") -> set[int]:
        return {worker["pid"] for worker in self.ask("ps", app) if worker["ready"]}

    @staticmethod
    def living(pids: set[int]) -> set[int]:
        """Those of them that are processes still."""
        return {pid for pid in pids if Path(f"/proc/{pid}").exists()}

    def notices(self) -> list[str]:
        """Of the fleet as a whole."""
        answer = self.run("status", "-o", "json")
        return list(json.loads(answer.output)["notices"]) if answer.code == 0 else []

    def whole(self) -> bool:
        answers = [self.run(*command, "-o", "json") for command in (("host", "ls"), ("balancer", "ls"))]
        if any(answer.code for answer in answers):
            return False
        states = [thing["state"] for answer in answers for thing in json.loads(answer.output)]
        return states == ["online"] * len(self._hosts) + ["connected"]
