"""What docs/install.md promises, on hosts with systemd, under load."""

import time

from tests.hosts.fleet import APP, SIZE, HostFleet
from tests.hosts.links import Cut, Direction
from tests.hosts.machine import Machine
from tests.load.tally import Tally

_REQUESTS = 150
"""After each fault, so many more must have been answered before the next."""
_LIMITED = "/sys/fs/cgroup/system.slice/fleet-workers.service/limited.1.1"


def more_requests(fleet: HostFleet, tally: Tally, count: int = _REQUESTS) -> None:
    goal = tally.sent.total() + count
    fleet.control.wait_for(lambda: tally.sent.total() >= goal, f"{count} requests")


def failures(tally: Tally) -> list[str]:
    return [f"{failure.kind}: {failure.method} {failure.connection} {failure.detail}" for failure in tally.details]


def cgroup_of(machine: Machine, pid: int) -> str:
    """In the version 2 tree."""
    lines = machine.run(f"cat /proc/{pid}/cgroup").splitlines()
    return next(line.removeprefix("0::") for line in lines if line.startswith("0::"))


def test_workers_live_in_the_delegated_cgroup_as_a_user_without_rights(hosts: HostFleet) -> None:
    for name, pid in hosts.workers("web1").items():
        assert cgroup_of(hosts.web1, pid).startswith(f"/system.slice/fleet-workers.service/{APP}."), name
        assert hosts.web1.run(f"stat -c %U /proc/{pid}").strip() == "fleet"
    assert hosts.web1.run("stat -c '%a %U:%G' /etc/fleet/agent/key.pem").strip() == "640 root:root"
    assert hosts.control.run("stat -c '%a %U:%G' /etc/fleet/balancer/key.pem").strip() == "640 root:fleet-balancer"
    assert hosts.control.run("stat -c '%a %U' /etc/fleet/authority/ca.key").strip() == "600 root"


def test_restarts_and_kills_of_the_services_touch_no_worker_and_fail_no_request(hosts: HostFleet) -> None:
    """Guards invariant 3: with delegated cgroups, and systemd in charge."""
    before = hosts.workers()
    supervisor = hosts.web1.main_pid("fleet-supervisor")
    haproxy = hosts.control.run("pgrep -x haproxy")
    with hosts.load() as tally:
        more_requests(hosts, tally)
        for machine, command in (
            (hosts.web1, "systemctl restart fleet-agent"),
            (hosts.web1, "systemctl kill --signal KILL fleet-supervisor"),
            (hosts.web2, "systemctl kill --signal KILL fleet-agent"),
            (hosts.web2, "systemctl restart fleet-supervisor"),
            (hosts.control, "systemctl restart fleet-balancer"),
            (hosts.control, "systemctl kill --kill-whom main --signal KILL fleet-balancer"),
            (hosts.control, "systemctl restart fleet-controller"),
            (hosts.control, "systemctl restart fleet-etcd"),
        ):
            machine.run(command)
            more_requests(hosts, tally)
        hosts.web1.wait_for(
            lambda: hosts.web1.main_pid("fleet-supervisor") not in (0, supervisor), "another supervisor"
        )
        hosts.wait_until_settled()
    assert failures(tally) == []
    assert hosts.workers() == before
    assert hosts.control.run("pgrep -x haproxy") == haproxy


def test_a_host_cut_off_from_the_controller_goes_on_and_is_called_unknown(hosts: HostFleet) -> None:
    """Guards invariant 3: in either direction. `make test-hosts-wide` cuts the other links too, and for longer."""
    before = hosts.workers()
    with hosts.load() as tally:
        more_requests(hosts, tally)
        for direction in (Direction.IN, Direction.OUT):
            hosts.web1.cut([Cut(hosts.control.address, 7400, direction)])
            try:
                hosts.control.wait_for(lambda: hosts.state_of("web1") != "online", "web1 to be missed")
                more_requests(hosts, tally)
            finally:
                hosts.web1.mend()
            hosts.wait_until_settled()
    assert failures(tally) == []
    assert hosts.workers() == before


def test_installing_again_upgrades_in_place_and_touches_no_worker(hosts: HostFleet) -> None:
    before = hosts.workers()
    agent = hosts.web1.main_pid("fleet-agent")
    with hosts.load() as tally:
        more_requests(hosts, tally)
        hosts.follow("upgrade web1")
        more_requests(hosts, tally)
        hosts.wait_until_settled()
    assert failures(tally) == []
    assert hosts.workers() == before
    assert hosts.web1.main_pid("fleet-agent") != agent


def test_a_reboot_under_load_fails_no_request_and_the_host_comes_back_with_its_workers(hosts: HostFleet) -> None:
    """Guards invariant 7: at shutdown, a worker is stopped only after every balancer stopped choosing it."""
    before = hosts.workers()
    with hosts.load() as tally:
        more_requests(hosts, tally)
        hosts.web1.reboot()
        hosts.wait_for_processes(hosts.web1, len(hosts.workers("web1")))
        hosts.wait_until_settled()
        more_requests(hosts, tally)
    assert failures(tally) == []
    after = hosts.workers()
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {name for name in after if "/web1/" in name}


def test_stopping_the_workers_service_drains_the_host_and_starting_the_agent_brings_all_back(hosts: HostFleet) -> None:
    wanted = len(hosts.workers("web1"))
    with hosts.load() as tally:
        more_requests(hosts, tally)
        hosts.web1.run("systemctl stop fleet-workers")
        assert hosts.web1.run("pgrep -c -u fleet node || true").strip() == "0"
        assert not hosts.web1.succeeds("systemctl is-active fleet-agent || systemctl is-active fleet-supervisor")
        more_requests(hosts, tally)
        hosts.web1.run("systemctl start fleet-agent")
        hosts.wait_for_processes(hosts.web1, wanted)
        hosts.wait_until_settled()
    assert failures(tally) == []
    for service in ("fleet-workers", "fleet-supervisor", "fleet-agent", "fleet-drain"):
        assert hosts.web1.succeeds(f"systemctl is-active {service}"), service


