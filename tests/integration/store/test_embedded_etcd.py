"""The etcd that `fleetctl up` runs."""

import asyncio
import stat
import subprocess
from pathlib import Path

import psutil
import pytest

from fleet_controller.store.etcd import EtcdStore
from fleet_controller.store.interface import Put
from fleet_core.authority import create_authority, issue
from fleet_core.embedded_etcd import EtcdNotFound, embedded_etcd_command, find_etcd
from fleet_core.tls import Identity, Role
from tests.ports import free_ports


def test_an_etcd_on_the_path_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "etcd"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_etcd() == own


def test_without_one_on_the_path_the_bundled_one_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_etcd()
    assert found.stat().st_mode & stat.S_IXUSR
    assert b"etcd Version" in subprocess.run([found, "--version"], check=True, capture_output=True).stdout


def test_without_any_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EtcdNotFound, match="install one on PATH"):
        find_etcd()


async def test_its_data_survives_a_kill_and_other_ports_and_it_listens_on_loopback_only(tmp_path: Path) -> None:
    create_authority(tmp_path)
    server_tls = issue(tmp_path, Identity(Role.ETCD, "embedded"), ["127.0.0.1"])
    client_tls = issue(tmp_path, Identity(Role.CONTROLLER, "controller"))
    for expected in (set(), {"/a"}):
        client_port, peer_port = free_ports(2)
        command = embedded_etcd_command(find_etcd(), "embedded", tmp_path / "data", client_port, peer_port, server_tls)
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        store = EtcdStore([f"127.0.0.1:{client_port}"], client_tls)
        try:
            assert set((await store.read("/", timeout=20.0)).items) == expected
            await store.commit([], [Put("/a", b"1")])
            assert await asyncio.to_thread(listening_ports, process.pid) == {
                ("127.0.0.1", client_port),
                ("127.0.0.1", peer_port),
            }
        finally:
            await store.close()
            process.kill()
            process.wait(10)
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0, "desired state is nobody else's to read"


def listening_ports(pid: int) -> set[tuple[str, int]]:
    """Where a process listens."""
    sockets = psutil.Process(pid).net_connections("tcp")
    return {(one.laddr.ip, one.laddr.port) for one in sockets if one.status == psutil.CONN_LISTEN}
