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


class TwoAgents:
    """A leader's hosts, its clock in the test's hand, and agents that say hello."""

    def __init__(self) -> None:
        self.now = 100.0
        self.hosts = Hosts(lambda: self.now)

    @staticmethod
    def hello(uid: str, instance: str, address: str = "10.0.0.1") -> agent_pb2.AgentHello:
        return agent_pb2.AgentHello(host_name="h1", host_uid=uid, instance=instance, address=address)


def test_a_second_live_agent_of_one_name_is_refused_and_may_come_once_the_first_is_gone() -> None:
    scene = TwoAgents()
    first: Outbox[agent_pb2.ControllerMessage] = Outbox()
    host = scene.hosts.join(scene.hello("u1", "p1"), first)
    assert scene.hosts.double(scene.hello("u1", "p1")) == "", "it dials again"
    assert "another live agent is named h1, at 10.0.0.1" in scene.hosts.double(scene.hello("u2", "p2"))
    copied = scene.hosts.double(scene.hello("u1", "p3", "10.0.0.9"))
    assert "if the folder was copied from there" in copied
    assert scene.hosts.leave(host, first)
    assert scene.hosts.double(scene.hello("u2", "p2")) == ""
    assert scene.hosts.double(scene.hello("u1", "p3")) == ""


def test_agents_that_do_not_say_which_process_they_are_are_told_apart_by_uid_alone() -> None:
    scene = TwoAgents()
    scene.hosts.join(scene.hello("u1", ""), Outbox())
    assert scene.hosts.double(scene.hello("u1", "p2")) == ""
    assert scene.hosts.double(scene.hello("u2", ""))


def test_a_second_agent_is_shown_while_it_goes_on_and_a_process_that_follows_another_is_not() -> None:
    scene = TwoAgents()
    host = scene.hosts.join(scene.hello("u1", "p1"), Outbox())
    scene.hosts.double(scene.hello("u1", "p2"))
    scene.now += 4
    scene.hosts.double(scene.hello("u1", "p2"))
    assert scene.hosts.notices(host) == []
    for _ in range(4):
        scene.now += 2
        scene.hosts.double(scene.hello("u1", "p2", "10.0.0.9"))
    assert scene.hosts.notices(host) == [
        "a second agent named h1, at 10.0.0.9, is refused: give one of them another name"
    ]
    scene.now += 11
    assert scene.hosts.notices(host) == []
