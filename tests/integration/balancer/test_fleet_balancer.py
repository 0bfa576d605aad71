"""fleet-balancer as a program: its own process, a real HAProxy, and a controller over mutual TLS."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from fleet.v1 import balancer_pb2
from fleet_balancer.haproxy import process
from fleet_balancer.haproxy.binary import Binary
from fleet_core.authority import issue
from fleet_core.ids import Epoch
from fleet_core.tls import Identity, Role
from tests.integration.balancer.fake_controller import HEARTBEAT_SECONDS, FakeController, to_proto
from tests.integration.balancer.harness import Connection, Load, ask, backends, eventually, get, pool
from tests.integration.full_disk import needs_mounts, small_disk
from tests.ports import free_port


class Program:
    """fleet-balancer, started and killed as often as a test likes."""

    def __init__(self, folder: Path, haproxy: Binary, controllers: list[str]) -> None:
        tls = issue(folder / "tls", Identity(Role.BALANCER, "lb1"))
        self._folder = folder
        self.runtime_dir = folder / "run"
        self.log = folder / "balancer.log"
        self.config = folder / "balancer.toml"
        self.config.write_text(
            f'name = "lb1"\ncontrollers = {controllers}\nhaproxy = "{haproxy.path}"\n'
            f'state_dir = "{folder / "state"}"\nruntime_dir = "{self.runtime_dir}"\n'
            f'[tls]\nauthority = "{tls.authority}"\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
        )
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when it told its service manager READY=1."""
        with contextlib.ExitStack() as stack:
            notify = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            notify.setblocking(False)
            path = self._folder / "notify"
            path.unlink(missing_ok=True)
            notify.bind(str(path))
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command("run"), stderr=log, env={**os.environ, "NOTIFY_SOCKET": str(path)}
                )
            async with asyncio.timeout(20):
                while b"READY=1" not in await asyncio.get_running_loop().sock_recv(notify, 4096):
                    pass

    def _command(self, verb: str) -> list[str]:
        return [sys.executable, "-m", "fleet_balancer.main", verb, "--config", str(self.config)]

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(10):
            status = await self._process.wait()
        self._process = None
        return status

    async def once(self, verb: str, *options: str) -> tuple[int, str]:
        """Run a command to its end: exit status and stderr."""
        running = await asyncio.create_subprocess_exec(
            *self._command(verb), *options, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(30):
            _, errors = await running.communicate()
        assert running.returncode is not None
        return running.returncode, errors.decode()

    def haproxies(self) -> list[int]:
        found = process.running(self.runtime_dir)
        for one in found.values():
            one.close()
        return sorted(one.pid for one in found.values())

    async def clean_up(self) -> None:
        if self._process is not None:
            await self.end(signal.SIGKILL)
        assert (await self.once("stop", "--grace", "0"))[0] == 0
        assert self.haproxies() == []


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[FakeController]:
    controller = await FakeController(tmp_path / "tls").start()
    yield controller
    await controller.stop()


@pytest.fixture
async def program(tmp_path: Path, haproxy: Binary, controller: FakeController) -> AsyncIterator[Program]:
    program = Program(tmp_path, haproxy, [controller.address])
    yield program
    await program.clean_up()


async def test_lists_are_applied_acknowledged_and_drains_reported(controller: FakeController, program: Program) -> None:
    """Guards invariant 7."""
    port = free_port()
    async with backends(2) as (old, new):
        controller.want(1, pool(port, [old]))
        await program.start()
        assert (await controller.acknowledged(1)).error == ""
        hello = controller.hellos[0]
        assert (hello.name, hello.driver) == ("lb1", "haproxy")
        assert re.fullmatch(r"\d+\.\d+\.\d+", hello.driver_version)
        held = Connection(port)
        await held.send("POST", "/hold")
        await eventually(lambda: old.requests == 1, "the request arrived")
        controller.want(2, pool(port, [new], draining=[old]))
        await controller.acknowledged(2)
        assert await get(port) == (200, new.name)
        worker = old.endpoint().worker.to_proto()

        def last_load() -> int | None:
            loads = [load for beat in controller.heartbeats[-1:] for load in beat.draining if load.worker == worker]
            return loads[0].in_flight if loads else None

        await eventually(lambda: last_load() == 1, "the request is reported")
        heard, released = len(controller.heartbeats), time.monotonic()
        old.release.set()
        assert (await held.receive())[0] == 200
        await eventually(lambda: last_load() == 0, "the end is reported")
        beats = (time.monotonic() - released) / HEARTBEAT_SECONDS
        assert len(controller.heartbeats) - heard <= beats + 3, "polling is not reporting"
        held.close()


async def test_a_restarted_program_keeps_haproxy_and_loses_no_request(
    controller: FakeController, program: Program
) -> None:
    """Guards invariant 3."""
    port = free_port()
    async with backends(3) as servers:
        controller.want(1, pool(port, servers[:2]))
        await program.start()
        await controller.acknowledged(1)
        haproxies = program.haproxies()
        async with Load(port) as load:
            for signal_number in (signal.SIGKILL, signal.SIGTERM):
                await load.more(100)
                await program.end(signal_number)
                await load.more(100)
                await program.start()
                await load.more(100)
            controller.want(2, pool(port, servers[2:]))
            await controller.acknowledged(2)
            load.answered.clear()
            await load.more(100)
            assert program.haproxies() == haproxies
        assert load.failures == []
        assert servers[2].requests >= 90
        assert len({hello.balancer_uid for hello in controller.hellos}) == 1


async def test_traffic_goes_on_after_everything_died_and_the_controller_is_away(
    controller: FakeController, program: Program
) -> None:
    port = free_port()
    async with backends(1) as servers:
        controller.want(1, pool(port, servers))
        await program.start()
        await controller.acknowledged(1)
        await controller.stop()
        await program.end(signal.SIGKILL)
        for pid in program.haproxies():
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: program.haproxies() == [], "haproxy is gone")
        await program.start()
        assert await get(port) == (200, servers[0].name)


