"""Two balancers before one app: clients that know both addresses lose nothing when one restarts, and little when one dies."""

import asyncio
import os
import select
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_balancer.haproxy.replies import servers_state
from fleet_balancer.haproxy.runtime import RuntimeApi
from tests.integration.fleet.harness import Fleet, load_on, wait_for
from tests.integration.fleet.judge import assert_none_failed, journals_show
from tests.ports import free_address

_SIZE = 6


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three hosts and two balancers."""
    with Fleet(tmp_path_factory.mktemp("fleet"), balancers=2) as running:
        running.start()
        yield running


@pytest.fixture(scope="module")
def addresses(fleet: Fleet, app_script: Path) -> list[str]:
    return fleet.addresses(fleet.start_app(app_script, _SIZE))


def _connects(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def _haproxy(fleet: Fleet, balancer: str, *, but: int = 0) -> int:
    """The pid of the only HAProxy of a balancer, once there is one beside `but`, which was killed."""
    mark = f"/balancers/{balancer}/run/haproxy-"

    def found() -> list[int]:
        processes = fleet.processes()
        return [pid for pid, command in processes.items() if mark in command and " -db -f " in command and pid != but]

    pids = wait_for(found, f"a HAProxy of {balancer}")
    assert len(pids) == 1, pids
    return pids[0]


def test_a_route_without_an_address_is_served_by_both(fleet: Fleet, addresses: list[str]) -> None:
    with load_on(addresses, fleet.folder) as load:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 3):
            fleet.do("soft-restart", "my-app")
        summary = load.stop()

    assert_none_failed(summary)
    assert summary["failed_over"] == 0


def test_a_route_with_an_address_is_served_by_the_balancer_that_has_it(fleet: Fleet, app_script: Path) -> None:
    port = free_address().rpartition(":")[2]
    fleet.do("start", str(app_script), "-n", "other", "--http", f"127.0.0.2:{port}")
    assert _connects(f"127.0.0.2:{port}")
    assert not _connects(f"127.0.0.1:{port}")
    fleet.do("remove", "other", "-y")


def test_a_route_that_no_balancer_has_is_refused_in_one_line(fleet: Fleet, app_script: Path) -> None:
    result = fleet.run("start", str(app_script), "-n", "lost", "--http", "127.0.0.9:8080")
    assert result.code == 5
    where = "(balancer1 listens on 127.0.0.1, balancer2 listens on 127.0.0.2)"
    assert result.error_lines == [
        f"fleetctl: no balancer has the address of 127.0.0.9:8080 {where}: write :8080 for all of them"
    ]


def test_a_killed_haproxy_loses_only_what_it_had_in_flight(fleet: Fleet, addresses: list[str]) -> None:
    spans = []
    victim = 0
    with load_on(addresses, fleet.folder) as load:
        for _ in range(3):
            victim = _haproxy(fleet, "balancer1", but=victim)
            pidfd = os.pidfd_open(victim)
            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            # A pidfd tells of the end after the kernel closed every socket: whoever asks from then on was not on it.
            assert select.select([pidfd], [], [], 10)[0]
            spans.append((killed, time.monotonic()))
            os.close(pidfd)
            load.wait_for_more(200)
        summary = load.stop()

    def in_flight(failure: dict[str, Any]) -> bool:
        return any(failure["began"] <= dead and failure["at"] >= killed for killed, dead in spans)

    assert [failure for failure in summary["details"] if not in_flight(failure)] == []
    assert summary["failures"].keys() <= {"reset"}, summary["details"]
    assert {failure["target"] for failure in summary["details"]} <= {addresses[0]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_balancer_that_ends_in_the_middle_of_a_rollout_fails_nothing_and_the_rollout_goes_on(
    fleet: Fleet, addresses: list[str], number: signal.Signals
) -> None:
    """Guards invariants 1, 2 and 7."""
    before = fleet.pids()
    with load_on(addresses, fleet.folder) as load:
        judged = journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 3)
        with judged, fleet.begun("soft-restart", "my-app") as rollout:
            wait_for(lambda: fleet.pids() != before, "the rollout is under way")
            service, pid = fleet.daemon("balancer1")
            haproxy = _haproxy(fleet, "balancer1")
            os.kill(pid, number)
            wait_for(lambda: fleet.daemons().get(service, pid) != pid, "fleet-balancer is started again")
            assert rollout.wait(120) == 0
        summary = load.stop()

    assert_none_failed(summary)
    assert not before & fleet.pids()
    assert _haproxy(fleet, "balancer1") == haproxy


def test_a_removed_balancer_that_comes_back_registers_anew_and_gets_every_list(
    fleet: Fleet, addresses: list[str]
) -> None:
    refused = fleet.run("balancer", "remove", "balancer2", "-y")
    assert refused.code == 5, "it is connected"
    _, pid = fleet.daemon("balancer2")
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: _balancer(fleet, "balancer2")["state"] != "connected", "its silence is noticed")
        fleet.do("balancer", "remove", "balancer2", "-y")
        assert [balancer["name"] for balancer in fleet.ask("balancer", "ls")] == ["balancer1"]
        fleet.do("soft-restart", "my-app", "--worker", fleet.workers()[0]["id"])
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: len(fleet.ask("balancer", "ls")) == 2, "it is registered again")
    wait_for(lambda: _has_every_list(fleet), "it acknowledged every list")
    with load_on(addresses[1], fleet.folder) as load:
        summary = load.stop()
    assert_none_failed(summary)


def _balancer(fleet: Fleet, name: str) -> dict[str, Any]:
    (found,) = [balancer for balancer in fleet.ask("balancer", "ls") if balancer["name"] == name]
    assert isinstance(found, dict)
    return found


def _has_every_list(fleet: Fleet) -> bool:
    return all(
        pool["acknowledged"] == dict.fromkeys(("balancer1", "balancer2"), pool["version"])
        for pool in fleet.ask("balancer", "upstreams")
    )


def test_a_second_live_balancer_of_one_name_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    config = (fleet.data_dir / "balancers" / "balancer1" / "balancer.toml").read_text()
    lines = [line for line in config.splitlines() if not line.startswith(("state_dir", "runtime_dir"))]
    twin = tmp_path / "twin.toml"
    folders = (f'state_dir = "{tmp_path / "state"}"', f'runtime_dir = "{tmp_path / "run"}"')
    twin.write_text("\n".join((*folders, *lines)))
    program = fleet.program.with_name("fleet-balancer")
    log = tmp_path / "twin.log"
    with log.open("wb") as output, subprocess.Popen([program, "run", "--config", twin], stderr=output) as process:
        try:
            wait_for(lambda: "another live balancer is named balancer1" in log.read_text(), "it is refused")
            assert _balancer(fleet, "balancer1")["state"] == "connected"
        finally:
            process.terminate()
            assert process.wait(20) == 0
            subprocess.run([program, "stop", "--config", twin, "--grace", "0"], check=True, stderr=subprocess.DEVNULL)


def test_a_frozen_host_is_out_of_the_choice_though_its_workers_stay_listed(fleet: Fleet, app_script: Path) -> None:
    """Guards invariant 3: nobody of the host can say anything, its kernel goes on accepting connections; no worker is touched."""
    where = fleet.addresses(fleet.start_app(app_script, _SIZE, "--ready-path", "/healthz", name="checked"))
    before = fleet.pids("checked")
    frozen = [worker for worker in fleet.workers("checked") if worker["host"] == "host1"]
    ports, stopped = {worker["port"] for worker in frozen}, [worker["pid"] for worker in frozen]
    stopped += [pid for service, pid in fleet.daemons().items() if service in ("host1-agent", "host1-supervisor")]
    with load_on(where, fleet.folder) as load:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            wait_for(
                lambda: _hidden(fleet, "balancer1") == _hidden(fleet, "balancer2") == ports, "no check is answered"
            )
            hidden = time.monotonic()
            wait_for(lambda: _host(fleet, "host1")["state"] != "online", "the host is missed")
            (upstream,) = fleet.ask("balancer", "upstreams", "checked")
            load.wait_for_more(500)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        summary = load.stop()

    assert [endpoint["state"] for endpoint in upstream["endpoints"]] == ["ready"] * _SIZE
    # What they had until then waits for them.
    assert [failure for failure in summary["details"] if failure["began"] > hidden] == []
    assert summary["failures"].keys() <= {"timeout"}, summary["details"]
    wait_for(lambda: _host(fleet, "host1")["state"] == "online", "the host is back")
    wait_for(lambda: fleet.pids("checked") == before, "every worker is as it was")
    fleet.do("remove", "checked", "-y")


def _hidden(fleet: Fleet, balancer: str) -> set[int]:
    """The ports of the workers that the checks of a balancer's HAProxy hide."""
    config = tomllib.loads((fleet.data_dir / "balancers" / balancer / "balancer.toml").read_text())
    (socket_path,) = Path(config["runtime_dir"]).glob("haproxy-*.sock")
    (reply,) = asyncio.run(_asked(socket_path, "show servers state"))
    rows = servers_state(reply)
    return {row.target.port for row in rows if row.hidden and not row.maintenance and not row.reserve}


async def _asked(socket_path: Path, command: str) -> list[str]:
    api = RuntimeApi(socket_path)
    try:
        return await api.ask([command])
    finally:
        await api.close()


def _host(fleet: Fleet, name: str) -> dict[str, Any]:
    (found,) = [host for host in fleet.ask("host", "ls") if host["name"] == name]
    assert isinstance(found, dict)
    return found
