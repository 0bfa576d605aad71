"""A fleet without a single point of failure: two controllers, three etcd members, two balancers, three hosts with workers.

| machine | runs |
|---|---|
| ctl1, ctl2 | an etcd member and a controller each |
| lb1 | an etcd member and a balancer |
| lb2 | a balancer |
| web1, web2, web3 | workers |

Installed by the commands of docs/install.md. Requests and fleetctl come from this machine, the gateway of their network,
whatever is done to a host.
"""

import random
import re
import ssl
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from docker.errors import APIError  # type: ignore[import-untyped]
from docker.types import IPAMConfig, IPAMPool  # type: ignore[import-untyped]
from testcontainers.core.network import Network

from fleet_core.embedded_etcd import find_etcd
from tests.hosts import installed_image
from tests.hosts.handbook import blocks
from tests.hosts.installed_image import OFFLINE
from tests.hosts.machine import Machine, MachineError, Mount
from tests.hosts.operated_fleet import OperatedFleet
from tests.load.journal import Life, read_journals

_ROOT = Path(__file__).resolve().parents[2]
_JOURNAL_KEEPER = _ROOT / "tests" / "load" / "journal.js"
APP = "my-app"
SIZE = 6
CONTROLLERS = ("ctl1", "ctl2")
ETCD = ("ctl1", "ctl2", "lb1")
BALANCERS = ("lb1", "lb2")
HOSTS = ("web1", "web2", "web3")
_NUMBERS = {"ctl1": 11, "ctl2": 12, "lb1": 21, "lb2": 22, "web1": 31, "web2": 32, "web3": 33}
"""The last of their addresses, as on the page."""
CONTROLLER_PORT, ETCD_PORT, PEER_PORT = 7400, 2379, 2380
LOST_AFTER_SECONDS = 150
_TRIES = 20


