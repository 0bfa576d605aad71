"""Your own fleet, as a file describes it: machines reached by ssh as root, and the app that load is sent to.

    app = "my-app"
    port = 80                        # its route's

    [machines.ctl1]
    ssh = "root@ctl1"
    address = "10.0.0.11"
    runs = ["controller", "etcd"]

    [machines.web1]
    ssh = "root@web1"
    address = "10.0.0.31"
    runs = ["agent"]

`runs` has what docs/install.md installs: agent, controller, etcd (as fleet-etcd), balancer. fleetctl is this machine's, in its
current context. The app must answer `GET /` with a JSON object that has its `pid`, and `POST /echo` with what was sent.
"""

import tomllib
from pathlib import Path
from typing import Any, Self

from tests.faults.fleet.topologies import ROLES, topology
from tests.hosts.operated_fleet import OperatedFleet
from tests.hosts.ssh_host import SshHost


class OwnFleetError(Exception):
    """The file cannot be used; the message is one line that says what to write."""


class OwnFleet(OperatedFleet):
    """`ssh`: the program."""

    def __init__(self, document: dict[str, Any], ssh: str = "ssh") -> None:
        """Raises OwnFleetError."""
        machines = document.get("machines")
        if not isinstance(document.get("app"), str) or not isinstance(machines, dict) or not machines:
            raise OwnFleetError('write app = "NAME", and a table [machines.NAME] for each machine')
        for name, machine in machines.items():
            _check(name, machine)
        roles = {name: tuple(machine["runs"]) for name, machine in machines.items()}
        for role in ("agent", "balancer", "controller"):
            if not any(role in runs for runs in roles.values()):
                raise OwnFleetError(f'no machine runs "{role}"')
        self.topology = topology(roles)
        super().__init__(document["app"], self.topology.workers, self.topology.balancers, int(document.get("port", 80)))
        self.machines = {name: SshHost(name, machine["ssh"], ssh) for name, machine in machines.items()}
        self.addresses = {name: machine["address"] for name, machine in machines.items()}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises OwnFleetError."""
        try:
            return cls(tomllib.loads(path.read_text()))
        except OSError as error:
            raise OwnFleetError(f"{path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise OwnFleetError(f"{path}: not TOML: {error}") from error
        except OwnFleetError as error:
            raise OwnFleetError(f"{path}: {error}") from error


def _check(name: str, machine: Any) -> None:
    where = f"[machines.{name}]"
    if not isinstance(machine, dict) or not all(isinstance(machine.get(key), str) for key in ("ssh", "address")):
        raise OwnFleetError(f'{where}: write ssh = "root@HOST" and address = "IP"')
    runs = machine.get("runs")
    if not isinstance(runs, list) or not runs or not set(runs) <= set(ROLES):
        raise OwnFleetError(f"{where}: runs must be a list of {', '.join(ROLES)}")
