"""The HAProxy driver with a real HAProxy, under load."""

import asyncio
import os
import signal
import socket
from functools import partial
from pathlib import Path

import pytest

from fleet_balancer.driver import DriverError, Endpoint, Target
from fleet_balancer.haproxy import process
from fleet_balancer.haproxy.binary import Binary
from fleet_balancer.haproxy.driver import HaproxyDriver
from fleet_core.ids import WorkerId
from tests.integration.balancer.harness import Backend, Connection, Load, backends, eventually, get, pool
from tests.ports import free_port


async def test_a_hundred_list_changes_under_load_lose_no_request(driver: HaproxyDriver) -> None:
    """Guards invariant 7."""
    port = free_port()
    async with backends(6) as servers:
        await driver.start({"web": pool(port, servers[:3])})
        pid = driver.pid
        async with Load(port) as load:
            for turn in range(100):
                first, second = turn % 6, (turn + 1) % 6
                listed = [server for index, server in enumerate(servers) if index not in (first, second)]
                assert await driver.apply({"web": pool(port, listed, draining=[servers[second]])}) == {}
                await asyncio.sleep(0.005)
            await load.more(200)
        assert load.failures == []
        assert set(load.answered) == {server.name for server in servers}
        assert driver.pid == pid, "no reload"
        assert max(servers[0].posts.values()) == 1


async def drained(driver: HaproxyDriver, port: int, rest: list[Backend], leaving: Backend) -> None:
    """Apply `rest` with `leaving` draining; return when what it had in flight ended."""
    assert await driver.apply({"web": pool(port, rest, draining=[leaving])}) == {}
    await eventually(partial(_in_flight_is, driver, ("web", leaving.endpoint().worker), 0), "the drain ends")


async def test_a_removed_endpoint_gets_nothing_after_apply(driver: HaproxyDriver) -> None:
    """Guards invariant 7."""
    port = free_port()
    async with backends(3) as servers:
        await driver.start({"web": pool(port, servers)})
        async with Load(port) as load:
            for removed in servers:
                rest = [one for one in servers if one is not removed]
                await drained(driver, port, rest, removed)
                before = removed.requests
                await load.more(50)
                await driver.apply({"web": pool(port, rest)})
                await load.more(100)
                assert removed.requests == before
        assert load.failures == []


async def test_a_new_pool_under_load_disturbs_no_other(driver: HaproxyDriver) -> None:
    port, other = free_port(), free_port()
    async with backends(3) as servers:
        await driver.start({"web": pool(port, servers[:2])})
        first = driver.pid
        async with Load(port) as load:
            await load.more(50)
            both = {"web": pool(port, servers[:2]), "api": pool(other, servers[2:], "api")}
            assert await driver.apply(both) == {}
            assert await get(other) == (200, servers[2].name)
            assert driver.pid != first
            await load.more(300)
            assert await driver.apply({"web": pool(port, servers[:2])}) == {}
            await load.more(300)
            with pytest.raises(ConnectionRefusedError):
                await get(other)
        assert load.failures == []
        # Whoever was connected to the processes before has gone by now: they end.
        await eventually(lambda: len(process_numbers(driver)) == 1, "retired processes end")


def process_numbers(driver: HaproxyDriver) -> list[int]:
    found = process.running(driver._runtime_dir)
    for one in found.values():
        one.close()
    return sorted(found)


