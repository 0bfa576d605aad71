"""A fleet as its operator and its clients have it: fleetctl, what it says of hosts and workers, and requests to balancers."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.hosts.host import Host, MachineError
from tests.load.client import LoadClient, LoadPlan, Target
from tests.load.tally import Tally

PROGRAMS = ("fleet-agent", "fleet-supervisor", "fleet-controller", "fleet-balancer")
"""As they are called in the journal."""
_UNDER_WAY = ("running", "rolling_back")


class CommandFailed(Exception):  # noqa: N818 (an outcome, often expected)
    """fleetctl exited with other than 0."""

    def __init__(self, arguments: tuple[str, ...], code: int, output: str) -> None:
        super().__init__(f"fleetctl {' '.join(arguments)}: exit status {code}\n{output}")
        self.code = code


class OperatedFleet:
    """`app` is the one that load is sent to; `hosts` and `balancers` are all that there shall be."""

    machines: Mapping[str, Host]

    def __init__(self, app: str, hosts: Sequence[str], balancers: Sequence[str], port: int = 80) -> None:
        self.app = app
        self.hosts = tuple(hosts)
        self.balancers = tuple(balancers)
        self.port = port
        """The app's route's."""
        self.addresses: dict[str, str] = {}
        self.lost_after = 150.0
        """The app's, in seconds."""
        self.environment = dict(os.environ)
        """fleetctl's."""

    def try_fleetctl(self, *arguments: str, timeout: float = 240.0) -> tuple[int, str]:
        """Exit status and all output."""
        result = subprocess.run(
            [str(Path(sys.executable).with_name("fleetctl")), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return result.returncode, result.stdout + result.stderr

    def fleetctl(self, *arguments: str) -> str:
        """Raises CommandFailed."""
        code, output = self.try_fleetctl(*arguments)
        if code:
            raise CommandFailed(arguments, code, output)
        return output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.fleetctl(*arguments, "-o", "json"))

    def online(self) -> bool:
        """Every host and every balancer is connected to a leader."""
        try:
            hosts, balancers = self.json("host", "ls"), self.json("balancer", "ls")
        except CommandFailed:
            return False
        return sorted(host["name"] for host in hosts if host["state"] == "online") == sorted(self.hosts) and sorted(
            each["name"] for each in balancers if each["state"] == "connected"
        ) == sorted(self.balancers)

    def settled(self) -> bool:
        """All is connected, the workers wanted are ready, and nothing is under way."""
        if not self.online():
            return False
        try:
            apps = self.json("ls")
        except CommandFailed:
            return False
        return all(
            app["ready"] == app["size"] and (app["rollout"] is None or app["rollout"]["state"] not in _UNDER_WAY)
            for app in apps
        )

    def wait_until_settled(self, timeout: float = 60.0) -> None:
        self.wait_for(self.settled, "the fleet to be what is wanted", timeout)

    def wait_for(self, condition: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
        """Raises MachineError, with what the fleet and its services say."""
        try:
            next(iter(self.machines.values())).wait_for(condition, what, timeout)
        except MachineError:
            said = [f"{name}:\n{machine.journal(15, programs=PROGRAMS)}" for name, machine in self.machines.items()]
            status = self.try_fleetctl("status")[1]
            raise MachineError("\n".join([f"waited {timeout:g} s for {what}", status, *said])) from None

    def state_of(self, host: str) -> str:
        """As `host ls` shows it."""
        (state,) = [each["state"] for each in self.json("host", "ls") if each["name"] == host]
        return str(state)

    def workers(self, host: str = "", *, app: str = "") -> dict[str, int]:
        """Id → pid of each ready worker."""
        return {
            worker["id"]: worker["pid"]
            for worker in self.json("ps", app or self.app)
            if worker["ready"] and (not host or worker["host"] == host)
        }

    def leader(self) -> str:
        """The machine whose controller leads: controllers are called as their machines."""
        return str(self.json("info")["controller"])

    def etcd_revision(self) -> int | None:
        """Rises with every write; None: etcd cannot be asked from here."""
        return None

    @contextmanager
    def load(self, rate: float = 100.0) -> Iterator[Tally]:
        """Requests to all balancers while the block runs; who is refused by one asks the next, as clients do."""
        targets = [Target(self.addresses[name], self.port) for name in self.balancers]
        client = LoadClient(LoadPlan(targets=targets, keepalive=10, fresh=10, idle=3, rate=rate, fail_over=True))
        loop = asyncio.new_event_loop()
        sending = threading.Thread(target=loop.run_until_complete, args=(client.run(),))
        sending.start()
        try:
            yield client.tally
        finally:
            loop.call_soon_threadsafe(client.stop)
            sending.join()
            loop.close()
