"""What holds for the supervisor as a whole: its socket, its logs, its appetite."""

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest

from fleet_agent.supervisor.protocol import Key, encode
from fleet_agent.supervisor_client import SupervisorClient, SupervisorRefusedError, SupervisorUnavailable
from tests.integration.supervisor.running import KEY, MAIN, RunningSupervisor, alive, eventually, launch, python

SLEEP = launch("sleep", "1000")
FLOOD = "import os\nwhile True: os.write(1, b'flood flood flood flood\\n' * 200)"
MANY_LINES = (
    "import time\nfor n in range({lines}): print('line', n, 'x' * 80)\nprint('end', flush=True); time.sleep(1000)"
)


async def test_the_socket_is_for_its_owner_only(host: RunningSupervisor) -> None:
    assert (host.runtime_dir / "supervisor.sock").stat().st_mode & 0o777 == 0o600


async def test_every_client_hears_of_every_change(host: RunningSupervisor) -> None:
    second = SupervisorClient()
    await second.connect(host.runtime_dir / "supervisor.sock")
    await second.hello()
    worker = await host.run(SLEEP)
    async with asyncio.timeout(20):
        async for event in second.events():
            assert event.worker.pid == worker.pid  # type: ignore[union-attr]
            break
    await second.close()


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"request": "dance"}, "request 'dance' is not known to protocol 1"),
        ({"request": "run", "key": {"app": "../x", "slot": 1, "generation": 1}}, "may only hold"),
        ({"request": "run", "key": {"app": "x", "slot": 0, "generation": 1}}, "out of range"),
        ({"request": "run", "key": KEY._asdict()}, "launch is missing"),
        ({"request": "run", "key": KEY._asdict(), "launch": {"argv": [], "cwd": "/", "env": {}}}, "argv is empty"),
        ({"request": "run", "key": KEY._asdict(), "launch": {"argv": ["a\0"], "cwd": "/", "env": {}}}, "without NUL"),
        ({"request": "stop", "key": KEY._asdict(), "signal": 99, "grace_seconds": 1}, "not a signal number"),
        ({"request": "stop", "key": KEY._asdict(), "signal": 15, "grace_seconds": -1}, "not negative"),
    ],
)
async def test_a_request_without_sense_is_refused_and_changes_nothing(
    host: RunningSupervisor, fields: dict[str, object], error: str
) -> None:
    name = str(fields["request"])
    with pytest.raises(SupervisorRefusedError, match=error):
        await host.client.request(name, 10.0, **{key: value for key, value in fields.items() if key != "request"})
    assert (await host.client.hello()).workers == []


async def test_bytes_that_are_no_message_close_that_connection_only(host: RunningSupervisor) -> None:
    reader, writer = await asyncio.open_unix_connection(str(host.runtime_dir / "supervisor.sock"))
    writer.write(b"\xff\xff\xff\xffnonsense")
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    await host.client.hello()


async def test_a_client_that_does_not_read_is_dropped(host: RunningSupervisor) -> None:
    wanted = launch("sleep", "1000", extra={"ballast": "x" * 500_000})
    await host.run(wanted)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(host.runtime_dir / "supervisor.sock"))
        deaf.settimeout(20)
        hellos = encode({"id": 1, "request": "hello", "protocol": 1}) * 10_000
        received = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            deaf.sendall(hellos)
            await host.client.hello()
            while data := deaf.recv(1 << 20):
                received += len(data)
        assert received < 64 * 1024 * 1024, "what waits for one client is bounded"
    await host.client.hello()


