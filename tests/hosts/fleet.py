"""A fleet of real hosts, installed by the commands of docs/install.md."""

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from testcontainers.core.network import Network

from fleet_core.embedded_etcd import find_etcd
from tests.hosts import image, wheels
from tests.hosts.handbook import Block, blocks
from tests.hosts.machine import Machine, Mount
from tests.load.client import LoadClient, LoadPlan, Target
from tests.load.tally import Tally

_ROOT = Path(__file__).resolve().parents[2]
_APP = _ROOT / "tests" / "load" / "apps" / "plain_server.js"
_APP_FOLDER = "/srv/my-app"
APP = "my-app"
SIZE = 4
_ADDRESSES = {"10.0.0.11": "ctl1", "10.0.0.21": "lb1", "10.0.0.31": "web1", "10.0.0.32": "web2"}
"""The page's."""
_OFFLINE = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels\n"


class HostFleet:
    """`ctl1`, which is `lb1` too, `web1` and `web2`, on a network of their own."""

    def __init__(self) -> None:
        self._owned = ExitStack()
        self.web1: Machine
        self.web2: Machine
        self.control: Machine
        self._page = blocks((_ROOT / "docs" / "install.md").read_text())

    def __enter__(self) -> "HostFleet":
        try:
            self._network = self._owned.enter_context(Network())
            self._image = image.provide()
            self._wheels = wheels.provide()
            with ThreadPoolExecutor() as pool:
                control = pool.submit(self.add, "ctl1", Mount(find_etcd(), "/usr/local/bin/etcd"))
                web1, web2 = pool.submit(self.add, "web1"), pool.submit(self.add, "web2")
            self.control, self.web1, self.web2 = control.result(), web1.result(), web2.result()
            self._install()
        except BaseException:
            self._owned.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._owned.close()

    def add(self, name: str, *mounts: Mount, environment: dict[str, str] | None = None) -> Machine:
        """A machine with the programs on it, and the app's code, as the page has every machine."""
        node = shutil.which("node")
        assert node is not None
        shared = [Mount(self._wheels, "/wheels"), Mount(Path(node).resolve(), "/usr/bin/node")]
        machine = Machine(name, self._image, self._network, [*shared, *mounts], environment)
        self._owned.callback(machine.close)
        machine.put(wheels.wheel(self._wheels), "/root/")
        machine.run(f"mkdir -p {_APP_FOLDER}")
        machine.put(_APP, f"{_APP_FOLDER}/server.js")
        for block in self._page:
            if block.where == "every machine":
                machine.run(_OFFLINE + block.text)
        return machine

    def add_host(self, name: str, environment: dict[str, str]) -> Machine:
        """One more host with workers, as the page has web1."""
        machine = self.add(name, environment=environment)
        self.control.run(f"cd /root; fleetctl cert issue agent {name}")
        machine.unpack(self.control.pack(f"/root/agent-{name}"), "/root")
        (install,) = [block for block in self._page if block.where == "web1"]
        machine.run(_OFFLINE + self._with_addresses(install.text).replace("web1", name))
        return machine

    # The page

    def _install(self) -> None:
        for block in self._page:
            if block.where in _ADDRESSES.values():
                self.follow(block.where, block)

    def follow(self, where: str, *only: Block) -> str:
        """Do what the page says to do there; returns what was printed last."""
        printed = ""
        for block in only or [block for block in self._page if block.where == where]:
            machine = self._machine(block.where.split()[-1])
            text = self._with_addresses(block.text)
            if block.path:
                machine.run(f"cat > {block.path} <<'END OF FILE'\n{text}END OF FILE\n")
            else:
                printed = self._run(machine, text)
        return printed

    def _run(self, machine: Machine, text: str) -> str:
        """Lines one by one where some are to be carried out from outside: hosts run no ssh."""
        script = ""
        for line in text.splitlines():
            if line.startswith("scp -r "):
                machine.run(f"cd /root\n{_OFFLINE}{script}")
                folder, target = line.removeprefix("scp -r ").split()
                self._copy(machine, f"/root/{folder}", self._machine(target.partition("@")[2].partition(":")[0]))
                script = ""
            else:
                script += f"{line}\n"
        return machine.run(f"cd /root\n{_OFFLINE}{script}")

    @staticmethod
    def _copy(source: Machine, folder: str, target: Machine) -> None:
        if source is not target:
            target.unpack(source.pack(folder), "/root")

    def _machine(self, name: str) -> Machine:
        return {"ctl1": self.control, "lb1": self.control, "web1": self.web1, "web2": self.web2}[name]

    def _with_addresses(self, text: str) -> str:
        for address, name in _ADDRESSES.items():
            text = text.replace(address, self._machine(name).address)
        return text

    # The fleet

    def fleetctl(self, *arguments: str) -> str:
        """As the operator on ctl1. Raises MachineError."""
        return self.control.run(f"fleetctl {' '.join(arguments)}")

    def json(self, *arguments: str) -> Any:
        return json.loads(self.fleetctl(*arguments, "-o", "json"))

    def workers(self, host: str = "") -> dict[str, int]:
        """Id → pid of each ready worker."""
        return {
            worker["id"]: worker["pid"]
            for worker in self.json("ps", APP)
            if worker["ready"] and (not host or worker["host"] == host)
        }

    def state_of(self, host: str) -> str:
        """As `host ls` shows it."""
        (state,) = [each["state"] for each in self.json("host", "ls") if each["name"] == host]
        return str(state)

    def settled(self) -> bool:
        """All workers the app shall have are ready, and every host is connected."""
        hosts = self.json("host", "ls")
        return len(self.workers()) == SIZE and all(host["state"] == "online" for host in hosts)

    def wait_until_settled(self) -> None:
        self.control.wait_for(self.settled, f"{SIZE} ready workers: {self.fleetctl('status', APP, '||', 'true')}")

    def wait_for_processes(self, machine: Machine, count: int) -> None:
        """Asked of the host itself, whatever the controller believes."""
        machine.wait_for(
            lambda: machine.run("pgrep -c -u fleet node || true").strip() == str(count), f"{count} processes"
        )

    @contextmanager
    def load(self) -> Iterator[Tally]:
        """Requests through the balancer, 100 a second, while the block runs."""
        plan = LoadPlan(targets=[Target(self.control.address, 80)], keepalive=10, fresh=10, idle=3, rate=100.0)
        client = LoadClient(plan)
        loop = asyncio.new_event_loop()
        sending = threading.Thread(target=loop.run_until_complete, args=(client.run(),))
        sending.start()
        try:
            yield client.tally
        finally:
            loop.call_soon_threadsafe(client.stop)
            sending.join()
            loop.close()