def test_controller_etcd_and_balancer_come_back_by_themselves(hosts: HostFleet) -> None:
    """Guards invariant 3: their whole machine reboots, and no worker notices."""
    before = hosts.workers()
    hosts.control.reboot()
    hosts.control.wait_for(lambda: hosts.control.succeeds("fleetctl host ls"), "a leading controller")
    hosts.wait_until_settled()
    with hosts.load() as tally:
        more_requests(hosts, tally)
    assert failures(tally) == []
    assert hosts.workers() == before


def test_a_host_boots_with_its_workers_while_the_controller_is_away(hosts: HostFleet) -> None:
    wanted = len(hosts.workers("web2"))
    hosts.control.run("systemctl stop fleet-controller")
    try:
        hosts.web2.reboot()
        hosts.wait_for_processes(hosts.web2, wanted)
    finally:
        hosts.control.run("systemctl start fleet-controller")
    hosts.wait_until_settled()
    with hosts.load() as tally:
        more_requests(hosts, tally)
    assert failures(tally) == []


def test_after_a_power_cut_requests_fail_only_until_the_host_is_known_to_be_gone(hosts: HostFleet) -> None:
    with hosts.load() as tally:
        more_requests(hosts, tally)
        hosts.web1.power_cut()
        hosts.control.wait_for(lambda: hosts.state_of("web1") != "online", "web1 to be missed")
        known = time.monotonic()
        more_requests(hosts, tally)
        hosts.web1.power_on()
        hosts.wait_for_processes(hosts.web1, SIZE // 2)
        hosts.wait_until_settled()
        more_requests(hosts, tally)
    # What was sent to the host before may fail later: when nothing was acknowledged for long enough, or the client gives up.
    assert [failure for failure in tally.details if failure.began > known] == []
    assert len(hosts.workers("web1")) == SIZE // 2


def test_what_is_left_of_another_pid_namespace_is_not_adopted(hosts: HostFleet) -> None:
    """Guards invariant 8: the machine's boot id is the same, the pids in the journal are other processes'."""
    machine = hosts.web1
    machine.run(
        "rm -rf /root/journal; cp -a /run/fleet/journal /root/journal;"
        "mkdir -p /etc/systemd/system/fleet-supervisor.service.d;"
        "printf '[Service]\\nExecStartPre=/bin/cp -a /root/journal /run/fleet/\\n'"
        " > /etc/systemd/system/fleet-supervisor.service.d/old.conf"
    )
    machine.power_cut()
    machine.power_on()
    try:
        hosts.wait_for_processes(machine, SIZE // 2)
        hosts.wait_until_settled()
        supervisor = machine.main_pid("fleet-supervisor")
        for name, pid in hosts.workers("web1").items():
            assert machine.run(f"ps -o ppid= -p {pid}").strip() == str(supervisor), f"{name} was not started anew"
        assert machine.run("systemctl show fleet-supervisor --property NRestarts --value").strip() == "0"
        assert machine.run("systemctl is-system-running").strip() == "running"
    finally:
        machine.run("rm -r /etc/systemd/system/fleet-supervisor.service.d; systemctl daemon-reload")


def test_a_host_of_cgroups_of_version_2_alone_gives_limits_or_says_why_not(hosts: HostFleet) -> None:
    """Whether this machine's kernel leaves version 2 its controllers decides which of the two is seen here."""
    machine = hosts.add_host("web3", environment={"FLEET_TEST_CGROUPS": "unified"})
    assert machine.succeeds("test -f /sys/fs/cgroup/system.slice/fleet-workers.service/cgroup.controllers")
    limited = "cd /srv/my-app && fleetctl start ./server.js -n limited -i 1 --host web3 --memory-limit 200M"
    try:
        if machine.succeeds("grep -w memory /sys/fs/cgroup/cgroup.controllers"):
            hosts.control.run(limited)
            assert machine.run(f"cat {_LIMITED}/memory.max").strip() == str(200 * 1024 * 1024)
            supervisor = machine.main_pid("fleet-supervisor")
            machine.run("systemctl kill --signal KILL fleet-supervisor")
            machine.wait_for(lambda: machine.main_pid("fleet-supervisor") not in (0, supervisor), "another one")
            assert machine.run("systemctl is-active fleet-supervisor").strip() == "active"
        else:
            assert not hosts.control.succeeds(limited)
            assert "enable the controller memory" in hosts.control.run("fleetctl status limited")
    finally:
        hosts.control.run("fleetctl remove limited --yes")


def test_uninstalling_drains_and_leaves_the_data(hosts: HostFleet) -> None:
    with hosts.load() as tally:
        more_requests(hosts, tally)
        hosts.follow("remove web2")
        more_requests(hosts, tally)
    assert failures(tally) == []
    assert not hosts.web2.succeeds("pgrep node || systemctl cat fleet-agent || id fleet")
    assert hosts.web2.succeeds(
        "test -f /etc/fleet/agent.toml -a -f /var/lib/fleet/agent/host-uid -a -d /var/log/fleet/my-app"
    )
    hosts.web2.run("/opt/fleet/bin/fleet-agent uninstall --purge")
    assert not hosts.web2.succeeds("test -e /etc/fleet/agent.toml -o -e /var/lib/fleet/agent -o -e /var/log/fleet")