async def test_a_flooding_worker_keeps_the_supervisor_from_neither_requests_nor_restarts(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    flooding = Key("flood", 1, 1)
    await host.run(python(FLOOD, tmp_path, log_max_bytes=1_000_000, log_files=1), flooding)
    log = host.log_dir / "flood" / "1.out.log"
    await eventually(lambda: log.with_suffix(".log.1").exists(), "it floods")
    worker = await host.run(SLEEP)
    os.kill(worker.pid, signal.SIGKILL)
    await host.until(lambda seen: seen.pid not in {0, worker.pid})
    await host.client.stop(flooding, signal.SIGKILL, 1)
    await host.until(lambda seen: seen.state == "exited", flooding)
    # Until it is forgotten, what is left in its pipe may be written yet, and its files renamed under us.
    await host.client.forget(flooding)
    assert sum(path.stat().st_size for path in log.parent.iterdir()) < 6_000_000


async def test_rotation_loses_and_cuts_no_line(host: RunningSupervisor, tmp_path: Path) -> None:
    lines = 50_000
    await host.run(python(MANY_LINES.format(lines=lines), tmp_path, log_max_bytes=300_000, log_files=30))
    await eventually(lambda: host.log().endswith("end\n"), "all is written")
    files = [path for path in (host.log_dir / "shop").iterdir() if path.name.startswith("1.out")]
    assert len(files) > 2
    assert [int(line.split()[1]) for line in host.log().splitlines()[:-1]] == list(range(lines))


async def test_stdout_and_stderr_are_apart_and_the_last_words_of_a_crash_are_kept(host: RunningSupervisor) -> None:
    await host.client.run(KEY, launch("sh", "-c", "echo to out; echo to err >&2; exit 1", max_restarts=0))
    await host.until(lambda seen: seen.state == "failed")
    await eventually(lambda: host.log() == "to out\n" and host.log(stream="err") == "to err\n", "both are written")


async def test_the_stop_command_stops_every_worker_and_leaves_the_supervisor(host: RunningSupervisor) -> None:
    worker = await host.run(SLEEP)
    command = await asyncio.create_subprocess_exec(
        *MAIN, "stop", "--runtime-dir", str(host.runtime_dir), "--grace-seconds", "5"
    )
    assert await asyncio.wait_for(command.wait(), 20) == 0
    assert not alive(worker.pid)
    assert (await host.client.hello()).workers[0].state == "exited"


async def test_the_stop_command_says_what_to_do_where_nobody_answers(tmp_path: Path) -> None:
    command = await asyncio.create_subprocess_exec(
        *MAIN, "stop", "--runtime-dir", str(tmp_path), stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(command.communicate(), 20)
    assert command.returncode == 1
    assert len(said.splitlines()) == 1
    assert b"start `fleet-supervisor run`" in said


async def test_readiness_is_told_to_the_service_manager_once_it_listens(
    folders: RunningSupervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        await folders.start()
        assert manager.recv(100) == b"READY=1"


async def test_an_idle_supervisor_never_wakes_up_and_is_small(host: RunningSupervisor) -> None:
    workers = [await host.run(SLEEP, Key("shop", slot, 1)) for slot in range(1, 33)]

    def wake_ups() -> int:
        status = Path(f"/proc/{host.pid}/status").read_text()
        return int(status.split("voluntary_ctxt_switches:")[1].split()[0])

    children = Path(f"/proc/{host.pid}/task/{host.pid}/children")
    await eventually(lambda: len(children.read_text().split()) == 32 + 1, "a child waits for the next start")
    programs = [Path(f"/proc/{worker.pid}/comm") for worker in workers]
    # Each execve is told to the supervisor, and on a busy machine the last may come after the waiting child was made.
    await eventually(lambda: all(path.read_text() == "sleep\n" for path in programs), "all run their program")
    await host.client.hello()
    before = wake_ups()
    await asyncio.sleep(1.5)
    assert wake_ups() - before <= 1
    rollup = Path(f"/proc/{host.pid}/smaps_rollup").read_text()
    assert int(rollup.split("Pss:")[1].split()[0]) < 15 * 1024


async def test_a_client_learns_that_the_supervisor_is_gone(host: RunningSupervisor) -> None:
    await host.kill()
    with pytest.raises(SupervisorUnavailable, match="not connected"):
        await host.client.run(KEY, SLEEP)
    with pytest.raises(SupervisorUnavailable):
        async for _ in host.client.events():
            pass
    with pytest.raises(SupervisorUnavailable, match="does not answer"):
        await SupervisorClient().connect(host.runtime_dir / "supervisor.sock")
