"""Which daemons make up the fleet, and how each is started: as in production, by its console script and its configuration."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fleet_core.embedded_etcd import embedded_etcd_command
from fleet_core.tls import TlsFiles
from fleetctl.up.layout import Layout, balancer_names, controller_names, etcd_names, host_names
from fleetctl.up.services import Service
from fleetctl.up.settings import Settings

ETCD = "etcd"
"""Whom the certificate of every member names."""


@dataclass(frozen=True, slots=True)
class Programs:
    """How to call each program; all but etcd take a subcommand next."""

    etcd: Path
    controller: tuple[str, ...]
    agent: tuple[str, ...]
    supervisor: tuple[str, ...]
    balancer: tuple[str, ...]

    @classmethod
    def installed(cls, etcd: Path) -> Self:
        """Those beside this interpreter."""
        return cls(
            etcd=etcd,
            controller=_script("fleet-controller", "fleet_controller.main"),
            agent=_script("fleet-agent", "fleet_agent.main"),
            supervisor=_script("fleet-supervisor", "fleet_agent.supervisor.main"),
            balancer=_script("fleet-balancer", "fleet_balancer.main"),
        )


class Topology:
    """The services by kind; their names are unique."""

    def __init__(self, layout: Layout, settings: Settings, programs: Programs, etcd_tls: TlsFiles) -> None:
        self.layout = layout
        self.settings = settings
        self.programs = programs
        self.etcd = self._etcd(etcd_tls)
        self.controllers = [
            self._service(name, programs.controller, layout.controller_config(name), port)
            for name, port in zip(controller_names(settings.controllers), settings.controller_ports, strict=True)
        ]
        self.balancers = [
            self._service(name, programs.balancer, layout.balancer_config(name))
            for name in balancer_names(settings.balancers)
        ]
        self.agents = [
            self._service(f"{name}-agent", programs.agent, layout.host(name).config)
            for name in host_names(settings.hosts)
        ]
        self.supervisors = [self._supervisor(name) for name in host_names(settings.hosts)]

    @property
    def services(self) -> list[Service]:
        """In the order of their start."""
        return [*self.etcd, *self.controllers, *self.supervisors, *self.agents, *self.balancers]

    def stop_workers(self, host: str, *, hasty: bool = False) -> tuple[str, ...]:
        """The command that stops a host's workers by their ladder; hasty: by SIGKILL."""
        command = (*self.programs.supervisor, "stop", "--runtime-dir", str(self.layout.host(host).run))
        return (*command, "--grace-seconds", "0") if hasty else command

    def stop_balancer(self, name: str, *, hasty: bool = False) -> tuple[str, ...]:
        """The command that stops the load balancer which `name` drives; with no worker left, nobody is worth a long wait."""
        config = str(self.layout.balancer_config(name))
        return (*self.programs.balancer, "stop", "--config", config, "--grace", "0" if hasty else "2")

    def _etcd(self, tls: TlsFiles) -> list[Service]:
        settings = self.settings
        names = etcd_names(settings.etcd_members)
        peers = dict(zip(names, settings.etcd_peer_ports, strict=True))
        members = []
        for name, client_port in zip(names, settings.etcd_client_ports, strict=True):
            folder, ports = self.layout.etcd(name), (client_port, peers[name])
            command = embedded_etcd_command(self.programs.etcd, name, folder, *ports, tls, peers)
            members.append(Service(name, tuple(command), self.layout.log(name), ports))
        return members

    def _supervisor(self, host: str) -> Service:
        folders = self.layout.host(host)
        argv = (*self.programs.supervisor, "run", "--runtime-dir", str(folders.run), "--log-dir", str(folders.log))
        if self.settings.cgroup:
            argv = (*argv, "--cgroup", str(Path(self.settings.cgroup, host)))
        return Service(supervisor_of(host), argv, self.layout.log(supervisor_of(host)))

    def _service(self, name: str, program: tuple[str, ...], config: Path, *ports: int) -> Service:
        return Service(name, (*program, "run", "--config", str(config)), self.layout.log(name), ports)


def supervisor_of(host: str) -> str:
    """The service's name."""
    return f"{host}-supervisor"


def _script(name: str, module: str) -> tuple[str, ...]:
    """The console script, which is what `ps` then shows; without one, the module it calls."""
    script = Path(sys.executable).with_name(name)
    return (str(script),) if script.exists() else (sys.executable, "-m", module)