async def test_a_lower_epoch_is_refused_even_after_a_restart(
    controller: FakeController, program: Program, tmp_path: Path
) -> None:
    """Guards invariant 4."""
    port = free_port()
    async with backends(2) as servers:
        controller.want(1, pool(port, servers[:1]))
        await program.start()
        await controller.acknowledged(1)
        address = controller.port
        await controller.stop()
        stale = FakeController(tmp_path / "tls", era=1, revision=9)
        stale.want(7, pool(port, servers[1:]))
        await stale.start(address)
        try:
            await eventually(lambda: stale.subscriptions >= 2, "the stale controller is tried and left")
            await program.end()
            await program.start()
            seen = stale.subscriptions
            await eventually(lambda: stale.subscriptions > seen, "and again after a restart")
            assert Epoch.from_proto(stale.hellos[-1].highest_epoch) == Epoch(1, 10)
            assert stale.applied == []
            assert await get(port) == (200, servers[0].name)
            stale.epoch = Epoch(1, 11)
            assert (await stale.acknowledged(7)).error == ""
            assert await get(port) == (200, servers[1].name)
        finally:
            await stale.stop()


async def test_a_follower_names_the_leader_and_is_left_for_it(
    tmp_path: Path, haproxy: Binary, controller: FakeController
) -> None:
    follower = await FakeController(tmp_path / "tls").start()
    follower.leader = controller.address
    program = Program(tmp_path, haproxy, [follower.address])
    try:
        await program.start()
        await eventually(lambda: controller.subscriptions == 1, "the leader is asked")
    finally:
        await program.clean_up()
        await follower.stop()


async def test_a_refused_pool_is_tried_again_and_acknowledged_when_its_address_is_free(
    controller: FakeController, program: Program
) -> None:
    async with backends(1) as servers:
        taken = free_port()
        with socket.create_server(("127.0.0.1", taken)):
            controller.want(1, pool(taken, servers))
            await program.start()
            assert (await controller.acknowledged(1)).error == f"127.0.0.1:{taken} is in use by another program"
            controller.say(validate={"request_id": "r1", "pool": to_proto(pool(taken, servers), 2)})
            await eventually(lambda: bool(controller.validated), "validated")
            assert controller.validated[0].request_id == "r1"
            assert "in use by another program" in controller.validated[0].error
        await eventually(lambda: controller.applied[-1].error == "", "acknowledged after all")
        assert await get(taken) == (200, servers[0].name)


async def test_stop_refuses_beside_a_running_program_and_ends_haproxy_after_it(
    controller: FakeController, program: Program
) -> None:
    await program.start()
    status, errors = await program.once("stop")
    assert status == 5
    assert "stop it first" in errors
    assert await program.end() == 0
    assert len(program.haproxies()) == 1
    assert (await program.once("stop"))[0] == 0
    assert program.haproxies() == []
    assert "Traceback" not in program.log.read_text()