class WideFleet(OperatedFleet):
    """Owns its machines and their network. `folder`: keeps the workers' journals."""

    def __init__(self, folder: Path, *, lost_after: float = LOST_AFTER_SECONDS, size: int = SIZE) -> None:
        super().__init__(APP, HOSTS, BALANCERS)
        self.machines: dict[str, Machine] = {}
        self.journals = folder / "journals"
        self.size = size
        self.lost_after = lost_after
        self._owned = ExitStack()
        self._page = blocks((_ROOT / "docs" / "install.md").read_text())

    def __enter__(self) -> "WideFleet":
        self.journals.mkdir(parents=True)
        self.journals.chmod(0o1777)
        try:
            self._operator = Path(self._owned.enter_context(TemporaryDirectory(prefix="fleet-operator-")))
            self.environment["FLEET_CONFIG"] = str(self._operator / "config.toml")
            network, prefix = self._network()
            self.addresses |= {name: f"{prefix}.{number}" for name, number in _NUMBERS.items()}
            name = installed_image.provide()
            with ThreadPoolExecutor(max_workers=4) as pool:
                for machine in pool.map(lambda host: self._machine(host, name, network), _NUMBERS):
                    self.machines[machine.name] = machine
            self._install()
            self.start(APP, self.size, route=":80", lost_after=self.lost_after)
        except BaseException:
            self._owned.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._owned.close()

    def _network(self) -> tuple[Network, str]:
        """One whose addresses we choose, so that a machine has its own again after a power cut."""
        for attempt in range(_TRIES):
            prefix = f"10.{random.randrange(200, 250)}.{random.randrange(256)}"
            pools = [IPAMPool(subnet=f"{prefix}.0/24", gateway=f"{prefix}.1")]
            try:
                network = Network(docker_network_kw={"ipam": IPAMConfig(pool_configs=pools)})
                return self._owned.enter_context(network), prefix
            except APIError:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("the loop returns or raises")

    def _machine(self, name: str, image: str, network: Network) -> Machine:
        mounts = installed_image.node()
        if name in ETCD:
            mounts.append(Mount(find_etcd(), "/usr/local/bin/etcd"))
        if name in HOSTS:
            mounts += [
                Mount(self.journals, "/journals", writable=True),
                Mount(_JOURNAL_KEEPER, "/usr/share/journal.js"),
            ]
        machine = Machine(name, image, network, mounts, address=self.addresses[name])
        self._owned.callback(machine.close)
        return machine

    # The page, with more machines than it has

    def _install(self) -> None:
        first = self.machines["ctl1"]
        self._do(
            "ctl1", f"/opt/fleet/bin/fleet-controller init --controllers {self._list(CONTROLLERS, CONTROLLER_PORT)}"
        )
        issue = [f"fleetctl cert issue etcd {name} --address {self.addresses[name]}" for name in ETCD]
        issue += [f"fleetctl cert issue controller {name}" for name in CONTROLLERS]
        issue += [f"fleetctl cert issue balancer {name}" for name in BALANCERS]
        issue += [f"fleetctl cert issue agent {name}" for name in HOSTS]
        self._do("ctl1", "\n".join([*issue, "fleetctl cert issue operator ada"]))
        for kind, names in (("etcd", ETCD), ("controller", CONTROLLERS), ("balancer", BALANCERS), ("agent", HOSTS)):
            for name in names:
                if name != "ctl1":
                    self.machines[name].unpack(first.pack(f"/root/{kind}-{name}"), "/root")
        self._take(first.pack("/root/operator-ada"))
        self._take(first.pack("/root/controller-ctl1"))
        self.fleetctl(
            "cert", "use", str(self._operator / "operator-ada"), "-C", self._list(CONTROLLERS, CONTROLLER_PORT)
        )
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(self._install_etcd, ETCD))
            list(pool.map(self._install_controller, CONTROLLERS))
            list(pool.map(self._install_others, (*BALANCERS, *HOSTS)))
        self.wait_for(lambda: self.online(), "all hosts and balancers to be connected")

    def _install_etcd(self, name: str) -> None:
        """All members at once: each waits for the others."""
        members = ",".join(f"{member}=https://{self.addresses[member]}:{PEER_PORT}" for member in ETCD)
        for block in self._page:
            if block.where != "ctl1" or "fleet-etcd" not in block.path + block.text:
                continue
            # The page's cluster of one member becomes one of three.
            parts = block.text.split("ctl1=https://10.0.0.11:2380")
            text = members.join(part.replace("10.0.0.11", self.addresses[name]).replace("ctl1", name) for part in parts)
            if block.path:
                self._do(name, f"cat > {block.path} <<'END OF FILE'\n{text}END OF FILE\n")
            else:
                self._do(name, text)

    def _install_controller(self, name: str) -> None:
        self._do(
            name,
            f"/opt/fleet/bin/fleet-controller install --systemd --cert /root/controller-{name} "
            f"--advertise {self.addresses[name]}:{CONTROLLER_PORT} --etcd {self._list(ETCD, ETCD_PORT)}",
        )

    def _install_others(self, name: str) -> None:
        kind = "balancer" if name in BALANCERS else "agent"
        label = "" if name in BALANCERS else " --label tier=web"
        self._do(
            name,
            f"/opt/fleet/bin/fleet-{kind} install --systemd --cert /root/{kind}-{name} "
            f"--controllers {self._list(CONTROLLERS, CONTROLLER_PORT)}{label}",
        )

    def start(self, app: str, size: int, *, route: str, lost_after: float = LOST_AFTER_SECONDS) -> None:
        """A Node server that keeps its own journal. Raises MachineError."""
        self._do(
            "ctl1",
            f"cd {installed_image.APP_FOLDER}\nfleetctl start ./server.js -n {app} -i {size} --http {route} "
            f"--ready-path /healthz --lost-after {lost_after:g}s --bake-time 1s "
            "-e NODE_OPTIONS='--require /usr/share/journal.js' -e WORKER_JOURNAL_DIR=/journals",
        )

    def _list(self, names: tuple[str, ...], port: int) -> str:
        return ",".join(f"{self.addresses[name]}:{port}" for name in names)

    def _do(self, name: str, script: str) -> None:
        self.machines[name].run(f"cd /root\n{OFFLINE}{script}")

    # The operator, on this machine

    def _take(self, folder: bytes) -> None:
        with tarfile.open(fileobj=BytesIO(folder)) as archive:
            archive.extractall(self._operator, filter="data")

    def lives(self) -> list[Life]:
        """Of every process of the app, by its own journal."""
        return [life for life in read_journals(self.journals) if life.place.app == APP]

    def etcd_leader(self) -> str:
        """The machine whose etcd member leads. Raises MachineError."""
        for name in ETCD:
            if self._etcd_metric(name, "etcd_server_is_leader") == 1:
                return name
        raise MachineError("no member of etcd says that it leads")

    def etcd_revision(self) -> int | None:
        # A member that was cut off a moment ago has yet to hear of the latest.
        found = [self._etcd_metric(name, "etcd_debugging_mvcc_current_revision") for name in ETCD]
        return max((revision for revision in found if revision is not None), default=None)

    def _etcd_metric(self, member: str, name: str) -> int | None:
        folder = self._operator / "controller-ctl1"
        trust = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        trust.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        url = f"https://{self.addresses[member]}:{ETCD_PORT}/metrics"
        try:
            with urlopen(url, timeout=2, context=trust) as answer:
                text = answer.read().decode()
        except OSError:
            return None
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        return int(float(found[1])) if found else None
