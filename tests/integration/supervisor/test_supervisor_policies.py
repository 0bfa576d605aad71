"""What a launch may ask for beside its program: policy, identity, limits, and how its lines are kept."""

import asyncio
import json
import os
import pwd
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from fleet_agent.supervisor.protocol import Key
from tests.integration.supervisor.running import KEY, RunningSupervisor, alive, eventually, launch, python

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers as somebody else")
WHO = "id -u; id -g; id -G; umask; nice; ulimit -Sn; ulimit -Hn; echo reopened > /dev/stdout"


async def test_a_worker_that_exits_well_stays_down_under_on_failure(host: RunningSupervisor) -> None:
    wanted = launch("true", restart_mode="on_failure")
    await host.client.run(KEY, wanted)
    ended = await host.until(lambda seen: seen.state == "exited")
    assert (ended.reason, ended.restarts) == ("exit code 0", 0)
    await host.client.run(KEY, wanted)
    assert (await host.client.hello()).workers[0].state == "exited"
    await host.client.run(KEY, launch("sleep", "1000", restart_mode="on_failure"))
    await host.until(lambda seen: seen.pid > 0)


async def test_a_stop_exit_code_ends_a_worker_that_is_always_restarted(host: RunningSupervisor, tmp_path: Path) -> None:
    script = "if [ -e again ]; then exit 9; fi; touch again; exit 1"
    await host.client.run(KEY, launch("sh", "-c", script, cwd=tmp_path, stop_exit_codes=[9]))
    ended = await host.until(lambda seen: seen.state == "exited")
    assert (ended.reason, ended.restarts) == ("exit code 9", 1)


@root_only
async def test_a_worker_runs_as_its_user_within_its_limits(host: RunningSupervisor) -> None:
    limits = {"NOFILE": [100, 200]}
    wanted = launch("sh", "-c", WHO, user="nobody", umask=0o077, nice=5, resource_limits=limits, restart_mode="never")
    await host.client.run(KEY, wanted)
    await host.until(lambda seen: seen.state == "exited")
    await eventually(lambda: host.log().endswith("reopened\n"), "it printed")
    nobody = pwd.getpwnam("nobody")
    groups = os.getgrouplist("nobody", nobody.pw_gid)
    uid, gid, all_groups, *rest = host.log().splitlines()
    assert (int(uid), int(gid), {int(group) for group in all_groups.split()}) == (
        nobody.pw_uid,
        nobody.pw_gid,
        set(groups),
    )
    assert rest == ["0077", "5", "100", "200", "reopened"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"user": "no-such-user"}, "no user is named no-such-user on this host"),
        ({"user": "no-such-user", "notify": True}, "no user is named no-such-user on this host"),
        ({"user": "54321"}, "user 54321 is no account of this host: name a group as well"),
        ({"group": "no-such-group"}, "no group is named no-such-group on this host"),
        ({"resource_limits": {"NONSENSE": [1, 1]}}, "resource limit NONSENSE is not known on this host"),
        (
            {"resource_limits": {"NOFILE": [1024, 2**40]}},
            "resource limit NOFILE=1024:1099511627776: Operation not permitted",
        ),
    ],
)
async def test_what_a_host_cannot_give_is_told_in_words(
    host: RunningSupervisor, changes: dict[str, Any], reason: str
) -> None:
    await host.client.run(KEY, launch("sleep", "1000", max_restarts=0, **changes))
    failed = await host.until(lambda seen: seen.state == "failed")
    assert failed.reason.startswith(reason)


