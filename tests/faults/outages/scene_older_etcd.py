"""After a restore, and etcd put back to an older copy, under load."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.outages.scene_lost_etcd import all_online, living, put_back, refused_with
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


def test_after_the_restore_nothing_is_confused_with_what_was_lost(fleet: Fleet, address: str) -> None:
    """Guards invariants 1, 2 and 7: numbers the lost etcd gave out are not given out again."""
    backup = fleet.folder / "fleet.backup"
    fleet.do("backup", str(backup))
    fleet.do("env-set", "my-app", "COLOUR=blue")
    fleet.start_app(MOODY_SERVER, 2, name="late")
    put_back(fleet, None)
    refused_with(fleet)
    fleet.do("restore", str(backup), "--yes")
    wait_for(lambda: all_online(fleet), "every host online again, every balancer connected", 60)
    lost = fleet.pids()
    with load_on(address, fleet.folder) as load:
        with journals_show(fleet, size=_SIZE, most_on_host=lambda _host: 3):
            fleet.do("env-set", "my-app", "COLOUR=green")
        assert_none_failed(load.stop())
    workers = fleet.workers()
    assert not lost & {worker["pid"] for worker in workers}
    assert {worker["revision"] for worker in workers} == {1_002}
    late = _pids_of(fleet, "late")
    fleet.start_app(MOODY_SERVER, 2, name="late")
    assert not late & fleet.pids("late")
    assert len(fleet.pids("late")) == 2
    assert not living(fleet, late)
    fleet.do("remove", "late", "--yes")


def test_an_older_copy_of_etcd_is_found_out_although_its_epoch_is_higher(fleet: Fleet, address: str) -> None:
    """Guards invariants 3, 4 and 6: docs/recovery.md, "etcd was put back"."""
    copy = _copied(fleet)
    fleet.do("set-size", "my-app", str(_SIZE + 2), "--yes")
    before = fleet.pids()
    current = fleet.folder / "current.backup"
    fleet.do("backup", str(current))
    with load_on(address, fleet.folder) as load:
        with journals_show(fleet, size=_SIZE + 2, most_on_host=lambda _host: 4):
            put_back(fleet, copy)
            assert "etcd is older than the fleet" in refused_with(fleet)
            assert fleet.run("backup", str(fleet.folder / "older.backup")).code == 0
            fleet.do("restore", str(current), "--yes")
            wait_for(lambda: all_online(fleet), "every host online again, every balancer connected", 60)
            load.wait_for_more(200)
        assert_none_failed(load.stop())
    assert fleet.pids() == before
    assert fleet.ask("ls")[0]["size"] == _SIZE + 2


def _copied(fleet: Fleet) -> Path:
    """etcd's folder as it is now; a member that is stopped meanwhile writes nothing."""
    _, pid = fleet.daemon("etcd")
    copy = fleet.folder / "etcd.copy"
    os.kill(pid, signal.SIGSTOP)
    try:
        shutil.copytree(fleet.data_dir / "etcd", copy)
    finally:
        os.kill(pid, signal.SIGCONT)
    return copy


def _pids_of(fleet: Fleet, app: str) -> set[int]:
    everything: list[dict[str, Any]] = fleet.ask("ps")
    return {worker["pid"] for worker in everything if worker["app"] == app}
