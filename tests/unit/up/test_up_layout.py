"""Paths, and the configurations written to them."""

import itertools
import tomllib
from pathlib import Path

from fleet_core.config import AgentConfig, PortRange, TlsConfig
from fleet_core.toml import render
from fleetctl.up.layout import Layout, balancer_addresses, default_data_dir, preferred_block, runtime_root
from fleetctl.up.notify import parse_fields

FLEET = "0123456789ab"


def test_sockets_lie_in_the_data_folder_where_its_path_is_short() -> None:
    folder = Path("/home/ada/.local/share/fleetctl/up")
    assert runtime_root(folder, FLEET, 1000) == folder


def test_sockets_of_a_folder_with_a_long_path_lie_elsewhere() -> None:
    folder = Path("/home/ada") / ("deep/" * 12)
    assert runtime_root(folder, FLEET, 1000) == Path(f"/tmp/fleet-1000-{FLEET}")


def test_runtime_files_lie_in_memory_where_there_is_some_for_them() -> None:
    assert runtime_root(Path("/home/ada/fleet"), FLEET, 0, "/run") == Path(f"/run/fleet-0-{FLEET}")


def test_no_socket_path_is_longer_than_the_kernel_takes() -> None:
    for length, memory in itertools.product(range(1, 120), ("", "/dev/shm")):
        data_dir = Path("/" + "d" * length)
        layout = Layout(data_dir, runtime_root(data_dir, FLEET, 4_294_967_294, memory))
        for socket in (
            layout.notify_socket,
            layout.host("host50").run / "supervisor.sock",
            layout.balancer_run("balancer9") / "haproxy-runtime.sock.4194304.tmp",
        ):
            assert len(str(socket)) <= 107


def test_a_relative_xdg_folder_is_ignored() -> None:
    assert default_data_dir("data", Path("/home/ada")) == Path("/home/ada/.local/share/fleetctl/up")
    assert default_data_dir("/data", Path("/home/ada")) == Path("/data/fleetctl/up")


def test_the_default_folder_has_the_first_ports_and_others_spread() -> None:
    assert preferred_block(Path("/a"), is_default=True, blocks=60) == 0
    others = {preferred_block(Path(f"/fleet{number}"), is_default=False, blocks=60) for number in range(50)}
    assert len(others) > 20
    assert others <= set(range(60))


def test_a_rendered_configuration_reads_back_as_it_was(tmp_path: Path) -> None:
    pem = Path('/a "b" \\ ü \x7f 🚢/x.pem')
    config = AgentConfig(
        name="host1",
        state_dir=Path("/s"),
        tls=TlsConfig(authority=pem, certificate=pem, key=pem),
        controllers=["127.0.0.1:1", "127.0.0.1:2"],
        address="127.0.0.1",
        ports=PortRange(first=20_200, last=20_399),
        runtime_dir=Path("/r"),
        log_dir=Path("/l"),
        labels={"zone": "a"},
    )
    tomllib.loads(render(config.plain()))
    file = tmp_path / "agent.toml"
    file.write_text(render(config.plain()))
    assert AgentConfig.load(file) == config


def test_a_notification_is_lines_of_assignments() -> None:
    assert parse_fields(b"READY=1\nSTATUS=a=b\nnonsense\n") == {"READY": "1", "STATUS": "a=b"}


def test_one_balancer_listens_everywhere_and_several_each_on_a_loopback_address_of_their_own() -> None:
    assert balancer_addresses(1) == ["0.0.0.0"]
    assert balancer_addresses(3) == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