async def test_lines_are_stamped_with_the_time_they_were_read(host: RunningSupervisor) -> None:
    script = "echo one; printf two; sleep 0.1; echo ' more'; echo three"
    await host.client.run(KEY, launch("sh", "-c", script, log_timestamps=True, restart_mode="never"))
    await host.until(lambda seen: seen.state == "exited")
    await eventually(lambda: host.log().endswith("three\n"), "all is written")
    lines = [re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (.*)", line) for line in host.log().splitlines()]
    assert [line and line[1] for line in lines] == ["one", "two more", "three"]


async def test_lines_are_json_objects_where_asked(host: RunningSupervisor) -> None:
    await host.client.run(KEY, launch("sh", "-c", "echo 'say \"hi\"' >&2", log_json=True, restart_mode="never"))
    await host.until(lambda seen: seen.state == "exited")
    await eventually(lambda: host.log(stream="err").endswith("\n"), "it is written")
    value = json.loads(host.log(stream="err"))
    assert (value["app"], value["slot"], value["stream"], value["message"]) == ("shop", 1, "err", 'say "hi"')


async def test_stamped_lines_survive_rotation_complete(host: RunningSupervisor, tmp_path: Path) -> None:
    source = (
        "import time\nfor n in range(50_000): print('line', n, 'x' * 80)\nprint('end', flush=True); time.sleep(1000)"
    )
    await host.run(python(source, tmp_path, log_timestamps=True, log_max_bytes=400_000, log_files=30))
    await eventually(lambda: host.log().endswith("end\n"), "all is written")
    assert [int(line.split()[2]) for line in host.log().splitlines()[:-1]] == list(range(50_000))


async def test_a_log_is_rotated_by_age(host: RunningSupervisor, tmp_path: Path) -> None:
    script = "while true; do echo line; sleep 0.05; done"
    await host.run(launch("sh", "-c", script, log_max_age_seconds=0.5, log_files=100))
    await eventually(lambda: (host.log_dir / "shop" / "1.out.log.1").exists(), "it is rotated")


async def test_a_killed_spare_child_harms_no_start(host: RunningSupervisor) -> None:
    worker = await host.run(launch("sleep", "1000"))
    children = Path(f"/proc/{host.pid}/task/{host.pid}/children")

    def spares() -> list[int]:
        return [int(pid) for pid in children.read_text().split() if int(pid) != worker.pid]

    await eventually(lambda: len(spares()) == 1, "a child waits for the next start")
    spare = spares()[0]
    os.kill(spare, signal.SIGKILL)
    await eventually(lambda: not alive(spare), "it is gone")
    os.kill(worker.pid, signal.SIGKILL)
    new = await host.until(lambda seen: seen.pid not in {0, worker.pid})
    assert (new.restarts, new.reason) == (1, "killed by SIGKILL")


async def test_a_waiting_child_ends_with_its_supervisor(host: RunningSupervisor) -> None:
    worker = await host.run(launch("sleep", "1000"))
    children = Path(f"/proc/{host.pid}/task/{host.pid}/children")
    await eventually(lambda: len(children.read_text().split()) == 2, "a child waits for the next start")
    (spare,) = [int(pid) for pid in children.read_text().split() if int(pid) != worker.pid]
    await host.kill()
    await eventually(lambda: not alive(spare), "nothing tells it what to become")
    assert alive(worker.pid)


async def test_an_environment_of_half_a_mebibyte_reaches_the_program(host: RunningSupervisor, tmp_path: Path) -> None:
    wanted = launch("sh", "-c", "env | wc -c > size; sleep 1000", cwd=tmp_path)
    wanted.env.update({f"BALLAST_{number}": "x" * 60_000 for number in range(8)})
    await host.run(wanted)
    size = tmp_path / "size"
    await eventually(lambda: size.exists() and size.read_text() != "", "it runs")
    assert int(size.read_text()) > 480_000


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open('daemon', 'w').write(str(os.getpid()))
        time.sleep(1000)
    os._exit(0)
os.wait()
time.sleep(1000)
"""


async def _with_daemon(host: RunningSupervisor, folder: Path, key: Key) -> tuple[int, int]:
    """(pid of the worker, of the daemon it left)."""
    folder.mkdir()
    wanted = python(DAEMON, folder)
    wanted.env.update(FLEET_WORKER_ID=str(key.slot), FLEET_GENERATION="1")
    worker = await host.run(wanted, key)
    file = folder / "daemon"
    await eventually(lambda: file.exists() and file.read_text() != "", "the daemon runs")
    return worker.pid, int(file.read_text())


async def test_a_daemon_that_left_its_session_ends_with_its_worker_and_no_other(
    host: RunningSupervisor, tmp_path: Path
) -> None:
    other = Key("shop", 2, 1)
    _, daemon = await _with_daemon(host, tmp_path / "one", KEY)
    other_worker, other_daemon = await _with_daemon(host, tmp_path / "two", other)
    await host.client.stop(KEY, signal.SIGTERM, 10)
    await host.until(lambda seen: seen.state == "exited")
    assert not alive(daemon)
    assert alive(other_daemon)
    (tmp_path / "two" / "daemon").unlink()
    await asyncio.sleep(0.02)  # two ticks: what began in the tick of the crash is let live
    os.kill(other_worker, signal.SIGKILL)
    await eventually(lambda: not alive(other_daemon), "the daemon of the crashed process is killed")
    file = tmp_path / "two" / "daemon"
    await eventually(lambda: file.exists() and file.read_text() != "", "the new process has a daemon")
    await host.client.hello()
    assert alive(int(file.read_text()))
