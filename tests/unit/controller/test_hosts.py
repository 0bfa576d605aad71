"""Since when a host was not heard of, as far as this leader knows."""

from fleet.v1 import agent_pb2
from fleet_controller.hosts import Hosts, ObservedHost
from fleet_controller.outbox import Outbox

WHOLE = agent_pb2.WorkerReport(complete=True)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def joined(hosts: Hosts) -> tuple[ObservedHost, Outbox[agent_pb2.ControllerMessage]]:
    outbox: Outbox[agent_pb2.ControllerMessage] = Outbox()
    return hosts.join(agent_pb2.AgentHello(host_name="a", host_uid="u"), outbox), outbox


def test_a_new_leader_counts_from_the_beginning_of_its_term() -> None:
    clock = Clock()
    hosts = Hosts(clock)
    clock.now = 130.0
    assert hosts.lost_since("a") == 100.0
    joined(hosts)
    assert hosts.lost_since("a") == 100.0  # it said nothing of its workers yet


def test_a_host_is_heard_of_from_its_report_to_the_end_of_its_session() -> None:
    clock = Clock()
    hosts = Hosts(clock)
    host, outbox = joined(hosts)
    hosts.report(host, WHOLE)
    assert hosts.lost_since("a") is None
    clock.now = 200.0
    hosts.leave(host, outbox)
    assert hosts.lost_since("a") == 200.0


def test_a_session_that_never_reports_does_not_make_a_host_heard_of() -> None:
    clock = Clock()
    hosts = Hosts(clock)
    host, outbox = joined(hosts)
    hosts.report(host, WHOLE)
    clock.now = 200.0
    hosts.leave(host, outbox)
    clock.now = 250.0
    host, outbox = joined(hosts)
    hosts.leave(host, outbox)
    assert hosts.lost_since("a") == 200.0


def test_a_session_that_takes_another_s_place_is_counted_from_then() -> None:
    clock = Clock()
    hosts = Hosts(clock)
    host, _ = joined(hosts)
    hosts.report(host, WHOLE)
    clock.now = 200.0
    joined(hosts)
    assert hosts.lost_since("a") == 200.0