async def test_a_wrong_configuration_is_one_line(program: Program) -> None:
    program.config.write_text("name = 5")
    status, errors = await program.once("run")
    assert status == 1
    assert len(errors.splitlines()) == 1
    program.config.write_text((program.config.parent / "none").as_posix())
    Program(program.config.parent, Binary(Path("/nonexistent/haproxy"), (0, 0, 0)), ["127.0.0.1:1"])
    status, errors = await program.once("run")
    assert (status, len(errors.splitlines())) == (1, 1)
    assert "/nonexistent/haproxy cannot be run" in errors


async def test_haproxy_inherits_its_listeners_and_no_connection_to_the_controller(
    controller: FakeController, program: Program
) -> None:
    port = free_port()
    async with backends(1) as servers:
        await program.start()
        await eventually(lambda: controller.subscriptions == 1, "subscribed")
        controller.want(1, pool(port, servers))
        await controller.acknowledged(1)
        connections = [one for pid in program.haproxies() for one in psutil.Process(pid).net_connections("tcp")]
        assert {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN} == {port}
        assert not [one for one in connections if one.raddr and one.raddr.port == controller.port]


@needs_mounts
async def test_a_full_disk_keeps_no_list_from_being_applied_and_is_said(
    tmp_path: Path, controller: FakeController, program: Program
) -> None:
    """Guards invariants 6 and 7."""
    port = free_port()
    with small_disk(tmp_path / "state") as disk:
        async with backends(2) as (old, new):
            controller.want(1, pool(port, [old]))
            await program.start()
            await controller.acknowledged(1)
            disk.fill()
            controller.epoch = Epoch(1, controller.epoch.election_revision + 5)
            controller.want(2, pool(port, [new]))
            assert (await controller.acknowledged(2)).error == ""
            assert await get(port) == (200, new.name)
            await eventually(
                lambda: any(
                    "cannot be written" in notice for beat in controller.heartbeats[-1:] for notice in beat.notices
                ),
                "it says so",
            )
            disk.free()
            await eventually(lambda: not controller.heartbeats[-1].notices, "it is well again")
            await program.end(signal.SIGKILL)
            await program.start()
            await eventually(
                lambda: Epoch.from_proto(controller.hellos[-1].highest_epoch) == controller.epoch, "it kept the epoch"
            )
            assert await get(port) == (200, new.name)
        await program.clean_up()


async def test_what_haproxy_refuses_is_told_to_the_controller(controller: FakeController, program: Program) -> None:
    """When it asks beforehand, and when it does not ask; the other app's list is applied."""
    port = free_port()
    async with backends(1) as servers:
        too_much = {"paths": [f"/{'a' * 500}{number}" for number in range(100)], "strip_path": True}
        web, api = pool(port, servers, hosts=("web.test",)), pool(port, servers, "api", **too_much)
        await program.start()
        await eventually(lambda: bool(controller.hellos), "it subscribed")
        controller.say(validate=balancer_pb2.Validate(request_id="1", pool=to_proto(api, 1)))
        await eventually(lambda: bool(controller.validated), "it answered")
        words = controller.validated[0].error
        assert re.fullmatch(r"HAProxy [0-9.]+ refuses the route of api: .*replace-path.*", words)
        controller.want(1, web, api)
        assert (await controller.acknowledged(1, "api")).error == words
        assert (await controller.acknowledged(1, "web")).error == ""
        assert (await ask(port, host="web.test")).status == 200


async def test_access_logs_and_metrics_of_the_program(controller: FakeController, program: Program) -> None:
    """The log lies where docs/routes.md says, and a killed fleet-balancer costs none of the lines that come later."""
    port, metrics = free_port(), free_port()
    program.config.write_text(f'metrics = "127.0.0.1:{metrics}"\n{program.config.read_text()}')
    log = program.config.parent / "state" / "access" / "web.log"
    async with backends(1) as servers:
        controller.want(1, pool(port, servers, access_log={"format": "json"}))
        await program.start()
        await controller.acknowledged(1)
        assert (await get(port, "/before"))[0] == 200
        await eventually(lambda: log.exists() and "/before" in log.read_text(), "the line")
        shown = (await ask(metrics, "/metrics")).body
        assert 'fleet_balancer_access_log_lines_total{app="web"} 1.0' in shown
        assert 'fleet_balancer_access_log_lost_total{reason="pipe_full"} 0.0' in shown
        await program.end(signal.SIGKILL)
        for number in range(20):
            assert (await get(port, f"/{number}"))[0] == 200
        await program.start()
        await eventually(lambda: log.read_text().count("\n") >= 21, "the last line")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [line["path"] for line in lines] == ["/before", *(f"/{number}" for number in range(20))]
        assert {line["worker"] for line in lines} == {str(servers[0].endpoint().worker.slot_id)}
