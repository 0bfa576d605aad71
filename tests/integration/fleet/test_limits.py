"""Limits of the kernel's, through `fleetctl up --cgroup DIR`, on a cgroup v2 tree with or without controllers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cgroup_mount import writable_mount
from tests.integration.fleet.harness import Fleet, wait_for


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    mount = writable_mount()
    if mount is None or os.geteuid() != 0:
        pytest.skip("needs root and a writable cgroup v2 mount")
    folder = mount / f"fleet-test-{os.getpid()}-{tmp_path.name}"
    yield folder
    if folder.exists():
        folder.rmdir()


def test_each_worker_has_a_cgroup_of_its_own_below_its_hosts(tmp_path: Path, tree: Path) -> None:
    with Fleet(tmp_path / "fleet", 2, options=("--cgroup", str(tree))) as fleet:
        fleet.start()
        fleet.do("start", "sleep", "-n", "job", "-i", "2", "--listen", "none", "--", "1000")
        for worker in fleet.workers("job"):
            leaf = tree / worker["host"] / f"job.{worker['slot']}.1"
            wait_for(lambda leaf=leaf: (leaf / "cgroup.procs").read_text().split(), "it has joined")  # type: ignore[misc]
            assert (leaf / "cgroup.procs").read_text().split() == [str(worker["pid"])]
        limited = fleet.run("start", "sleep", "-n", "small", "--listen", "none", "--memory-limit", "64M", "--", "1000")
        if "memory" in (tree / "cgroup.controllers").read_text().split():
            assert limited.code == 0, limited.errors
            (worker,) = fleet.workers("small")
            limit = tree / worker["host"] / "small.1.1" / "memory.max"
            assert limit.read_text() == f"{64 << 20}\n"
        else:
            assert limited.code != 0
            assert "enable the controller memory" in limited.errors
    assert list(tree.glob("host*")) == []


def test_a_fleet_keeps_its_cgroup_until_it_is_told_otherwise(tmp_path: Path, tree: Path) -> None:
    with Fleet(tmp_path / "fleet", 1, options=("--cgroup", str(tree))) as fleet:
        fleet.start()
    with Fleet(tmp_path / "fleet", 1) as again:
        again.start()
        assert (tree / "host1").is_dir()
    with Fleet(tmp_path / "fleet", 1, options=("--cgroup", "")) as without:
        without.start()
        refused = without.run("start", "sleep", "-n", "small", "--listen", "none", "--pids-limit", "9", "--", "1000")
        assert "`fleetctl up`, with --cgroup DIR" in refused.errors
        assert not (tree / "host1").exists()


def test_a_folder_that_is_no_cgroup_is_refused_in_one_line_and_not_recorded(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "fleet", 1)
    plain = tmp_path / "plain"
    refused = fleet.run("up", "--data-dir", str(fleet.data_dir), "--cgroup", str(plain))
    assert refused.code == 5, refused.errors
    (line,) = refused.error_lines
    assert line.startswith(f"fleetctl: {plain} is no cgroup v2 folder: name an empty one that you may write to")
    assert not plain.exists()
    assert not (fleet.data_dir / "up.json").exists()
