"""Who listens where, on real sockets of this process."""

import os
import socket
import subprocess

import pytest

from fleet_agent.probes import elsewhere, listen_finding
from fleet_agent.readiness import Rule
from fleet_agent.sockets import Listener, ListenerTable, holds_socket
from fleet_core.spec import ReadyMethod


def rule(port: int) -> Rule:
    return Rule(ReadyMethod.LISTEN, "127.0.0.1", port, "", (), 30, 1, 5, 5, 3)


@pytest.mark.parametrize("netlink", [True, False])
def test_a_listening_socket_is_seen_with_its_address_and_owner(netlink: bool) -> None:
    table = ListenerTable()
    table._netlink = netlink
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = [listener for listener in table.read() if listener.port == port]
        assert [listener.address for listener in found] == ["127.0.0.1"]
        assert holds_socket([os.getpid()], found[0].inode) is True
        assert holds_socket([os.getpid()], found[0].inode + 1) is False
        assert listen_finding(rule(port), os.getpid(), found)[0].good


def test_nothing_listening_is_said_in_words() -> None:
    assert listen_finding(rule(20_001), 1, [])[0].seen == "nothing listens on port 20001"


def test_a_program_that_listens_on_a_port_of_its_own_choice_is_told_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = {port: [listener for listener in ListenerTable().read() if listener.port == port]}
        assert elsewhere(os.getpid(), found) == f", which PORT says is its own; it listens on {port}"
        with subprocess.Popen(["sleep", "60"]) as other:
            assert elsewhere(other.pid, found) == ""
            other.kill()


def test_a_listener_of_another_program_does_not_make_a_worker_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = [listener for listener in ListenerTable().read() if listener.port == port]
        with subprocess.Popen(["sleep", "60"]) as other:
            try:
                finding, _ = listen_finding(rule(port), other.pid, found)
            finally:
                other.kill()
    assert (finding.good, finding.seen) == (False, f"port {port} is held by another program")


@pytest.mark.parametrize(
    ("bound", "wanted", "reachable"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "10.0.0.5", True),
        ("::", "10.0.0.5", True),
        ("::ffff:10.0.0.5", "10.0.0.5", True),
        ("127.0.0.1", "10.0.0.5", False),
        ("0.0.0.0", "fd00::1", False),
        ("10.0.0.5", "app.example", True),
    ],
)
def test_a_worker_must_listen_where_the_balancers_connect(bound: str, wanted: str, reachable: bool) -> None:
    assert Listener(bound, 80, 1).reachable_at(wanted) is reachable


def test_an_unreachable_listener_is_said_in_words() -> None:
    finding, _ = listen_finding(rule(80), 1, [Listener("10.9.9.9", 80, 1)])
    assert finding.seen == "it listens on 10.9.9.9 port 80, which 127.0.0.1 does not lead to"
