"""Real etcd members as child processes on loopback, with mutual TLS. Test support."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from etcd3aio.errors import EtcdError
from etcd3aio.kv import KVService
from etcd3aio.maintenance import MaintenanceService

from fleet_controller.store.etcd import EtcdStore
from fleet_core.authority import create_authority, issue
from fleet_core.embedded_etcd import embedded_etcd_command, find_etcd
from fleet_core.tls import Identity, Role, TlsFiles
from tests.ports import free_ports

START_SECONDS = 20.0


class EtcdMember:
    """One process; `stop` and `resume` are SIGSTOP and SIGCONT."""

    def __init__(self, command: list[str], data_dir: Path, log: Path, endpoint: str) -> None:
        self.endpoint = endpoint
        self.data_dir = data_dir
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

    def join_existing(self) -> None:
        """From the next start on it is a new member of the cluster that runs."""
        self._command.append("--initial-cluster-state=existing")

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class EtcdCluster:
    """`hosts` is what the members' certificates name; `options`, "--name=value", win over those a member has otherwise."""

    def __init__(
        self,
        folder: Path,
        size: int = 1,
        hosts: Sequence[str] = ("127.0.0.1",),
        options: Sequence[str] = (),
    ) -> None:
        self._certificates = folder / "certificates"
        create_authority(self._certificates)
        server_tls = issue(self._certificates, Identity(Role.ETCD, "etcd"), hosts)
        self.tls = issue(self._certificates, Identity(Role.CONTROLLER, "controller"))
        ports = free_ports(2 * size)
        peers = {f"m{n}": ports[2 * n + 1] for n in range(size)}
        self.members = []
        for n in range(size):
            command = embedded_etcd_command(
                find_etcd(), f"m{n}", folder / f"m{n}", ports[2 * n], ports[2 * n + 1], server_tls, peers
            )
            names = {option.partition("=")[0] for option in options}
            command = [part for part in command if part.partition("=")[0] not in names] + list(options)
            self.members.append(
                EtcdMember(command, folder / f"m{n}", folder / f"m{n}.log", f"127.0.0.1:{ports[2 * n]}")
            )

    @property
    def authority(self) -> Path:
        """The folder of the certificate authority."""
        return self._certificates

    @property
    def endpoints(self) -> list[str]:
        return [member.endpoint for member in self.members]

    def store(self) -> EtcdStore:
        return EtcdStore(self.endpoints, self.tls)

    async def start(self) -> None:
        """Start all members and wait until they serve; on failure none is left."""
        for member in self.members:
            member.start()
        try:
            store = self.store()
            try:
                await store.read("/", timeout=START_SECONDS)
            finally:
                await store.close()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        for member in self.members:
            member.kill()

    def certificate_of(self, role: Role) -> TlsFiles:
        return issue(self._certificates, Identity(role, f"some-{role}"), ["127.0.0.1"])

    async def leader(self) -> EtcdMember:
        """Asks every member that answers; raises TimeoutError when none says that it leads."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                for member in self.members:
                    async with self._channel(member) as channel:
                        try:
                            status = await MaintenanceService(channel, max_attempts=1).status(timeout=0.5)
                        except (EtcdError, TimeoutError):
                            continue
                    if status.leader and status.leader == status.header.member_id:
                        return member
                await asyncio.sleep(0.1)

    async def compact(self, revision: int) -> None:
        """Through the leader."""
        async with self._channel(await self.leader()) as channel:
            await KVService(channel, max_attempts=1).compact(revision, timeout=5.0)

    @asynccontextmanager
    async def _channel(self, member: EtcdMember) -> AsyncIterator[grpc.aio.Channel]:
        authority, certificate, key = self.tls.read()
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(member.endpoint, credentials, options=options) as channel:
            yield channel


@asynccontextmanager
async def running_etcd(folder: Path, size: int = 1) -> AsyncIterator[EtcdCluster]:
    """A cluster that serves; its processes are gone afterwards."""
    cluster = EtcdCluster(folder, size)
    await cluster.start()
    try:
        yield cluster
    finally:
        cluster.kill()