async def test_a_pool_that_outgrows_its_slots_loses_no_request(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(18) as servers:
        await driver.start({"web": pool(port, servers[:2])})
        first = driver.pid
        async with Load(port) as load:
            await load.more(50)
            assert await driver.apply({"web": pool(port, servers)}) == {}
            assert driver.pid != first, "no slot was free"
            await load.more(300)
            assert set(load.answered) == {server.name for server in servers}
        assert load.failures == []


async def test_connections_made_while_a_killed_haproxy_is_away_are_served_by_the_next(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(2) as servers:
        await driver.start({"web": pool(port, servers)})
        for _ in range(3):
            pid = driver.pid
            os.kill(pid, signal.SIGKILL)
            answers = await asyncio.gather(*(get(port) for _ in range(20)), return_exceptions=True)
            # A connection the dying process had accepted may be reset; every other is served.
            assert sum(isinstance(answer, BaseException) for answer in answers) <= 1, answers
            await eventually(lambda: driver.pid != pid, "the next process is known")  # noqa: B023
            assert (await get(port))[0] == 200


async def test_a_killed_backend_loses_no_get_and_replays_no_post(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(4) as servers:
        await driver.start({"web": pool(port, servers)})
        async with Load(port, clients=16) as load:
            for server in servers[:3]:
                await load.more(200)
                old_port = server.port
                await server.stop()
                await load.more(200)
                await server.start(old_port)
                await eventually(partial(_chosen, load, server), "the returned backend is used again")
        assert [failure for failure in load.failures if failure.startswith("GET")] == []
        assert max(servers[0].posts.values()) == 1


def _chosen(load: Load, server: Backend) -> bool:
    seen = load.answered.pop(server.name, 0)
    return seen > 0


async def test_an_app_that_closes_idle_connections_early_loses_no_post(driver: HaproxyDriver) -> None:
    """The server closes each connection after 50 ms of silence; clients pause for about that long."""
    port = free_port()
    async with backends(2, idle_timeout=0.05) as servers:
        await driver.start({"web": pool(port, servers)})
        async with Load(port, clients=16, post_share=2, pause=0.05) as load:
            await load.more(1500)
        assert load.failures == []
        assert max(servers[0].posts.values()) == 1


async def test_requests_in_flight_of_a_draining_endpoint_are_counted_truthfully(driver: HaproxyDriver) -> None:
    """Guards invariant 7."""
    port, other = free_port(), free_port()
    async with backends(2) as servers:
        old, new = servers
        await driver.start({"web": pool(port, [old])})
        idle = Connection(port)
        assert await idle.get() == (200, old.name)
        held, streaming, upgraded = Connection(port), Connection(port), Connection(port)
        await held.send("POST", "/hold")
        await streaming.send(path="/stream")
        assert (await streaming.receive_head())[0] == 200
        await upgraded.send(path="/", headers="Connection: Upgrade\r\nUpgrade: echo\r\n")
        assert (await upgraded.receive_head())[0] == 101
        key = ("web", old.endpoint().worker)
        after = {"web": pool(port, [new], draining=[old])}
        await driver.apply(after)
        await eventually(lambda: old.requests == 4, "all requests arrived")
        assert await driver.in_flight() == {key: 3}, "the idle pooled connection is none"
        assert await idle.get() == (200, new.name)
        # A reload beside it changes nothing: the retired process is counted too.
        await driver.apply({**after, "api": pool(other, [new], "api")})
        assert await driver.in_flight() == {key: 3}
        upgraded.write(b"echo")
        assert await upgraded.read(4) == b"echo"
        upgraded.close()
        await eventually(lambda: _in_flight_is(driver, key, 2), "the upgraded connection ended")
        old.release.set()
        assert (await held.receive())[0] == 200
        await eventually(lambda: _in_flight_is(driver, key, 0), "the drain ends")
        for connection in (idle, held, streaming):
            connection.close()


async def _in_flight_is(driver: HaproxyDriver, key: tuple[str, WorkerId], count: int) -> bool:
    return (await driver.in_flight())[key] == count


async def test_a_client_kept_by_a_retired_process_still_gets_the_present_list(driver: HaproxyDriver) -> None:
    """Guards invariant 7."""
    port, other = free_port(), free_port()
    async with backends(2) as servers:
        await driver.start({"web": pool(port, servers[:1])})
        kept = [Connection(port) for _ in range(2)]
        for connection in kept:
            assert (await connection.get())[1] == servers[0].name
        await driver.apply({"web": pool(port, servers), "api": pool(other, servers, "api")})
        await driver.apply({"web": pool(port, servers[1:]), "api": pool(other, servers, "api")})
        for connection in kept:
            assert await connection.get() == (200, servers[1].name)
            connection.close()


async def test_a_retired_process_goes_on_for_the_longest_timeout_of_its_routes_and_then_ends(
    tmp_path: Path, haproxy: Binary
) -> None:
    """Though a client is connected, whose stream is never silent for so long."""
    driver = HaproxyDriver(tmp_path, haproxy, retired_for=0.1)
    ports = [free_port() for _ in range(3)]
    short = {f"{name}_seconds": 1 for name in ("client", "connect", "queue", "server", "tunnel")}
    try:
        async with backends(1) as servers:
            streams = []
            for wanted in (
                {"web": pool(ports[0], servers)},
                {"api": pool(ports[1], servers, "api", timeouts=short)},
                {"new": pool(ports[2], servers, "new")},
            ):
                await (driver.apply(wanted) if streams else driver.start(wanted))
                streams.append(Connection(ports[len(streams)]))
                await streams[-1].send("GET", "/stream")
                assert (await streams[-1].receive_head())[0] == 200
            async with asyncio.timeout(20):
                with pytest.raises((OSError, asyncio.IncompleteReadError)):
                    await streams[1].read(1 << 20)  # more than there will ever be
            await eventually(lambda: len(process_numbers(driver)) == 2, "it ended")
            # The one that was retired before it has routes that wait for an hour.
            await streams[0].read(100)
            for stream in streams:
                stream.close()
    finally:
        await driver.stop(0)


async def test_a_new_driver_adopts_the_running_haproxy_without_a_lost_request(
    tmp_path: Path, haproxy: Binary, driver: HaproxyDriver
) -> None:
    port = free_port()
    async with backends(4) as servers:
        await driver.start({"web": pool(port, servers[:2])})
        pid = driver.pid
        async with Load(port) as load:
            await load.more(50)
            await driver.close()
            successor = HaproxyDriver(tmp_path, haproxy)
            await successor.start({"web": pool(port, servers[1:3], draining=[servers[0], servers[3]])})
            assert successor.pid == pid
            await drained(successor, port, servers[1:3], servers[0])
            before = servers[0].requests
            await load.more(200)
            assert servers[0].requests == before
            observed = {one.target for one in await successor.observed() if not one.draining}
            assert observed == {one.target for one in servers[1:3]}
        assert load.failures == []
        # It holds the listener too.
        os.kill(pid, signal.SIGKILL)
        assert (await get(port))[0] == 200
        await successor.close()


async def test_an_address_in_use_is_refused_in_one_line_and_the_rest_goes_on(driver: HaproxyDriver) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        async with backends(2) as servers:
            refused = await driver.start({"web": pool(port, servers), "api": pool(taken, servers, "api")})
            assert refused == {"api": f"127.0.0.1:{taken} is in use by another program"}
            assert (await get(port))[0] == 200
            with pytest.raises(DriverError, match="in use by another program"):
                await driver.validate(pool(taken, servers, "api"))
            with pytest.raises(DriverError, match=f"127.0.0.1:{port} is the route of web already"):
                await driver.validate(pool(port, servers, "api"))
            await driver.validate(pool(free_port(), servers, "api"))
            await driver.validate(pool(port, servers))
            # A refused version leaves the one before.
            assert list(await driver.apply({"web": pool(taken, servers[:1])})) == ["web"]
            assert (await get(port))[0] == 200


async def test_a_pool_with_no_ready_endpoint_answers_503_and_serves_at_once_when_one_comes(
    driver: HaproxyDriver,
) -> None:
    port = free_port()
    async with backends(1) as servers:
        await driver.start({"web": pool(port, [])})
        assert (await get(port))[0] == 503
        await driver.apply({"web": pool(port, servers)})
        assert await get(port) == (200, servers[0].name)


async def test_health_checks_hide_a_dead_endpoint_and_show_it_again(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(2) as servers:
        await driver.start({"web": pool(port, servers)})
        dead_port = servers[0].port
        await servers[0].stop()

        async def hidden() -> bool:
            return [one.target for one in await driver.observed() if one.hidden] == [Target("127.0.0.1", dead_port)]

        async def shown() -> bool:
            return not any(one.hidden for one in await driver.observed())

        await eventually(hidden, "hidden")
        await servers[0].start(dead_port)
        await eventually(shown, "shown again")


async def test_the_address_of_the_client_is_passed_on(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(1) as servers:
        await driver.start({"web": pool(port, servers)})
        assert await get(port, "/forwarded") == (200, "127.0.0.1")


async def test_a_pool_without_a_route_needs_nothing_of_haproxy(driver: HaproxyDriver) -> None:
    async with backends(1) as servers:
        assert await driver.start({"worker": pool(None, [], "worker", draining=servers)}) == {}
        assert await driver.in_flight() == {("worker", servers[0].endpoint("worker").worker): 0}


async def test_two_processes_found_after_a_kill_in_mid_reload_become_one(
    tmp_path: Path, haproxy: Binary, driver: HaproxyDriver
) -> None:
    port = free_port()
    async with backends(2) as servers:
        wanted = {"web": pool(port, servers)}
        await driver.start(wanted)
        first = driver.pid
        async with Load(port) as load:
            await load.more(50)
            # As far as a reload gets before the old process is retired.
            half = await driver._started(wanted, {})
            await half.close()
            await driver.close()
            successor = HaproxyDriver(tmp_path, haproxy)
            await successor.start({"web": pool(port, servers[1:])})
            assert successor.pid == half.process.pid != first
            await drained(successor, port, servers[1:], servers[0])
            before = servers[0].requests
            await load.more(200)
            assert servers[0].requests == before, "the older process follows the list too"
        assert load.failures == []
        await eventually(lambda: process_numbers(successor) == [2], "the older process ends")
        await successor.close()


async def test_an_unreachable_host_is_tried_elsewhere_and_hidden(driver: HaproxyDriver) -> None:
    port = free_port()
    # A listener whose queue is full answers no SYN: as a host without power.
    with socket.socket() as dead, socket.socket() as one, socket.socket() as two:
        dead.bind(("127.0.0.1", 0))
        dead.listen(0)
        for client in (one, two):
            client.setblocking(False)
            client.connect_ex(dead.getsockname())
        target = Target("127.0.0.1", dead.getsockname()[1])
        async with backends(2) as servers:
            lost = Endpoint(WorkerId("web", "gone", 1, 1), target)
            await driver.start({"web": pool(port, [*servers, lost])})
            async with Load(port) as load:

                async def hidden() -> bool:
                    return [one.target for one in await driver.observed() if one.hidden] == [target]

                await eventually(hidden, "hidden")
                await load.more(200)
            assert load.failures == []


async def test_list_changes_go_on_while_haproxy_is_killed_again_and_again(driver: HaproxyDriver) -> None:
    port = free_port()
    async with backends(4) as servers:
        await driver.start({"web": pool(port, servers)})
        killed: set[int] = set()
        for turn in range(30):
            if turn % 10 == 5:
                killed.add(driver.pid)
                os.kill(driver.pid, signal.SIGKILL)
            listed = [servers[turn % 4], servers[(turn + 1) % 4]]
            wanted = {"web": pool(port, listed)}

            async def applied() -> bool:
                return not await driver.apply(wanted)  # noqa: B023 (awaited in this turn)

            await eventually(applied, "the list is applied")
            assert {(await get(port))[1] for _ in range(4)} <= {one.name for one in listed}
        assert len(killed) == 3
        assert driver.pid not in killed
