"""One host: a container whose PID 1 is systemd. What is done to it is what is done to real ones."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.types.networks import EndpointConfig  # type: ignore[import-untyped]
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from tests.hosts.host import Host, MachineError

__all__ = ["Machine", "MachineError", "Mount"]


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of this machine that a host sees, and cannot change unless it is said to be `writable`."""

    source: Path
    target: str
    writable: bool = False


class Machine(Host):
    """Owns its container; `close` ends it, whatever state it is in."""

    def __init__(
        self,
        name: str,
        image: str,
        network: Network,
        mounts: list[Mount],
        environment: Mapping[str, str] | None = None,
        address: str = "",
    ) -> None:
        """Returns once systemd has started everything. Raises MachineError.

        `address`: kept for ever, in a network with a range of its own; empty: one that another may have after a power cut.
        """
        super().__init__(name)
        fixed = {"networking_config": {network.name: _endpoint(address)}} if address else {}
        container = (
            DockerContainer(image)
            .with_network(network)
            .with_kwargs(
                hostname=name,
                cap_add=["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"],
                security_opt=["seccomp=unconfined", "apparmor=unconfined"],
                cgroupns="private",
                stop_signal="SIGRTMIN+3",
                **fixed,
            )
        )
        container.with_tmpfs_mount("/run").with_tmpfs_mount("/tmp")
        for key, value in (environment or {}).items():
            container.with_env(key, value)
        for mount in mounts:
            container.with_volume_mapping(str(mount.source), mount.target, "rw" if mount.writable else "ro")
        self._owner = container
        container.start()
        try:
            self.wait_until_up()
        except BaseException:
            container.stop()
            raise

    def close(self) -> None:
        self._owner.stop()

    @property
    def _container(self) -> Any:  # docker's own, which has no types
        return self._owner.get_wrapped_container()

    @property
    def address(self) -> str:
        """On the hosts' own network."""
        container = self._container
        container.reload()
        (settings,) = container.attrs["NetworkSettings"]["Networks"].values()
        return str(settings["IPAddress"])

    def put(self, source: Path, target: str) -> None:
        """Copy a file or folder of this machine into the host."""
        subprocess.run(["docker", "cp", str(source), f"{self._container.id}:{target}"], check=True, capture_output=True)

    def keep_as(self, name: str, label: str) -> None:
        """An image of its disk as it is now."""
        command = ["docker", "commit", "--change", f"LABEL {label}", str(self._container.id), name]
        subprocess.run(command, check=True, capture_output=True)

    def pack(self, path: str) -> bytes:
        """A file or folder of the host, as a tar archive."""
        chunks, _ = self._container.get_archive(path)
        return b"".join(chunks)

    def unpack(self, archive: bytes, folder: str) -> None:
        self._container.put_archive(folder, archive)

    def reboot(self) -> None:
        """An orderly one: systemd stops every service, then boots anew. Folders in memory are empty afterwards."""
        self._container.restart(timeout=120)
        self.wait_until_up()

    def power_cut(self) -> None:
        """Every process is gone at once, and nobody was told: not even the kernel's farewell to open connections gets out."""
        self.run("ip link set eth0 down")
        self._container.kill()

    def power_on(self) -> None:
        self._container.start()
        self.wait_until_up()

    def stop(self) -> None:
        self._container.stop(timeout=120)

    def freeze(self) -> None:
        """No process of it runs any more; its kernel still acknowledges what it is sent, as that of a host that swaps does."""
        self._container.pause()

    def thaw(self) -> None:
        self._container.unpause()

    def iptables(self, arguments: Sequence[str], *, may_fail: bool = False) -> None:
        """In the host's network, by this machine's program."""
        container = self._container
        container.reload()
        command = ["nsenter", f"--net=/proc/{container.attrs['State']['Pid']}/ns/net", "iptables", "--wait", *arguments]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0 and not may_fail:
            raise MachineError(f"{self.name}: iptables {' '.join(arguments)}: {result.stderr.strip()}")

    def execute(self, script: str, timeout: float) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["docker", "exec", str(self._container.id), "/bin/bash", "-ec", script],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )


def _endpoint(address: str) -> Any:
    return EndpointConfig("1.40", ipv4_address=address)
