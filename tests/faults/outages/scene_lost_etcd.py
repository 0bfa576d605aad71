"""etcd loses what it held, or is put back to an older copy, under load: found out, acted on by nobody, mended by `restore`."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet.harness import MOODY_SERVER, Fleet, load_on, wait_for
from tests.integration.fleet.judge import assert_none_failed, journals_show

_SIZE = 4


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet"), hosts=2) as running:
        running.start()
        yield running


@pytest.fixture(scope="module")
def address(fleet: Fleet) -> str:
    return fleet.start_app(MOODY_SERVER, _SIZE)


def test_a_lost_etcd_is_restored_from_a_backup_and_no_worker_notices(fleet: Fleet, address: str) -> None:
    """Guards invariants 3, 4, 6 and 10: docs/recovery.md, "etcd is lost"."""
    backup = fleet.folder / "fleet.backup"
    fleet.do("backup", str(backup))
    assert backup.stat().st_mode & 0o777 == 0o600

    # What the backup does not know: a newer revision of the app, and another app.
    fleet.do("env-set", "my-app", "COLOUR=blue")
    late = fleet.start_app(MOODY_SERVER, 2, name="late")
    before, late_before = fleet.pids(), fleet.pids("late")
    with load_on(address, fleet.folder) as load, load_on(late, fleet.folder) as late_load:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 3):
            put_back(fleet, None)
            refused = refused_with(fleet)
            assert "etcd is older than the fleet: it is empty" in refused
            assert "fleetctl restore FILE" in refused
            load.wait_for_more(200)

            output = fleet.do("restore", str(backup), "--yes")
            assert "restored: era 2" in output
            wait_for(lambda: all_online(fleet), "every host online again, every balancer connected", 60)
            load.wait_for_more(200)
            late_load.wait_for_more(200)
        assert_none_failed(load.stop())
        assert_none_failed(late_load.stop())

    assert fleet.pids() == before
    assert [app["size"] for app in fleet.ask("ls")] == [_SIZE]
    status = fleet.ask("status")
    assert any("late runs on host1, host2, and etcd knows nothing of it" in notice for notice in status["notices"])
    assert living(fleet, late_before)


def test_a_damaged_backup_is_refused_in_one_line(fleet: Fleet, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    fleet.do("backup", str(damaged))
    damaged.write_bytes(damaged.read_bytes()[:-300])
    refused = fleet.run("restore", str(damaged), "--yes")
    assert refused.code == 1
    assert refused.error_lines == [
        f"fleetctl: {damaged}: it is damaged or cut off: its digest is not that of its content"
    ]


def put_back(fleet: Fleet, copy: Path | None) -> None:
    """etcd is killed and finds this folder when it comes again; None: an empty one."""
    service, pid = fleet.daemon("etcd")
    os.kill(pid, signal.SIGSTOP)
    shutil.move(fleet.data_dir / "etcd", fleet.folder / f"etcd.lost-{pid}")
    if copy is not None:
        shutil.move(copy, fleet.data_dir / "etcd")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: fleet.daemons().get(service, pid) != pid, "etcd started again")


def refused_with(fleet: Fleet) -> str:
    """What a change is refused with, once the controller says that nothing is acted on; it must be one line, and exit code 5."""

    def notices() -> list[str]:
        status = fleet.run("status", "-o", "json")
        return json.loads(status.output)["notices"] if status.code == 0 else []

    wait_for(
        lambda: any("older than the fleet" in notice for notice in notices()), "status says that etcd is older", 60
    )
    refused = fleet.run("host", "cordon", "host1")
    assert refused.code == 5, refused
    (line,) = refused.error_lines
    assert "etcd is older than the fleet" in fleet.run("info").output.replace("\n", " ")
    return line


def all_online(fleet: Fleet) -> bool:
    answers = [fleet.run(*command, "-o", "json") for command in (("host", "ls"), ("balancer", "ls"))]
    if any(answer.code for answer in answers):
        return False
    states = [thing["state"] for answer in answers for thing in json.loads(answer.output)]
    return states == ["online", "online", "connected"]


def living(fleet: Fleet, pids: set[int]) -> bool:
    return pids <= set(fleet.processes()) if pids else False
