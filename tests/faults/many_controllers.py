"""Three controllers over three members of etcd, three hosts, two balancers, all by `fleetctl up`; and what can happen to them."""

import json
import os
import signal
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from etcd3aio.errors import EtcdError
from etcd3aio.maintenance import MaintenanceService

from fleet_controller.store.etcd import EtcdStore
from fleet_core.tls import TlsFiles
from fleetctl.connection import Connection
from tests.integration.fleet.harness import Fleet, wait_for

CONTROLLERS = 3
_CALL_SECONDS = 10.0


class ManyControllers(Fleet):
    """`up` starts again what dies, at once; `manager_away` makes it as if the machine of what dies had gone with it."""

    def __init__(self, folder: Path) -> None:
        options = ("--controllers", str(CONTROLLERS), "--etcd-members", "3")
        super().__init__(folder, hosts=3, balancers=2, options=options)

    # Controllers

    def controllers(self) -> dict[str, dict[str, Any]]:
        """By name, as `controller ls` shows them."""
        result = self.run("controller", "ls", "-o", "json")
        return {each["name"]: each for each in json.loads(result.output)} if result.code == 0 else {}

    def leader(self) -> str:
        """The name of the controller that leads."""

        def leading() -> list[str]:
            return [name for name, each in self.controllers().items() if each["leads"]]

        (name,) = wait_for(leading, "a controller leads")
        return name

    def wait_for_all_controllers(self) -> None:
        """Until every one answers and one leads."""

        def whole() -> bool:
            all_of_them = self.controllers().values()
            up = [each for each in all_of_them if each["reachable"] and each["etcd_ok"]]
            return len(up) == CONTROLLERS and any(each["leads"] for each in up)

        wait_for(whole, "every controller up, and one leading")

    def connection(self) -> Connection:
        """For calls to whichever leads, as fleetctl makes them."""
        configuration = tomllib.loads(Path(self.environment["FLEET_CONFIG"]).read_text())
        context = configuration["contexts"][configuration["current"]]
        files = TlsFiles(*(Path(context[name]) for name in ("authority", "certificate", "key")))
        return Connection(tuple(context["controllers"]), files, _CALL_SECONDS)

    # etcd

    @property
    def _etcd(self) -> tuple[dict[str, str], TlsFiles]:
        """Member → its address, and a controller's certificate."""
        folder = self.data_dir / "certificates"
        certificate = folder / "controller-controller1.pem"
        first = json.loads((self.data_dir / "up.json").read_text())["system_block"]
        members = {f"etcd{number + 1}": f"127.0.0.1:{first + 2 * number}" for number in range(3)}
        return members, TlsFiles(folder / "ca.pem", certificate, certificate.with_suffix(".key"))

    def store(self) -> EtcdStore:
        """To be made inside the event loop, and closed there."""
        members, files = self._etcd
        return EtcdStore(list(members.values()), files)

    async def etcd_leader(self) -> str:
        """The name of the member that leads; empty: none says so at present."""
        members, files = self._etcd
        authority, certificate, key = files.read()
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        for name, address in members.items():
            async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
                try:
                    status = await MaintenanceService(channel, max_attempts=1).status(timeout=0.5)
                except (EtcdError, TimeoutError):
                    continue
            if status.leader and status.leader == status.header.member_id:
                return name
        return ""

    # Faults

    @contextmanager
    def manager_away(self) -> Iterator[None]:
        """Meanwhile nothing that dies is started again."""
        os.kill(self.up_pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.up_pid, signal.SIGCONT)

    @contextmanager
    def frozen(self, service: str) -> Iterator[None]:
        """Meanwhile the daemon stands still, its connections open."""
        pid = self.daemons()[service]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    # What agents and balancers obeyed

    def assignments(self) -> dict[str, tuple[int, int]]:
        """Host → (election revision, sequence) of the assignment its agent holds on disk."""
        held = {}
        for path in sorted(self.data_dir.glob("hosts/*/state/assignment.json")):
            content = json.loads(path.read_text())
            held[path.parts[-3]] = (content["epoch"][1], content["sequence"])
        return held

    def obeyed(self) -> dict[str, int]:
        """Host or balancer → the election revision of the highest epoch it obeyed, from its disk."""
        found = {}
        for path in sorted(self.data_dir.glob("hosts/*/state/assignment.json")):
            found[path.parts[-3]] = json.loads(path.read_text())["highest_epoch"][1]
        for path in sorted(self.data_dir.glob("balancers/*/state/epoch.json")):
            found[path.parts[-3]] = int(json.loads(path.read_text())["election_revision"])
        return found

    def lists(self) -> dict[str, str]:
        """Balancer → the lists it holds on disk."""
        paths = sorted(self.data_dir.glob("balancers/*/state/lists.json"))
        return {path.parts[-3]: path.read_text() for path in paths}
